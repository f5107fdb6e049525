// The evaluator against the naive interpreter: the same bits for every kind of kernel, type, stride, size and
// range, on every instruction set that this machine runs.
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tandem/core/error.h"
#include "tests/catch.h"
#include "tests/jit/kernel_bench.h"

namespace {

using namespace tandem;
using namespace tandem::jit;
using naive::Bench;
using naive::Sizes;
using ops::S;
using ops::ScalarOp;

const Sizes kSizes = {1, 2, 15, 16, 17, 63, 64, 65, 1000, 2048, 5000};

TEST_CASE("pointwise: contiguous, of every size, with numbers and constants", "[evaluator]") {
  for (const int64_t n : kSizes) {
    Bench b(KernelKind::pointwise, {n}, {});
    const S x = b.load(DType::float32), y = b.load(DType::float32), c = cast(b.number(0.37), DType::float32);
    b.store((x * c + y) * 2.5);
    b.store(s_exp(x - y));
    b.check();
  }
}

TEST_CASE("an empty range and empty sizes write nothing", "[evaluator]") {
  Bench b(KernelKind::pointwise, {0}, {});
  b.store(s_neg(b.load(DType::float32)));
  b.check();
  Bench r(KernelKind::row, {0}, {5});
  r.store_row(r.reduce(ReduceOp::sum, r.load(DType::float32)));
  r.check();
}

TEST_CASE("reductions over nothing give their identity", "[evaluator]") {
  for (const KernelKind kind : {KernelKind::row, KernelKind::column}) {
    Bench b(kind, {3}, {0});
    const S x = b.load(DType::float32);
    b.store_row(b.reduce(ReduceOp::sum, x));
    b.store_row(b.reduce(ReduceOp::prod, x) * 2.0);
    b.store_row(b.reduce(ReduceOp::max, x));
    b.check();
  }
}

TEST_CASE("pointwise: every broadcast and many strides over three dimensions", "[evaluator]") {
  const Sizes shapes[] = {{3, 5, 7}, {40, 3, 11}, {2, 9, 300}, {70, 64, 1},
                          {1, 1, 1}, {5, 1, 900}, {600, 2, 3}};
  for (const Sizes& shape : shapes)
    for (int mask = 0; mask < 8; ++mask) {
      Bench b(KernelKind::pointwise, shape, {}, static_cast<uint32_t>(mask) + 1);
      const S x = b.load(DType::float32);
      const S y = b.load(DType::float32, b.contiguous([&](int d) { return (mask >> d & 1) != 0; }));
      const S z = b.load(DType::int32, {shape[1] * shape[2] * 2 + 3, 2, 2 * shape[1]});
      const S h = b.load(DType::float16, {1, shape[0], shape[0] * shape[1]});  // transposed
      const S sum = x + y;
      b.store(sum * cast(z, DType::float32), {1, shape[0], shape[0] * shape[1]});
      b.store(cast(sum, DType::bfloat16));
      b.store(select(s_gt(x, y), cast(h, DType::float32), sum), b.contiguous([](int) { return true; }, 3));
      b.check();
    }
}

TEST_CASE("pointwise: values that are the same everywhere", "[evaluator]") {
  Bench b(KernelKind::pointwise, {100}, {});
  const S one = b.load(DType::float32, {0}), x = b.load(DType::float32);
  b.store(s_exp(one) * x);
  b.store(one * 3.0);
  b.store(b.k.scalars.constant(DType::uint8, 7));
  b.store(select(s_lt(one, b.k.scalars.constant(DType::float32, 0.1)), x, one));
  b.check();
  Bench scalar(KernelKind::pointwise, {}, {});
  scalar.store(scalar.load(DType::float32, {}) * cast(scalar.number(2), DType::float32), {});
  scalar.check();
}

TEST_CASE("pointwise: in place, with later reads of what was replaced", "[evaluator]") {
  for (const int64_t n : {int64_t{10}, int64_t{3000}}) {
    Bench b(KernelKind::pointwise, {n}, {});
    const S p = b.load(DType::float32), m = b.load(DType::float32), v = b.load(DType::float32),
            g = b.load(DType::float32);
    const S c = cast(b.number(0.9), DType::float32);
    const S m2 = s_fma(m, c, g * (1.0 - c)), v2 = s_fma(v, c, g * g * (1.0 - c));
    b.store_over(m2, 1);
    b.store_over(v2, 2);
    b.store_over(p - m2 / (s_sqrt(s_abs(v2)) + 1e-8) + m * 0.125, 0);
    b.check();
    Bench swap(KernelKind::pointwise, {n}, {});
    const S x = swap.load(DType::float32), y = swap.load(DType::float32);
    swap.store_over(x, 1);
    swap.store_over(y, 0);
    swap.check();
  }
}

TEST_CASE("random draws by linear index, in every kind of kernel", "[evaluator]") {
  Bench b(KernelKind::pointwise, {7, 333}, {});
  const S seed = b.integer(42), offset = b.integer(1000);
  const S x = b.load(DType::float32);
  b.store(select(s_lt(s_uniform16(b.index(), seed, offset), b.k.scalars.constant(DType::float32, 0.25)),
                 x * 0.0, x));
  b.store(s_normal(b.index(), seed, offset));
  b.store(b.index());
  b.check();
  Bench r(KernelKind::row, {6}, {5, 37});
  r.store_row(r.reduce(ReduceOp::sum, s_uniform(r.index(), r.integer(1), r.integer(2))));
  r.check();
  Bench c(KernelKind::column, {3, 50}, {41});
  c.store_row(c.reduce(ReduceOp::sum, s_uniform(c.index(), c.integer(1), c.integer(2))));
  c.store(c.index());
  c.check();
}

S softmax(Bench& b) {
  const S x = b.load(DType::float32);
  const S e = s_exp(x - b.reduce(ReduceOp::max, x));
  return e / b.reduce(ReduceOp::sum, e);
}

TEST_CASE("row: softmax, of every length", "[evaluator]") {
  for (const int64_t n : {1, 10, 63, 64, 65, 257, 1000, 4096, 4097, 16384, 16385, 40000}) {
    Bench b(KernelKind::row, {n > 5000 ? 2 : n > 500 ? 3 : 47}, {n});
    b.store(softmax(b));
    b.check();
  }
}

TEST_CASE("row: layer norm with weights along the row, and its statistics", "[evaluator]") {
  for (const int64_t n : {5, 128, 700, 5000}) {
    Bench b(KernelKind::row, {4, n > 1000 ? 2 : 7}, {n});
    const S x = b.load(DType::float32);
    const S count = cast(b.number(static_cast<double>(n)), DType::float32);
    const S mean = b.reduce(ReduceOp::sum, x) / count;
    const S d = x - mean;
    const S rstd = 1.0 / s_sqrt(b.reduce(ReduceOp::sum, d * d) / count + 1e-5);
    const auto along = b.contiguous([&](int dim) { return dim == b.rank() - 1; });
    const S weight = b.load(DType::float32, along), bias = b.load(DType::float32, along);
    b.store(d * rstd * weight + bias);
    b.store_row(mean);
    b.store_row(rstd);
    b.check();
  }
}

TEST_CASE("row and column: all reductions of all types, with ties and NaN", "[evaluator]") {
  for (const KernelKind kind : {KernelKind::row, KernelKind::column})
    for (const DType t : {DType::float32, DType::float64, DType::int64})
      for (const int64_t n : {1, 3, 64, 65, 300, 5000, 33000}) {
        if (n > 5000 && t != DType::float32) continue;
        Bench b(kind, {n > 5000 ? 2 : n > 1000 ? 3 : 37}, {n}, static_cast<uint32_t>(n));
        const S raw = b.load(DType::int32);
        S x = cast(raw, t);
        if (t != DType::int64) x = x * 0.25 + b.load_row(t);
        if (n == 65 && t != DType::int64) {  // 0 / 0 where the raw value is 0
          x = x * (cast(raw, t) / cast(raw, t));
        }
        for (const ReduceOp op : {ReduceOp::sum, ReduceOp::prod, ReduceOp::max, ReduceOp::min,
                                  ReduceOp::argmax, ReduceOp::argmin})
          b.store_row(b.reduce(op, x));
        b.check();
      }
}

TEST_CASE("row: the first of equals wins, and the first NaN", "[evaluator]") {
  for (const KernelKind kind : {KernelKind::row, KernelKind::column}) {
    Bench b(kind, {1}, {700});
    const S x = b.load(DType::float32);
    b.store_row(b.reduce(ReduceOp::argmax, x));
    b.store_row(b.reduce(ReduceOp::argmin, x));
    float* values = b.data<float>(0);
    for (int i = 0; i < 700; ++i) values[i] = static_cast<float>(i % 100 == 37 ? 9 : i % 100 == 77 ? -9 : 0);
    const auto outcome = [&] {
      const Evaluator e(b.k);
      int64_t error = 0;
      e.run(b.arguments(b.memory_, 0, 1, error));
      return std::pair{*b.data<int64_t>(1), *b.data<int64_t>(2)};
    };
    CHECK(outcome() == std::pair<int64_t, int64_t>{37, 77});
    values[650] = values[431] = values[500] = std::nanf("");
    CHECK(outcome() == std::pair<int64_t, int64_t>{431, 431});
    b.check();
  }
}

TEST_CASE("row: several reduced dimensions, transposed operands, a row value spread over the row",
          "[evaluator]") {
  Bench b(KernelKind::row, {3, 4}, {5, 70});
  const S x = b.load(DType::float64, {1, 3, 12, 60});
  const S y = b.load(DType::float64, {0, 2, 0, 9});
  const S r = b.load_row(DType::float64);
  b.store_row(b.reduce(ReduceOp::sum, x * y));
  b.store_row(b.reduce(ReduceOp::sum, r));
  b.store(r, {350 * 4, 350, 1, 5});
  b.store(b.reduce(ReduceOp::max, y) + r);
  b.check();
}

TEST_CASE("column: sums of every shape, through several blocks", "[evaluator]") {
  const std::pair<Sizes, Sizes> shapes[] = {
      {{10}, {64}},  {{1}, {700}},   {{5}, {3}},         {{3000}, {7}},   {{17}, {256}},
      {{17}, {257}}, {{100}, {600}}, {{4, 30}, {9, 31}}, {{2049}, {300}}, {{3, 1}, {5000}}};
  for (const auto& [kept, reduced] : shapes) {
    Bench b(KernelKind::column, kept, reduced);
    const S x = b.load(DType::float32);
    b.store_row(b.reduce(ReduceOp::sum, x));
    b.store_row(b.reduce(ReduceOp::max, x * x));
    b.check();
  }
}

TEST_CASE("column: relu backward with the bias gradient, and two passes", "[evaluator]") {
  for (const int64_t n : {3, 64, 300}) {
    Bench b(KernelKind::column, {n == 64 ? 128 : 900}, {n});
    const S dy = b.load(DType::float32), y = b.load(DType::float32);
    const S dx =
        select(s_gt(y, b.k.scalars.constant(DType::float32, 0)), dy, b.k.scalars.constant(DType::float32, 0));
    b.store_over(dx, 0);
    b.store_row(b.reduce(ReduceOp::sum, dx));
    b.check();
    Bench v(KernelKind::column, {33}, {n});
    const S x = v.load(DType::float32);
    const S mean = v.reduce(ReduceOp::sum, x) / cast(v.number(static_cast<double>(n)), DType::float32);
    const S d = x - mean;
    v.store_row(v.reduce(ReduceOp::sum, d * d));
    v.store(d * v.load_row(DType::float32), v.contiguous([](int) { return true; }, 2));
    v.check();
  }
}

TEST_CASE("indexed loads: embedding, labels, errors", "[evaluator]") {
  Bench b(KernelKind::pointwise, {50, 24}, {});
  const S i = s_mod(b.load(DType::int64, {1, 0}), b.k.scalars.constant(DType::int64, 13));
  b.store(b.load_at(DType::float32, i, 13, 24, {0, 1}));
  const S j = s_mod(b.load(DType::int64), b.k.scalars.constant(DType::int64, 5));
  b.store(b.load_at(DType::bfloat16, j, 5, 3, {15, 0}));
  CHECK(b.check() == 0);

  for (const bool wrong : {false, true}) {
    Bench r(KernelKind::row, {9}, {21});
    const S label = s_mod(r.load_row(DType::int64), r.k.scalars.constant(DType::int64, wrong ? 40 : 21));
    const S x = r.load(DType::float32);
    const S picked = r.load_at(DType::float32, label, 21, 1, {21, 0}, true);
    r.store_row(s_log(r.reduce(ReduceOp::sum, s_exp(x))) - picked);
    CHECK((r.check() != 0) == wrong);
  }

  Bench c(KernelKind::column, {11}, {30});
  const S k = s_mod(c.load(DType::int64), c.k.scalars.constant(DType::int64, 4));
  c.store_row(c.reduce(ReduceOp::sum, c.load_at(DType::float32, k, 4, 11, {1, 0})));
  CHECK(c.check() == 0);

  Bench one(KernelKind::pointwise, {40}, {});
  one.store(one.load_at(DType::int32, one.integer(2), 5, 40, {1}));
  CHECK(one.check() == 0);
  Bench negative(KernelKind::pointwise, {40}, {});
  negative.store(negative.load_at(DType::int32, negative.integer(-1), 5, 40, {1}));
  CHECK(negative.check() == 1);
}

TEST_CASE("an indexed axis without elements is not read", "[evaluator]") {
  Bench b(KernelKind::pointwise, {40}, {});
  b.store(b.load_at(DType::float32, b.load(DType::int64), 0, 1, {0}));
  b.store(b.load_at(DType::float32, b.integer(0), 0, 1, {0}));
  b.k.buffers = static_cast<int>(b.memory_.size());
  int64_t error = 0;
  KernelArgs a = b.arguments(b.memory_, 0, 40, error);
  std::vector<void*> addresses(a.buffers, a.buffers + b.k.buffers);
  addresses[1] = addresses[3] = nullptr;
  a.buffers = addresses.data();
  Evaluator(b.k).run(a);
  CHECK(error != 0);
  CHECK(b.data<float>(2)[39] == 0);
}

// --- Random kernels ---

class Generator {
 public:
  explicit Generator(Bench& bench) : b(bench) {}

  S value() { return pool[b.draw(static_cast<uint32_t>(pool.size()))]; }
  S value(DType t) { return cast(value(), t); }
  DType type() {
    static constexpr DType kTypes[] = {DType::float32, DType::float32, DType::float32,
                                       DType::float32, DType::float64, DType::int64,
                                       DType::int32,   DType::uint8,   DType::bool_};
    return kTypes[b.draw(9)];
  }

  void step() {
    const DType t = type();
    const bool floating = is_floating(t);
    switch (b.draw(13)) {
      case 0:
        add(value(t) + value(t));
        break;
      case 1:
        add(value(t) - value(t));
        break;
      case 2:
        add(value(t) * value(t));
        break;
      case 3:
        add(s_max(value(t), value(t)));
        break;
      case 4:
        add(s_min(value(t), value(t)));
        break;
      case 5:
        add(floating            ? value(t) / value(t)
            : t == DType::bool_ ? s_logical_xor(value(t), value(t))
                                : s_idiv(value(t), value(t)));
        break;
      case 6:
        add(floating            ? s_fma(value(t), value(t), value(t))
            : t == DType::bool_ ? s_logical_not(value(t))
                                : s_mod(value(t), value(t)));
        break;
      case 7:
        add(select(value(DType::bool_), value(t), value(t)));
        break;
      case 8:
        add(s_le(value(t), value(t)));
        break;
      case 9:
        add(s_ne(value(t), value(t)));
        break;
      case 10:
        add(s_abs(value(t)));
        break;
      case 11: {
        const S x = value(DType::float32);
        switch (b.draw(5)) {
          case 0:
            add(s_exp(s_neg(s_abs(x))));
            break;
          case 1:
            add(s_tanh(x));
            break;
          case 2:
            add(s_floor(x));
            break;
          case 3:
            add(s_sqrt(s_abs(x)));
            break;
          default:
            add(cast(cast(x, b.draw(2) ? DType::float16 : DType::bfloat16), DType::float32));
            break;
        }
        break;
      }
      default: {
        if (b.k.kind == KernelKind::pointwise) break;
        static constexpr DType kCarriers[] = {DType::float32, DType::float64, DType::int64};
        const S in = value(kCarriers[b.draw(3)]);
        static constexpr ReduceOp kOps[] = {ReduceOp::sum, ReduceOp::max, ReduceOp::min, ReduceOp::argmax,
                                            ReduceOp::argmin};
        add(b.reduce(kOps[b.draw(5)], in));
      }
    }
  }
  void add(S s) { pool.push_back(s); }
  bool full(int32_t id) const {
    const ops::ScalarNode& n = b.k.scalars[id];
    if (n.op == ScalarOp::load) return !b.k.loads[static_cast<size_t>(n.bits)].row_level;
    if (n.op == ScalarOp::index) return true;
    if (n.op == ScalarOp::reduced) return false;
    for (int j = 0; j < ops::arity(n.op); ++j)
      if (full(n.in[j])) return true;
    return false;
  }

  Bench& b;
  std::vector<S> pool;
};

TEST_CASE("random kernels of each kind", "[evaluator]") {
  static constexpr KernelKind kKinds[] = {KernelKind::pointwise, KernelKind::row, KernelKind::column};
  static constexpr DType kLoaded[] = {DType::float32, DType::float64, DType::int64,   DType::int32,
                                      DType::uint8,   DType::bool_,   DType::float16, DType::bfloat16};
  std::mt19937 random(2024);
  for (int trial = 0; trial < 150; ++trial) {
    const KernelKind kind = kKinds[trial % 3];
    const auto size = [&](uint32_t most) { return static_cast<int64_t>(1 + random() % most); };
    Sizes kept = {size(4), size(kind == KernelKind::row ? 9 : 90)}, reduced;
    if (trial % 2 == 0) kept.erase(kept.begin());
    if (kind != KernelKind::pointwise) reduced = {size(5), size(kind == KernelKind::row ? 120 : 40)};
    if (kind == KernelKind::row && trial % 5 == 0) reduced = {4100 + size(500)}, kept = {2};
    if (kind == KernelKind::column && trial % 5 == 0) reduced = {250 + size(300)};
    Bench b(kind, kept, reduced, random());
    Generator g(b);
    for (int l = 0; l < 5; ++l) {
      const DType t = kLoaded[b.draw(8)];
      const auto bits = b.draw(1u << b.rank());
      const bool row_level = kind != KernelKind::pointwise && b.draw(4) == 0;
      const bool all = b.draw(2) == 0;
      const S x = b.load(
          t,
          b.contiguous(
              [&](int d) { return (all || (bits >> d & 1) != 0) && !(row_level && d >= b.k.kept_rank); },
              b.draw(4) == 0 ? 2 : 1),
          row_level);
      g.add(t == DType::float16 || t == DType::bfloat16 ? cast(x, DType::float32) : x);
    }
    g.add(cast(b.number(0.7), DType::float32));
    g.add(b.index());
    for (int i = 0; i < 14; ++i) g.step();
    for (int i = 0; i < 3; ++i) {
      const S v = i == 0 ? g.pool.back() : g.value();
      if (kind != KernelKind::pointwise && !g.full(v.id))
        b.store_row(v);
      else
        b.store(v, b.contiguous([](int) { return true; }, 1 + b.draw(2)));
    }
    CAPTURE(trial);
    b.check();
  }
}

TEST_CASE("kernels that break the contract are refused as our defects", "[evaluator]") {
  Bench b(KernelKind::row, {3}, {4});
  b.store_row(s_neg(b.load(DType::float32)));
  CHECK_THROWS_AS(Evaluator(b.k), InternalError);
  Bench f(KernelKind::pointwise, {3}, {});
  f.store(s_exp(f.load(DType::int32)));
  CHECK_THROWS_AS(Evaluator(f.k), InternalError);
}

TEST_CASE("the text of a kernel names structure, not the kernel", "[evaluator]") {
  Bench b(KernelKind::row, {3}, {4}), c(KernelKind::row, {30}, {40});
  b.store(softmax(b));
  c.store(softmax(c));
  c.k.name = "other";
  CHECK(to_string(b.k) == to_string(c.k));
  CHECK_THAT(to_string(b.k), Contains("row kernel, kept 1, reduced 1") &&
                                 Contains("reduce 0: max %0 : float32") &&
                                 Contains("load 0: b0 float32 contiguous"));
  c.k.loads[0].inner = Inner::strided;
  CHECK(to_string(b.k) != to_string(c.k));
}

}  // namespace
