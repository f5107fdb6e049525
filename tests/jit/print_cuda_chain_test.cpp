// Small kernels that need one another run in one launch of one thread block, with the evaluator's bits.
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"
#include "tests/jit/nvrtc.h"

using namespace tandem;
using namespace tandem::jit;
using ops::Value;

namespace {

Value input(Graph& g, const Dims& sizes) {
  ops::TensorType t;
  t.dtype = DType::float32;
  t.sizes = sizes;
  return {g.add_input(t, contiguous_strides(sizes))};
}

Plan plan_of(const Graph& g) {
  const Prepared p = prepare(optimize(g), Device{DeviceType::cuda}, true);
  return build_plan(p, group(p, true, false), true);
}

/// Rows, what they sum to, the quotient, its sums over columns, and what it is the other way round.
Graph norms(int64_t rows, int64_t columns) {
  Graph g;
  GraphEmitter e(g, false);
  const Value x = input(g, {rows, columns}), y = input(g, {columns, rows});
  const Value whole = e.sum(e.sum(e.mul(x, x), {1}, false), {0}, false);
  const Value part = e.div(x, whole);
  g.outputs = {whole.id, e.sum(part, {0}, false).id, e.add(e.permute(part, {1, 0}), y).id};
  return g;
}

/// Launches of a run; its bits are the evaluator's.
long checked_launches(const Graph& g) {
  ExecutableOptions options;
  options.compile = false;
  const test::GraphArguments arguments = test::some_arguments(g, 11);
  const test::GraphRun wanted = test::run_graph(*Executable::make(g, options), g, arguments);
  long launches = 0;
  options.device = samples::kCuda;
  for (const bool as_graph : {false, true}) {
    options.compile = as_graph;
    const auto x = Executable::make(g, options);
    for (int run = 0; run < 2; ++run) {
      CAPTURE(as_graph, run, x->plan_text());
      const long before = samples::simulator_count("launches");
      CHECK(test::difference(g, wanted, samples::run_on_device(*x, g, arguments)) == "");
      if (!as_graph) launches = samples::simulator_count("launches") - before;
    }
  }
  return launches;
}

}  // namespace

TEST_CASE("small kernels that need one another are one launch", "[jit]") {
  for (const auto& [rows, columns] : {std::pair{64, 10}, {2, 2000}, {1, 1}, {33, 65}}) {
    CAPTURE(rows, columns);
    const long launches = checked_launches(norms(rows, columns));
    if (!samples::is_card()) CHECK(launches == 1);
  }
}

TEST_CASE("large kernels have launches of their own", "[jit]") {
  const Plan small = plan_of(norms(64, 64)), large = plan_of(norms(64, 65));
  CHECK(small.entries.size() == 1);
  CHECK(small.entries[0].chain);
  CHECK(large.entries.size() > 1);
}

TEST_CASE("what waits for something besides that waits for a chain is not in it", "[jit]") {
  Graph g;
  GraphEmitter e(g, false);
  const Value x = input(g, {16, 16}), w = input(g, {16, 16});
  const Value first = e.sum(e.mul(x, x), {0}, true);
  const Value product = e.matmul(e.add(w, first), w);
  g.outputs = {e.sum(e.mul(product, first), {0}, false).id};
  const Plan plan = plan_of(g);
  REQUIRE(plan.products.size() == 1);
  REQUIRE(plan.entries.size() == 3);
  CHECK(plan.entries[0].chain);
  CHECK(plan.entries[1].kind == EntryKind::product);
  CHECK(!plan.entries[2].chain);
}

TEST_CASE("a chain does not keep a large reader waiting, and what that reads in memory", "[jit]") {
  Graph g;
  GraphEmitter e(g, false);
  const Dims square = {1024, 1024};
  const Value scale = e.sum(input(g, {64}), {0}, false);
  const Value large = e.relu(e.mul(e.matmul(input(g, square), input(g, square)), scale));
  const Value other = e.relu(e.matmul(input(g, square), input(g, square)));
  const Value few = e.mul(e.matmul(input(g, {4, 1024}), other), scale);
  g.outputs = {large.id, few.id};
  const Plan plan = plan_of(g);
  INFO(to_string(plan));
  for (const Entry& entry : plan.entries) CHECK(!entry.chain);
  CHECK(plan.arena_bytes < int64_t{6} << 20);  // one product at a time
}

TEST_CASE("a chain has a barrier between its kernels, and NVRTC takes it", "[jit]") {
  const Plan plan = plan_of(norms(64, 10));
  REQUIRE(plan.entries.size() == 1);
  std::vector<const Kernel*> kernels = {&plan.kernels[static_cast<size_t>(plan.entries[0].index)]};
  for (const Join& j : plan.joins) kernels.push_back(&plan.kernels[static_cast<size_t>(j.kernel)]);
  REQUIRE(kernels.size() > 2);
  const std::string text = print_cuda_chain(kernels, "kernel");
  size_t barriers = 0;
  for (size_t at = 0; (at = text.find("\n}\n__syncthreads();\n", at)) != std::string::npos; ++at) ++barriers;
  CHECK(barriers + 1 == kernels.size());
  if (!samples::has_nvrtc()) return;
  const samples::NvrtcResult r = samples::nvrtc_compile(text);
  INFO(r.log);
  CHECK(r.failed == 0);
}
