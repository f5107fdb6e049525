// Kernels that are alike and independent of each other run in few launches, with the evaluator's bits.
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using ops::Value;

namespace {

/// Runs `g` as launches and, twice, as a CUDA graph. Gives the launches of the former. `entries`: on the CPU;
/// 0: any number.
long check_graph(const Graph& g, int entries) {
  ExecutableOptions options;
  options.compile = false;
  test::GraphArguments arguments = test::some_arguments(g, 7);
  const auto on_host = Executable::make(g, options);
  if (entries > 0) CHECK(on_host->stats().entries == entries);
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

TEST_CASE("148 updates of parameters are one launch, 500 are few", "[jit]") {
  const long launches = check_graph(updates(148, false), 1), more = check_graph(updates(500, false), 1);
  if (!samples::is_card()) {
    CHECK(launches == 1);
    CHECK(more > 1);
    CHECK(more <= 3);
  }
}

TEST_CASE("alike kernels of any number share launches", "[jit]") {
  for (const int count : {2, 3, 40}) {
    CAPTURE(count);
    const long launches = check_graph(updates(count, true), 1);
    if (!samples::is_card()) CHECK(launches == 1);
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
  const long of_columns = check_graph(columns, 3);  // the CPU walks two of them by rows
  if (samples::is_card()) return;
  CHECK(of_rows == 4);  // three short ones; 20000 and 40000; 1000; 33000: a warp, all that two or three need
  CHECK(of_columns == 6);  // 5; 40 and 64; 1000; three long ones, split
}

TEST_CASE("long rows of several walks are kept in as much shared memory as the device gives if asked",
          "[jit]") {
  for (const int64_t n : {8192, 12288, 16384, 20480}) {
    CAPTURE(n);
    Graph g;
    GraphEmitter e(g, false);
    const Value x = input(g, {5, n}), scaled = e.mul(x, e.sum(x, {1}, true));
    g.outputs.push_back(e.mul(x, e.sum(e.mul(scaled, scaled), {1}, true)).id);
    const Prepared p = prepare(optimize(g), Device{DeviceType::cuda}, true);
    const Plan plan = build_plan(p, group(p, true, false), true);
    REQUIRE(plan.calls.size() == 1);
    const LaunchShape shape = launch_shape(plan.kernels[0], plan.words.data() + plan.calls[0].dims,
                                           plan.calls[0].range, 227 * 1024);
    CHECK(shape.shared_bytes == (n == 8192 ? 40 * 1024 + 16 : 4 * n));
    const long launches = check_graph(g, 0);
    if (!samples::is_card()) CHECK(launches == 1);
  }
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

// What walks over a row several times becomes a kernel a walk, so that each can be split.
TEST_CASE("few long rows of several walks are split over the grid in each", "[jit]") {
  for (const int64_t n : {65536, 70001, 1 << 20}) {
    for (const char* op : {"softmax", "log_softmax", "layer_norm", "cross_entropy", "scaled by the norm"}) {
      CAPTURE(n, op);
      const std::string name = op;
      Graph g;
      GraphEmitter e(g, false);
      const Value x = input(g, {2, n});
      Value y;
      if (name == "softmax") y = e.call(OpId::softmax, {x}, {1});
      if (name == "log_softmax") y = e.call(OpId::log_softmax, {x}, {1});
      if (name == "layer_norm") y = e.call(OpId::layer_norm, {x, Value{}, Value{}, e.number(1e-5)}, {1});
      if (name == "cross_entropy") {
        ops::TensorType t;
        t.dtype = DType::int64;
        t.sizes = {2};
        const Value labels{g.add_input(t, {1})};
        y = e.call(OpId::cross_entropy, {x, labels, e.number(-100)}, {1});
      }
      if (name == "scaled by the norm") {
        const Value squares = e.mul(x, x);
        const Value norm = e.sqrt(e.sum(squares, {0, 1}, false));
        y = e.div(x, norm);
      }
      g.outputs.push_back(y.id);
      const Prepared p = prepare(optimize(g), Device{DeviceType::cuda}, true);
      const Plan plan = build_plan(p, group(p, true, false), true);
      INFO(to_string(plan));
      int split = 0;
      for (const Entry& entry : plan.entries) {
        if (entry.kind != EntryKind::kernel) continue;
        const Kernel& k = plan.kernels[static_cast<size_t>(entry.index)];
        const KernelCall& call = plan.calls[static_cast<size_t>(entry.first)];
        const int64_t* const dims = plan.words.data() + call.dims;
        int64_t columns = 1;
        for (int d = k.kept_rank; d < k.kept_rank + k.reduced_rank; ++d) columns *= dims[d];
        if (k.reductions.empty() || columns < n) continue;
        REQUIRE(cuda_splits(k));
        // A warp has two of the tree's blocks.
        CHECK(split_shape(k, dims, call.range).launch.grid >= 2 * n / kRowBlock / 2);
        ++split;
      }
      CHECK(split >= 1);
      for (const Entry& entry : plan.entries) {  // the last walk is the whole grid's
        const Kernel& k = plan.kernels[static_cast<size_t>(entry.index)];
        if (!k.reductions.empty()) continue;
        const KernelCall& call = plan.calls[static_cast<size_t>(entry.first)];
        CHECK(launch_shape(k, plan.words.data() + call.dims, call.range).grid >= 2 * n / 1024 / 4);
      }
      if (name != "cross_entropy" && n < 100000) check_graph(g, 0);
    }
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
