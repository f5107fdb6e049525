// NVRTC compiles what the CUDA printer prints: no warning, no spill, and as many accesses as there are loads
// and stores.
#include <cstdio>
#include <set>

#include "tandem/jit/expand.h"
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/nvrtc.h"
#include "tests/jit/op_graphs.h"
#include "tests/jit/random_graphs.h"
#include "tests/jit/random_kernels.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::NvrtcResult;

namespace {

constexpr uint64_t kGraphs = 300;

// Lines of the log that tell of spilt registers.
std::string spills(const std::string& log) {
  std::string found;
  for (size_t i = 0; i < log.size();) {
    const size_t end = std::min(log.find('\n', i), log.size());
    const std::string line = log.substr(i, end - i);
    if (line.find("spill") != std::string::npos &&
        line.find(" 0 bytes spill stores, 0 bytes spill loads") == std::string::npos)
      found += line + '\n';
    i = end + 1;
  }
  return found;
}

void check_clean(const NvrtcResult& r) {
  INFO(r.log.substr(0, 6000));
  REQUIRE(r.failed == 0);
  CHECK_THAT(r.log, Contains("ptxas info"));
  CHECK(r.log.find("warning") == std::string::npos);
  CHECK(spills(r.log).empty());
}

}  // namespace

TEST_CASE("NVRTC compiles random kernels without warning or spill", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const KernelKind kind : {KernelKind::pointwise, KernelKind::row, KernelKind::column}) {
    samples::Generator generator(20240 + static_cast<uint64_t>(kind));
    std::string text;
    for (int i = 0; i < 20; ++i) text += print_cuda(generator.make(kind).k, "kernel" + std::to_string(i));
    check_clean(samples::nvrtc_compile(text));
  }
}

TEST_CASE("a CUDA kernel loads and stores each element once", "[jit]") {
  if (!samples::has_nvrtc()) return;
  struct Golden {
    Kernel k;
    int loads, stores;
  };
  for (const Golden& g :
       {Golden{samples::adamw(), 4, 3}, {samples::bias_gelu(), 2, 1}, {samples::dropout(), 1, 1}}) {
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(g.k, "kernel"));
    check_clean(r);
    CAPTURE(g.k.name);
    // Sixteen bytes at a time where the call allows it, else an element.
    CHECK(samples::count(r.ptx, "ld.global.v") == g.loads);
    CHECK(samples::count(r.ptx, "st.global.v") == g.stores);
    CHECK(samples::count(r.ptx, "ld.global.f32") == g.loads);
    CHECK(samples::count(r.ptx, "st.global.f32") == g.stores);
    CHECK(samples::count(r.ptx, "ld.global") == 2 * g.loads);
    CHECK(samples::count(r.ptx, "st.global") == 2 * g.stores);
    CHECK(samples::count(r.ptx, "\tld.f32") + samples::count(r.ptx, "\tst.f32") == 0);  // of unknown memory
  }
}

TEST_CASE("a CUDA kernel for several calls reads its words where they are", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const Kernel& k : {samples::adamw(), samples::softmax(), samples::relu_backward_bias()}) {
    CAPTURE(k.name);
    const NvrtcResult one = samples::nvrtc_compile(print_cuda(k, "kernel"));
    const NvrtcResult many = samples::nvrtc_compile(print_cuda(k, "kernel", CudaForm::several));
    check_clean(many);
    CHECK(samples::count(many.ptx, ".local") == 0);  // no copy of the parameter
    CHECK(samples::count(many.ptx, "ld.global") == samples::count(one.ptx, "ld.global"));
    CHECK(samples::count(many.ptx, "st.global") == samples::count(one.ptx, "st.global"));
  }
}

TEST_CASE("a CUDA kernel that splits rows reads parts past the caches", "[jit]") {
  if (!samples::has_nvrtc()) return;
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::argmax}) {
    samples::Builder b("long row", KernelKind::row, 1, 1);
    b.store(b.reduce(op, b.load(DType::float32, Inner::contiguous)), Inner::constant, true);
    const NvrtcResult r = samples::nvrtc_compile(print_cuda(b.k, "kernel", CudaForm::split));
    check_clean(r);
    CHECK(samples::count(r.ptx, "ld.global.cg") > 0);
    CHECK(samples::count(r.ptx, "atom") == 1);
    CHECK(samples::count(r.ptx, "ld.global.v2") >= 4);
  }
}

namespace {

/// Distinct kernels, some to a program.
class Programs {
 public:
  void add(const Graph& g, bool fused) {
    const Prepared p = prepare(fused ? optimize(g) : expand_composites(g));
    const Plan plan = build_plan(p, group(p, fused), fused);
    for (size_t i = 0; i < plan.kernels.size(); ++i) {
      if (!seen_.insert(plan.kernel_texts[i]).second) continue;
      if (seen_.size() % 32 == 1) texts_.emplace_back();
      texts_.back() += print_cuda(plan.kernels[i], "kernel" + std::to_string(seen_.size()));
      words_ = std::max(words_, cuda_words(plan.kernels[i]));
    }
  }
  void compile(int capability, size_t step) const {
    CAPTURE(capability);
    CHECK(words_ <= kMaxCudaWords);
    for (size_t i = 0; i < texts_.size(); i += step)
      check_clean(samples::nvrtc_compile(texts_[i], capability));
  }
  size_t size() const { return seen_.size(); }

 private:
  std::set<std::string> seen_;
  std::vector<std::string> texts_;
  int words_ = 0;
};

void add_random_graphs(Programs& programs, uint64_t step) {
  for (uint64_t seed = 1; seed <= kGraphs; seed += step)
    for (const bool fused : {false, true}) programs.add(test::random_graph(seed).graph, fused);
}

// Every op of the table with each of its samples.
void add_op_table(Programs& programs) {
  test::for_each_op([&](const ops::OpDef& op) {
    for (const ops::Sample& s : ops::samples(op))
      if (!s.must_throw) programs.add(samples::graph_of(op, s), true);
  });
}

}  // namespace

TEST_CASE("NVRTC compiles the kernels of random graphs, fused and not", "[jit]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_random_graphs(programs, 24);
  CHECK(programs.size() > 60);
  programs.compile(90, 1);
}

TEST_CASE("NVRTC compiles kernels of the op table", "[jit]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_op_table(programs);
  CHECK(programs.size() > 150);
  programs.compile(90, 5);
}

TEST_CASE("NVRTC compiles the op table and random graphs for three generations of devices", "[jit][full]") {
  if (!samples::has_nvrtc()) return;
  Programs programs;
  add_op_table(programs);
  add_random_graphs(programs, 3);
  std::printf("%zu kernels of the op table and of random graphs\n", programs.size());
  for (const int capability : {80, 90, 120}) programs.compile(capability, 1);
}
