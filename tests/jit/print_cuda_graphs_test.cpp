// Random graphs on a device give the bits of the chunk evaluator: fused and one kernel a node, as launches
// and as a CUDA graph. Products and convolutions are a library's, so graphs with one are left out.
#include "tandem/jit/expand.h"
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/random_graphs.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

bool has_doubles(const Graph& g) {
  return std::any_of(g.values.begin(), g.values.end(),
                     [](const auto& v) { return v.type.dtype == DType::float64 && !v.type.number; });
}

bool has_convolution(const Plan& p) {
  return std::any_of(p.natives.begin(), p.natives.end(),
                     [](const auto& n) { return n.op->kind == ops::OpKind::convolution; });
}

void compare(uint64_t first, uint64_t last, uint64_t step, int at_least) {
  struct One {
    uint64_t seed;
    bool fused;
    test::RandomGraph random;
  };
  std::vector<One> all;
  std::vector<samples::Case> kernels;  // compiled together, so that few programs hold them
  for (uint64_t seed = first; seed <= last; seed += step)
    for (const bool fused : {true, false}) {
      One one{seed, fused, test::random_graph(seed)};
      if (samples::is_card() && has_doubles(one.random.graph)) continue;
      const Prepared p = prepare(fused ? optimize(one.random.graph) : expand_composites(one.random.graph),
                                 Device{DeviceType::cuda}, true);
      const Plan plan = build_plan(p, group(p, fused, false), fused);
      if (!plan.products.empty() || has_convolution(plan)) continue;
      if (samples::is_card() &&
          std::any_of(plan.kernels.begin(), plan.kernels.end(), samples::may_differ_on_cards))
        continue;
      for (const Kernel& k : plan.kernels) kernels.push_back({k, {}, {}, {}, {}, {}});
      all.push_back(std::move(one));
    }
  samples::device_functions(kernels);
  for (const One& one : all) {
    CAPTURE(one.seed, one.fused);
    const Graph& g = one.random.graph;
    ExecutableOptions options;
    options.optimize = one.fused;
    options.compile = false;
    const test::GraphRun expected = test::run_graph(*Executable::make(g, options), g, one.random.arguments);
    for (const bool as_graph : {false, true}) {
      options.device = samples::kCuda;
      options.compile = as_graph;
      const auto x = Executable::make(g, options);
      const test::GraphRun found = samples::run_on_device(*x, g, one.random.arguments);
      if ((found.failed != 0) != (expected.failed != 0)) FAIL_CHECK("one run failed, the other did not");
      if (found.failed != 0 || expected.failed != 0) continue;  // what was written by then may differ
      const std::string difference = test::difference(g, expected, found);
      if (!difference.empty()) FAIL_CHECK(difference << '\n' << x->plan_text());
    }
  }
  CHECK(static_cast<int>(all.size()) >= at_least);
}

}  // namespace

TEST_CASE("random graphs on a device give the evaluator's bits", "[jit]") { compare(1, 300, 24, 8); }
TEST_CASE("many random graphs on a device give the evaluator's bits", "[jit][simulator]") {
  compare(1000, 1500, 1, 300);
}
