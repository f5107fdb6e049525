// Constants that count are computed where they are used, and pointwise kernels with several numbers a row are
// walked by rows, with the evaluator's bits.
#include "tandem/jit/plan.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using ops::Value;

namespace {

Plan plan_of(const Graph& g) {
  const Prepared p = prepare(optimize(g), samples::kCuda, true);
  return build_plan(p, group(p, true, false), true);
}

/// Loads of constants that count.
int counting(const Graph& g) {
  int n = 0;
  const Plan plan = plan_of(g);
  for (const Kernel& k : plan.kernels)
    for (const Load& l : k.loads) n += l.index == kCounts;
  return n;
}

void check_bits(const Graph& g) {
  test::Tally tally;
  const test::GraphArguments arguments = test::some_arguments(g, 3);
  CHECK(test::judge(g, arguments, true, 3, tally) == "");
  const auto host = Executable::make(g, {.compile = false});
  const auto device = Executable::make(g, {.device = samples::kCuda});
  CHECK(test::difference(g, test::run_graph(*host, g, arguments),
                         samples::run_on_device(*device, g, arguments)) == "");
}

struct Built {
  Graph g;
  GraphEmitter e{g, false};
  Value input(const Dims& sizes, DType type = DType::float32) {
    return {g.add_input({type, cpu, false, sizes}, contiguous_strides(sizes))};
  }
  Value count(DType type, int64_t n, double start = 0, double step = 1) {
    const Value first = e.number(start), by = e.number(step);
    return e.call(OpId::arange, {first, by}, {static_cast<int64_t>(type), n});
  }
  void give(Value v) { g.outputs.push_back(v.id); }
};

}  // namespace

TEST_CASE("a constant 0, 1, 2... is the position, along whichever axis", "[jit]") {
  for (const DType type : {DType::int32, DType::int64})
    for (const Dims& sizes : {Dims{70, 130}, Dims{3, 1000}, Dims{7, 33}}) {
      CAPTURE(name(type), sizes[0], sizes[1]);
      const int64_t rows = sizes[0], columns = sizes[1];
      {
        INFO("of a pointwise kernel");
        Built b;
        const Value x = b.input(sizes), labels = b.input({rows, 1}, DType::int64);
        b.give(b.e.where(b.e.eq(b.e.cast(labels, type), b.count(type, columns)), x, 0.5));
        b.give(b.e.mul(x, b.e.unsqueeze(b.count(type, rows), 1)));
        CHECK(counting(b.g) == 2);
        check_bits(b.g);
      }
      {
        INFO("of rows that are reduced, and of columns");
        Built b;
        const Value x = b.input(sizes), labels = b.input({rows, 1}, DType::int64);
        const Value hot = b.e.eq(labels, b.count(type, columns));
        b.give(b.e.sum(b.e.where(hot, x, b.e.mul(x, 0.25)), {1}, false));
        b.give(b.e.sum(b.e.mul(x, b.e.unsqueeze(b.count(type, rows), 1)), {0}, false));
        CHECK(counting(b.g) == 2);
        check_bits(b.g);
      }
      {
        INFO("of rows whose label is also looked up, for the row's result alone");
        Built b;
        const Value x = b.input(sizes), table = b.input({columns});
        const Value labels =
            b.e.cast(b.e.remainder(b.input({rows, 1}, DType::int64), double(columns)), DType::int64);
        const Value hot = b.e.eq(labels, b.count(type, columns));
        const Value sum = b.e.sum(b.e.where(hot, x, b.e.mul(x, 0.25)), {1}, false);
        const Value own = b.e.call(OpId::index_select, {table, b.e.reshape(labels, {rows})}, {0});
        b.give(b.e.add(sum, own));
        check_bits(b.g);
      }
      {
        INFO("in steps, and as where another is read");
        Built b;
        const Value x = b.input(sizes), table = b.input({columns});
        const Value even = b.e.slice(b.count(type, 2 * columns), 0, 0, 2 * columns, 2);
        b.give(b.e.mul(x, even));
        b.give(b.e.add(x, b.e.call(OpId::index_select, {table, b.count(type, columns)}, {0})));
        check_bits(b.g);
      }
    }
}

TEST_CASE("constants that begin elsewhere, go on otherwise or round do not count", "[jit]") {
  Built b;
  const Value x = b.input({70, 130});
  b.give(b.e.mul(x, b.count(DType::int32, 130, 1)));
  b.give(b.e.mul(x, b.count(DType::int32, 130, 0, 2)));
  b.give(b.e.mul(x, b.count(DType::float16, 130)));
  b.give(b.e.mul(x, b.count(DType::uint8, 130)));
  b.give(b.e.mul(x, b.e.slice(b.count(DType::int32, 131), 0, 1, 131)));
  CHECK(counting(b.g) == 0);
  check_bits(b.g);
}

TEST_CASE("a pointwise kernel with several numbers a row is walked by rows", "[jit]") {
  const auto kind = [](const Dims& sizes, int numbers) {
    CAPTURE(sizes[0], sizes[1], numbers);
    Built b;
    Value x = b.input(sizes);
    for (int i = 0; i < numbers; ++i) x = b.e.mul(x, b.input({sizes[0], 1}));
    b.give(x);
    check_bits(b.g);
    const Plan plan = plan_of(b.g);
    REQUIRE(plan.kernels.size() == 1);
    return plan.kernels[0].kind;
  };
  CHECK(kind({1024, 128}, 3) == KernelKind::row);
  CHECK(kind({1025, 333}, 4) == KernelKind::row);
  CHECK(kind({1024, 128}, 2) == KernelKind::pointwise);
  CHECK(kind({1023, 128}, 3) == KernelKind::pointwise);
  CHECK(kind({1024, 127}, 3) == KernelKind::pointwise);
}

TEST_CASE("a position is right where rows are reduced across, too", "[jit]") {
  for (const DType type : {DType::float32, DType::bfloat16}) {
    CAPTURE(name(type));
    Built b;
    const Value x = b.e.cast(b.input({64, 32, 2048}, type), DType::float32);
    // One moves along the rows, the other does not.
    const Value places = b.e.reshape(b.count(DType::float32, 32 * 2048), {32, 2048});
    const Value y = b.e.add(b.e.mul(x, places), b.count(DType::float32, 2048));
    const Value z = b.e.sub(y, b.e.mul(b.e.sum(y, {2}, true), 0.001));
    b.give(b.e.cast(z, type));
    b.give(b.e.sum(b.e.mul(z, x), {0, 1}, false));
    const Plan plan = plan_of(b.g);
    CHECK(std::any_of(plan.kernels.begin(), plan.kernels.end(),
                      [](const Kernel& k) { return !k.across.empty(); }));
    CHECK(counting(b.g) > 0);
    check_bits(b.g);
  }
}
