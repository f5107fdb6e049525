// Native ops of large sizes on a device give the CPU's bits: scatters whose indices meet, over segments of
// the axis, and running sums by blocks.
#include <array>
#include <cmath>

#include "tests/catch.h"
#include "tests/elements.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using ops::Value;

namespace {

Value input(Graph& g, DType type, const Dims& sizes) {
  ops::TensorType t;
  t.dtype = type;
  t.sizes = sizes;
  return {g.add_input(t, contiguous_strides(sizes))};
}

/// The only node's result on the device and on the CPU.
void check_run(const Graph& g, const test::GraphArguments& arguments, bool fails = false) {
  ExecutableOptions options;
  options.compile = false;
  const test::GraphRun expected = test::run_graph(*Executable::make(g, options), g, arguments);
  options.device = samples::kCuda;
  const test::GraphRun found = samples::run_on_device(*Executable::make(g, options), g, arguments);
  CHECK((expected.failed != 0) == fails);
  CHECK((found.failed != 0) == fails);
  if (!fails) CHECK(test::difference(g, expected, found) == "");
}

/// Indices (input 1) fall into [0, rows), but for one that is `wrong`.
void check(const Graph& g, int64_t rows = 1, int64_t wrong = -1) {
  test::GraphArguments arguments = test::some_arguments(g, 11);
  if (arguments.inputs.size() > 1) {
    const DType type = g.type(g.inputs[1].value).dtype;
    const int64_t n = numel(g.type(g.inputs[1].value).sizes);
    for (int64_t i = 0; i < n; ++i)
      test::write_element(arguments.inputs[1].data(), type, i, static_cast<double>((i * i + i / 7) % rows));
    if (wrong >= 0) test::write_element(arguments.inputs[1].data(), type, wrong, static_cast<double>(rows));
  }
  check_run(g, arguments, wrong >= 0);
}

void check_index_add(DType type, DType index, const Dims& sizes, int64_t axis, int64_t n,
                     int64_t wrong = -1) {
  CAPTURE(type, sizes, axis, n);
  Graph g;
  GraphEmitter e(g, false);
  Dims source = sizes;
  source[static_cast<int>(axis)] = n;
  const Value x = input(g, type, sizes), i = input(g, index, {n}), s = input(g, type, source);
  g.outputs.push_back(e.call(OpId::index_add, {x, i, s}, {axis}).id);
  check(g, sizes[static_cast<int>(axis)], wrong);
}

void check_scatter_add(DType type, const Dims& sizes, const Dims& from, int64_t axis, int64_t wrong = -1) {
  CAPTURE(type, sizes, from, axis);
  Graph g;
  GraphEmitter e(g, false);
  const Value x = input(g, type, sizes), i = input(g, DType::int64, from), s = input(g, type, from);
  g.outputs.push_back(e.call(OpId::scatter_add, {x, i, s}, {axis}).id);
  check(g, sizes[static_cast<int>(axis)], wrong);
}

/// So many indices that they are sorted; they fall on `rows` places of the axis.
void check_sorted(OpId op, DType type, DType index, const Dims& sizes, const Dims& from, int64_t axis,
                  int64_t rows, int64_t wrong = -1) {
  CAPTURE(ops::def(op).name, type, sizes, from, axis, rows);
  const bool along = op == OpId::index_add || op == OpId::index_copy;
  Graph g;
  GraphEmitter e(g, false);
  const Value x = input(g, type, sizes),
              i = input(g, index, along ? Dims{from[static_cast<int>(axis)]} : from),
              s = input(g, type, from);
  g.outputs.push_back(e.call(op, {x, i, s}, {axis}).id);
  check(g, rows, wrong);
}

void check_cumsum(DType type, const Dims& sizes, int64_t axis) {
  for (const int64_t reverse : {0, 1}) {
    CAPTURE(type, sizes, axis, reverse);
    Graph g;
    GraphEmitter e(g, false);
    g.outputs.push_back(e.call(OpId::cumsum, {input(g, type, sizes)}, {axis, reverse}).id);
    check(g);
  }
}

void check_pool(OpId op, DType type, const Dims& sizes, const std::vector<int64_t>& words) {
  CAPTURE(ops::def(op).name, type, sizes, words);
  Graph g;
  GraphEmitter e(g, false);
  g.outputs.push_back(e.call(op, {input(g, type, sizes)}, words).id);
  check(g);
}

/// max_pool with places in the window and in the plane, its gradient and the gradient's, each of the other's
/// places; `windows` without the flags.
void check_max_pool(DType type, const Dims& sizes, bool ceil, bool adaptive, const Dims& windows) {
  for (const int64_t positions : {0, 1}) {
    CAPTURE(type, sizes, ceil, adaptive, windows, positions);
    Graph g;
    GraphEmitter e(g, false);
    const Value x = input(g, type, sizes);
    std::vector<int64_t> words = {ceil, adaptive, positions, windows.size()};
    words.insert(words.end(), windows.begin(), windows.end());
    Value top[2];
    e.emit(OpId::max_pool, {&x, 1}, words, top);
    g.outputs = {top[0].id, top[1].id};
    if (is_floating(type)) {
      words.erase(words.begin() + 2);
      g.outputs.push_back(e.call(OpId::max_pool_pick, {x, top[1]}, words).id);
      const int rank = windows.size() / (adaptive ? 1 : 4);
      words.push_back(rank);
      for (int i = sizes.rank() - rank; i < sizes.rank(); ++i) words.push_back(sizes[i]);
      g.outputs.push_back(e.call(OpId::max_pool_backward, {top[0], top[1]}, words).id);
    }
    check(g);
  }
}

}  // namespace

TEST_CASE("index_add in segments gives the CPU's bits", "[jit]") {
  for (const DType type : {DType::float32, DType::bfloat16, DType::int32, DType::bool_})
    check_index_add(type, DType::int64, {50, 40}, 0, 700);
  check_index_add(DType::float32, DType::int32, {3, 29, 17}, 1, 333);
  check_index_add(DType::float32, DType::int64, {300}, 0, 4001);   // one position, many segments
  check_index_add(DType::float32, DType::int64, {1, 70}, 0, 999);  // one row
  check_index_add(DType::float64, DType::int64, {40, 5}, 1, 31);
  for (const int64_t wrong : {0, 600}) check_index_add(DType::float32, DType::int64, {50, 8}, 0, 700, wrong);
}

TEST_CASE("scatter_add in segments gives the CPU's bits", "[jit]") {
  for (const DType type : {DType::float32, DType::float16, DType::int64})
    check_scatter_add(type, {200}, {3000}, 0);
  check_scatter_add(DType::float32, {90, 4}, {700, 3}, 0);
  check_scatter_add(DType::float32, {2, 90, 5}, {2, 70, 4}, 1);
  check_scatter_add(DType::float32, {60, 5}, {60, 2}, 1);  // a thread a line
  for (const int64_t wrong : {0, 2999}) check_scatter_add(DType::float32, {200}, {3000}, 0, wrong);
}

TEST_CASE("scatters of many indices, which are sorted, give the CPU's bits", "[jit]") {
  constexpr DType kFloat = DType::float32, kLong = DType::int64;
  for (const DType type : {kFloat, DType::bfloat16, DType::bool_})
    check_sorted(OpId::index_add, type, kLong, {2000, 70}, {20000, 70}, 0, 2000);
  check_sorted(OpId::index_add, kFloat, kLong, {70000, 100}, {20001, 100}, 0, 70000);  // three passes
  check_sorted(OpId::index_add, kFloat, kLong, {3, 200, 160}, {3, 20000, 160}, 1, 199);
  check_sorted(OpId::index_add, kFloat, kLong, {2000, 70}, {20000, 70}, 0, 1);  // all meet
  check_sorted(OpId::index_add, kFloat, DType::int32, {90000}, {90000}, 0, 50);
  check_sorted(OpId::index_copy, kFloat, kLong, {2000, 70}, {20000, 70}, 0, 2000);
  check_sorted(OpId::index_add, kFloat, kLong, {2000, 70}, {20000, 70}, 0, 2000, 19999);
  for (const DType type : {kFloat, DType::float16})
    check_sorted(OpId::scatter_add, type, kLong, {100000}, {60000}, 0, 1000);
  check_sorted(OpId::scatter_add, kFloat, kLong, {30000, 3}, {60000, 2}, 0, 30000);
  check_sorted(OpId::scatter, kFloat, kLong, {3, 30000}, {2, 60000}, 1, 300);
  check_sorted(OpId::scatter_add, kFloat, kLong, {100000}, {60000}, 0, 100000, 7);
}

/// Few different values, NaN, infinities and zeros of both signs among them where the type has these.
void check_argsort(DType type, const Dims& sizes, int64_t axis, bool descending, int64_t count = -1) {
  CAPTURE(type, sizes, axis, descending, count);
  Graph g;
  GraphEmitter e(g, false);
  const Value x = input(g, type, sizes);
  g.outputs.push_back(e.call(OpId::argsort, {x}, {axis, descending, count}).id);
  test::GraphArguments arguments = test::some_arguments(g, 11);
  const double large = type == DType::int64 ? 1e18 : 2e9;
  const std::array<double, 6> rare = is_floating(type)
                                         ? std::array<double, 6>{NAN, -INFINITY, INFINITY, -0.0, 0, -NAN}
                                         : std::array<double, 6>{0, large, -large, 1, -1, 2};
  const bool is_small = type == DType::bool_ || type == DType::uint8;
  for (int64_t i = 0; !is_small && i < numel(sizes); i += 3) {
    const double v =
        i % 5 == 0 ? rare[static_cast<size_t>(i / 5 % 6)] : static_cast<double>(i * i % 1000 - 500);
    test::write_element(arguments.inputs[0].data(), type, i, v);
  }
  check_run(g, arguments);
}

TEST_CASE("sorting gives the CPU's positions, counted and by digits", "[jit]") {
  for (const DType type : {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int32,
                           DType::int64, DType::uint8, DType::bool_})
    for (const bool descending : {false, true}) {
      check_argsort(type, {3, 300}, 1, descending);
      check_argsort(type, {40, 3}, 0, descending, 5);
      check_argsort(type, {30001}, 0, descending);
    }
  check_argsort(DType::float32, {2, 15000, 3}, 1, true, 40);
  check_argsort(DType::float64, {260, 1100}, 1, false);  // two passes over the lines
  check_argsort(DType::float32, {15000}, 0, true, 0);
}

TEST_CASE("running sums by blocks give the CPU's bits", "[jit]") {
  for (const DType type : {DType::float32, DType::float16, DType::int32, DType::float64}) {
    check_cumsum(type, {3, 5000}, 1);
    check_cumsum(type, {130, 7}, 0);
  }
  check_cumsum(DType::float32, {70001}, 0);
  check_cumsum(DType::float32, {2, 1100, 3}, 1);
  check_cumsum(DType::float32, {16384}, 0);
  check_cumsum(DType::float32, {2100, 65}, 1);
}

TEST_CASE("poolings give the CPU's bits", "[jit]") {
  for (const DType type : {DType::float32, DType::float16, DType::bfloat16, DType::float64}) {
    // ceil, adaptive, then kernel, stride, padding (and dilation) of each axis
    check_max_pool(type, {2, 3, 13, 17}, true, false, {3, 2, 1, 1, 2, 3, 0, 2});
    check_max_pool(type, {2, 3, 13, 17}, false, false, {3, 1, 1, 1, 3, 1, 1, 2});
    check_max_pool(type, {2, 3, 13, 17}, false, false, {2, 2, 0, 1, 2, 2, 0, 1});
    check_max_pool(type, {2, 3, 13, 17}, true, false, {2, 2, 0, 1, 2, 2, 0, 1});
    check_max_pool(type, {2, 3, 13, 17}, false, false, {2, 3, 1, 1, 3, 4, 1, 1});  // positions beside windows
    check_max_pool(type, {2, 3, 13, 17}, true, false, {2, 4, 1, 1, 1, 3, 0, 1});
    check_max_pool(type, {3, 30}, false, false, {4, 4, 2, 1});
    check_max_pool(type, {2, 13, 300}, false, false, {3, 2, 1, 1, 3, 2, 1, 1});
    check_max_pool(type, {2, 3, 13, 17}, false, true, {4, 7});
    for (const int64_t counted : {0, 1}) {
      check_pool(OpId::avg_pool, type, {2, 3, 13, 17}, {1, 0, counted, 0, 6, 3, 2, 1, 3, 1, 1});
      check_pool(OpId::avg_pool_backward, type, {2, 3, 7, 17},
                 {1, 0, counted, 0, 8, 3, 2, 1, 3, 1, 1, 13, 17});
    }
    check_pool(OpId::avg_pool, type, {2, 3, 13, 17}, {0, 1, 0, 0, 2, 4, 7});
    check_pool(OpId::avg_pool_backward, type, {2, 3, 4, 7}, {0, 1, 0, 0, 4, 4, 7, 13, 17});
    check_pool(OpId::avg_pool, type, {5, 300}, {0, 0, 1, 5, 3, 7, 3, 2});
  }
  check_max_pool(DType::int64, {5, 300}, false, false, {7, 3, 2, 1});
  check_max_pool(DType::bool_, {5, 30}, false, false, {7, 3, 2, 1});
  check_max_pool(DType::float32, {5, 900}, false, false, {270, 10, 2, 1});  // places in the plane
}
