// Kernels that are alike and independent of each other run in few launches, with the evaluator's bits.
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using ops::Value;

namespace {

/// Runs `g` as launches and, twice, as a CUDA graph. Gives the launches of the former.
long check_graph(const Graph& g, int entries) {
  ExecutableOptions options;
  options.compile = false;
  test::GraphArguments arguments = test::some_arguments(g, 7);
  const auto on_host = Executable::make(g, options);
  CHECK(on_host->stats().entries == entries);
  long launches = 0;
  options.device = samples::kCuda;
  for (const bool as_graph : {false, true}) {
    options.compile = as_graph;
    const auto x = Executable::make(g, options);
    for (int run = 0; run < 1 + as_graph; ++run) {
      const long before = samples::simulator_count("launches");
      const test::GraphRun found = samples::run_on_device(*x, g, arguments);
      if (!as_graph) launches = samples::simulator_count("launches") - before;
      CAPTURE(as_graph, run);
      CHECK(test::difference(g, test::run_graph(*on_host, g, arguments), found) == "");
      for (int64_t& n : arguments.numbers) n = std::bit_cast<int64_t>(std::bit_cast<double>(n) * 0.75);
    }
  }
  return launches;
}

Value input(Graph& g, const Dims& sizes) {
  ops::TensorType t;
  t.dtype = DType::float32;
  t.sizes = sizes;
  return {g.add_input(t, contiguous_strides(sizes))};
}

/// `count` updates of a parameter by its gradient and a moment, in place.
Graph updates(int count, bool with_empty) {
  Graph g;
  GraphEmitter e(g, false);
  const Value rate{g.add_number(DType::float64)}, beta{g.add_number(DType::float64)};
  for (int i = 0; i < count; ++i) {
    const int64_t n = i == 3 ? 5000 : i % 2 ? 7 + i : 64;
    const Dims sizes = with_empty && i == 5 ? Dims{0} : Dims{n};
    const Value p = input(g, sizes), d = input(g, sizes), m = input(g, sizes);
    const Value moved = e.add(e.mul(m, beta), d);
    g.writes.push_back({3 * i + 2, moved.id});
    g.writes.push_back({3 * i, e.sub(p, e.mul(moved, rate)).id});
  }
  return g;
}

}  // namespace

TEST_CASE("148 updates of parameters are a handful of launches", "[jit]") {
  const long launches = check_graph(updates(148, false), 1);
  if (!samples::is_card()) {
    CHECK(launches > 1);
    CHECK(launches <= 8);
  }
}

TEST_CASE("alike kernels of any number share launches", "[jit]") {
  for (const int count : {2, 3, 40}) {
    CAPTURE(count);
    const long launches = check_graph(updates(count, true), 1);
    if (!samples::is_card()) CHECK(launches == (count > 31 ? 2 : 1));
  }
}

TEST_CASE("alike rows and columns of all lengths share launches where blocks have one shape", "[jit]") {
  Graph rows, columns;
  GraphEmitter e(rows, false), f(columns, false);
  for (const int64_t n : {5, 40, 64, 20000, 40000, 1000, 33000}) {
    rows.outputs.push_back(e.sum(input(rows, {3, n}), {1}, false).id);
    columns.outputs.push_back(f.sum(input(columns, {n, 40}), {0}, false).id);
  }
  const long of_rows = check_graph(rows, 1);
  const long of_columns = check_graph(columns, 1);
  if (samples::is_card()) return;
  CHECK(of_rows == 4);  // three short ones; 20000 and 40000; 1000; 33000: a warp, all that two or three need
  CHECK(of_columns == 5);  // three short ones, 1000; three long ones, split
}

// The warps of a row's parts meet in its counter, which must be 0 again for the next run.
TEST_CASE("few long rows are split over the grid", "[jit]") {
  for (const int64_t n : {40000, 70001, 163840}) {
    CAPTURE(n);
    Graph g;
    GraphEmitter e(g, false);
    const Value x = input(g, {2, n}), y = input(g, {n});
    g.outputs.push_back(e.add(e.mul(e.sum(x, {1}, false), 0.5), 1.0).id);
    g.outputs.push_back(e.call(OpId::argmax, {y}, {1, 0}).id);
    g.outputs.push_back(e.sum(e.mul(y, y), {0}, false).id);
    const Prepared p = prepare(optimize(g), Device{DeviceType::cuda}, true);
    const Plan plan = build_plan(p, group(p, true, false), true);
    int split = 0;
    for (const Entry& entry : plan.entries) {
      const KernelCall& call = plan.calls[static_cast<size_t>(entry.first)];
      REQUIRE(cuda_splits(plan.kernels[static_cast<size_t>(entry.index)]));
      const SplitShape shape = split_shape(plan.kernels[static_cast<size_t>(entry.index)],
                                           plan.words.data() + call.dims, call.range);
      split += shape.launch.grid >= 2;
    }
    INFO(to_string(plan));
    CHECK(split == static_cast<int>(plan.entries.size()));
    check_graph(g, split);
  }
}

TEST_CASE("alike sums, some of them split, share launches", "[jit]") {
  Graph g;
  GraphEmitter e(g, false);
  for (const int64_t n : {100, 70000, 2000, 50000, 300})
    g.outputs.push_back(e.sum(input(g, {n}), {0}, false).id);
  const long launches = check_graph(g, 1);
  if (!samples::is_card()) CHECK(launches == 5);
}
