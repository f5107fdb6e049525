// NVRTC compiles what the CUDA printer prints: no warning, no spill, and as many accesses as there are loads
// and stores.
#include <cstdio>
#include <set>

#include "tandem/jit/expand.h"
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/nvrtc.h"
#include "tests/jit/random_graphs.h"
#include "tests/jit/random_kernels.h"

using namespace tandem;
using namespace tandem::jit;
using tandem::jit::samples::NvrtcResult;

namespace {

constexpr uint64_t kGraphs = 300;

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t i = text.find(part); i != std::string::npos; i = text.find(part, i + part.size())) ++n;
  return n;
}

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
    CHECK(count(r.ptx, "ld.global.v") == g.loads);
    CHECK(count(r.ptx, "st.global.v") == g.stores);
    CHECK(count(r.ptx, "ld.global.f32") == g.loads);
    CHECK(count(r.ptx, "st.global.f32") == g.stores);
    CHECK(count(r.ptx, "ld.global") == 2 * g.loads);
    CHECK(count(r.ptx, "st.global") == 2 * g.stores);
    CHECK(count(r.ptx, "\tld.f32") + count(r.ptx, "\tst.f32") == 0);  // of unknown memory
  }
}

TEST_CASE("NVRTC compiles the kernels of random graphs, fused and not", "[jit]") {
  if (!samples::has_nvrtc()) return;
  std::set<std::string> seen;
  std::vector<std::string> programs(1);
  int in_program = 0, words = 0;
  for (uint64_t seed = 1; seed <= kGraphs; seed += 12)
    for (const bool fused : {false, true}) {
      const test::RandomGraph r = test::random_graph(seed);
      const Prepared p = prepare(fused ? optimize(r.graph) : expand_composites(r.graph));
      const Plan plan = build_plan(p, group(p, fused), fused);
      for (size_t i = 0; i < plan.kernels.size(); ++i) {
        if (!seen.insert(plan.kernel_texts[i]).second) continue;
        if (in_program++ % 32 == 31) programs.emplace_back();
        programs.back() += print_cuda(plan.kernels[i], "kernel" + std::to_string(seen.size()));
        words = std::max(words, cuda_words(plan.kernels[i]));
      }
    }
  std::printf("%zu kernels of random graphs, at most %d words\n", seen.size(), words);
  CHECK(seen.size() > 100);
  CHECK(words <= kMaxCudaWords);
  for (const std::string& program : programs) check_clean(samples::nvrtc_compile(program));
}
