// What NVRTC makes of canonical kernels for sm_90, compared with a table in this folder: registers, accesses
// and bytes of code. A change of the printer shows here; TANDEM_UPDATE_GOLDEN=1 writes the table anew.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/hand_cases.h"
#include "tests/jit/nvrtc.h"
#include "tests/jit/op_graphs.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

constexpr const char* kTable = TANDEM_SOURCE_DIR "/tests/jit/nvrtc_golden.txt";
constexpr const char* kOps[] = {"add",           "mul",
                                "div",           "exp",
                                "erf",           "tanh",
                                "pow",           "sin",
                                "where",         "cast",
                                "gelu",          "softmax",
                                "log_softmax",   "layer_norm",
                                "cross_entropy", "mse_loss",
                                "dropout",       "embedding",
                                "gather",        "masked_fill",
                                "permute",       "slice",
                                "expand",        "sum",
                                "prod",          "amax",
                                "argmax",        "mean",
                                "var",           "any",
                                "rand",          "randn",
                                "adamw_update",  "sgd_momentum_update",
                                "arange"};

int number_before(const std::string& text, const std::string& word) {
  const size_t end = text.find(word);
  REQUIRE(end != std::string::npos);
  size_t begin = end;
  while (begin > 0 && (std::isdigit(static_cast<unsigned char>(text[begin - 1])) != 0)) --begin;
  return std::stoi(text.substr(begin, end - begin));
}

std::string row(const std::string& name, const Kernel& k, CudaForm form = CudaForm::one) {
  const samples::NvrtcResult r = samples::nvrtc_compile(print_cuda(k, "kernel", form));
  INFO(r.log);
  REQUIRE(r.failed == 0);
  std::ostringstream out;
  out << name << ": " << number_before(r.log, " registers") << " registers, "
      << samples::count(r.ptx, "ld.global") << " loads (" << samples::count(r.ptx, "ld.global.v")
      << " packs), " << samples::count(r.ptx, "st.global") << " stores ("
      << samples::count(r.ptx, "st.global.v") << " packs), " << r.cubin_bytes << " bytes\n";
  return out.str();
}

std::string table() {
  std::string text;
  for (const Kernel& k : {samples::softmax(), samples::layer_norm(), samples::bias_gelu(), samples::adamw(),
                          samples::dropout(), samples::relu_backward_bias(), samples::layer_norm_backward()})
    text += row("sample " + k.name, k);
  text += row("sample adamw, several calls", samples::adamw(), CudaForm::several);
  samples::Builder total("total", KernelKind::row, 0, 1);
  total.store(total.reduce(ReduceOp::sum, total.load(DType::float32, Inner::contiguous)), Inner::constant,
              true);
  text += row("sample relu_backward sum, split", samples::relu_backward_bias(), CudaForm::split);
  text += row("sample total", total.k) + row("sample total, split", total.k, CudaForm::split);
  test::for_each_op([&](const ops::OpDef& op) {
    if (std::find_if(std::begin(kOps), std::end(kOps),
                     [&](const char* name) { return std::string(name) == op.name; }) == std::end(kOps))
      return;
    for (const ops::Sample& s : ops::samples(op)) {
      if (s.must_throw) continue;
      const Prepared p = prepare(optimize(samples::graph_of(op, s)), Device{DeviceType::cuda}, true);
      const Plan plan = build_plan(p, group(p, true, false), true);
      if (plan.kernels.empty()) continue;
      for (size_t i = 0; i < plan.kernels.size(); ++i)
        text += row(op.name + std::string(plan.kernels.size() > 1 ? " " + std::to_string(i) : ""),
                    plan.kernels[i]);
      return;
    }
  });
  return text;
}

}  // namespace

TEST_CASE("NVRTC makes of canonical kernels what the table says", "[jit]") {
  if (!samples::has_nvrtc()) return;
  int major = 0, minor = 0;
  cuda::nvrtc()->version(&major, &minor);
  const std::string version = "NVRTC " + std::to_string(major) + "." + std::to_string(minor) + ", sm_90";
  if (std::getenv("TANDEM_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(kTable) << version << '\n' << table();
    return;
  }
  std::ifstream file(kTable);
  std::string wanted_version, wanted;
  REQUIRE(std::getline(file, wanted_version));
  if (wanted_version != version) {
    std::fprintf(stderr, "skipped: the table is of %s, here is %s\n", wanted_version.c_str(),
                 version.c_str());
    return;
  }
  std::istringstream found(table());
  for (std::string line; std::getline(found, line);) {
    std::getline(file, wanted);
    CHECK(line == wanted);
  }
  CHECK(!std::getline(file, wanted));
}
