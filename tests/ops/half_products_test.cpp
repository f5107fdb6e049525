// Products of halves, where the processor multiplies bfloat16 by pairs: their error, and that their bits
// follow from values and shape alone.
#include "tandem/core/error.h"
#include "tandem/ops/products/tiles.h"
#include "tests/ops/products_problem.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Layout = Matrices<uint16_t>::Layout;
using Bits = std::vector<uint16_t>;

float widened(DType t, uint16_t bits) {
  return t == DType::bfloat16 ? bfloat_to_float(bits) : half_to_float(bits);
}
uint16_t rounded(DType t, float value) {
  return t == DType::bfloat16 ? float_to_bfloat(value) : float_to_half(value);
}

/// Values of a batch, A (m, k), B (k, n) and the bias row-major.
struct Halves {
  Halves(DType t, const Shape& s) : type(t), shape(s) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (auto [list, size] : {std::pair{&a, s.batch * s.m * s.k}, {&b, s.batch * s.k * s.n}, {&bias, s.n}})
      for (int64_t i = 0; i < size; ++i) list->push_back(rounded(t, normal(random)));
  }

  /// C row-major; outside it nothing may have changed.
  Bits run(Layout la, Layout lb, Layout lc, int64_t offset, bool shared_b) const {
    const Shape& s = shape;
    constexpr uint16_t kFiller = 0x7fc1;  // NaN, so that what lies between shows where it is read
    Matrices<uint16_t> ma(la, s.batch, s.m, s.k, offset, kFiller), mb(lb, s.batch, s.k, s.n, offset, kFiller),
        mc(lc, s.batch, s.m, s.n, offset, kFiller);
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t p = 0; p < s.k; ++p) ma.at(q, i, p) = a[size_t((q * s.m + i) * s.k + p)];
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t p = 0; p < s.k; ++p)
        for (int64_t j = 0; j < s.n; ++j)
          mb.at(q, p, j) = b[size_t(((shared_b ? 0 : q) * s.k + p) * s.n + j)];
    ops::product({.batch = s.batch,
                  .m = s.m,
                  .n = s.n,
                  .k = s.k,
                  .dtype = type,
                  .a = ma.data(),
                  .a_batch = ma.stride,
                  .a_row = ma.row,
                  .a_col = ma.col,
                  .b = mb.data(),
                  .b_batch = shared_b ? 0 : mb.stride,
                  .b_row = mb.row,
                  .b_col = mb.col,
                  .bias = bias.data(),
                  .bias_stride = 1,
                  .c = mc.data(),
                  .c_batch = mc.stride,
                  .c_row = mc.row,
                  .c_col = mc.col});
    Bits c;
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) c.push_back(std::exchange(mc.at(q, i, j), kFiller));
    CHECK(std::all_of(mc.memory.begin(), mc.memory.end(), [](uint16_t x) { return x == kFiller; }));
    return c;
  }

  /// Sums of products in float64, each within a rounding of the half and k of float32.
  void check(const Bits& c) const {
    const Shape& s = shape;
    const double unit = type == DType::bfloat16 ? 0x1p-8 : 0x1p-11;
    bool close = true;
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) {
          double sum = widened(type, bias[size_t(j)]), size = std::abs(sum);
          for (int64_t p = 0; p < s.k; ++p) {
            const double term = double(widened(type, a[size_t((q * s.m + i) * s.k + p)])) *
                                widened(type, b[size_t((q * s.k + p) * s.n + j)]);
            sum += term, size += std::abs(term);
          }
          const double got = widened(type, c[size_t((q * s.m + i) * s.n + j)]);
          close = close && std::abs(got - sum) <= unit * std::abs(sum) + double(s.k + 1) * 0x1p-23 * size;
        }
    CHECK(close);
  }

  DType type;
  Shape shape;
  Bits a, b, bias;
};

constexpr Shape kOfHalves[] = {{1, 1, 1, 1},   {1, 2, 3, 1},     {3, 1, 1, 77},   {1, 2, 2, 40},
                               {2, 5, 7, 9},   {1, 1, 70, 33},   {4, 20, 33, 64}, {1, 30, 300, 6},
                               {1, 67, 1, 90}, {1, 400, 50, 530}};

}  // namespace

TEST_CASE("products of halves follow from values and shape alone", "[products]") {
  for (const DType type : {DType::float16, DType::bfloat16})
    for (const Shape& s : kOfHalves) {
      CAPTURE(name(type), describe(s));
      const Halves problem(type, s);
      const Threads one(1);
      const Bits want = problem.run(Layout::rows, Layout::rows, Layout::rows, 0, false);
      problem.check(want);
      const bool large = s.m * s.n > 4096;
      for (int la = 0; la < Layout::shared; ++la)
        for (int lb = 0; lb < Layout::shared; ++lb) {
          if (large && la != lb && la != Layout::rows && lb != Layout::rows) continue;
          const int lc = (la + lb) % Layout::shared;
          CAPTURE(la, lb, lc);
          for (const int threads : {1, 3}) {
            const Threads now(threads);
            CHECK(problem.run(Layout(la), Layout(lb), Layout(lc), la + lb, false) == want);
          }
        }
      if (s.batch == 1) continue;
      const Bits shared = problem.run(Layout::rows, Layout::rows, Layout::rows, 0, true);
      CHECK(shared == problem.run(Layout::gaps, Layout::columns, Layout::columns, 1, true));
      CHECK(std::equal(want.begin(), want.begin() + s.m * s.n, shared.begin()));
    }
}

TEST_CASE("infinities and NaN pass through products of halves, also at the end of an odd k", "[products]") {
  for (const DType type : {DType::float16, DType::bfloat16}) {
    CAPTURE(name(type));
    Halves problem(type, {1, 3, 40, 5});
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    problem.a[0 * 5 + 4] = rounded(type, kInfinity);
    problem.a[2 * 5 + 3] = rounded(type, std::numeric_limits<float>::quiet_NaN());
    const Bits c = problem.run(Layout::rows, Layout::columns, Layout::rows, 0, false);
    for (size_t j = 0; j < 40; ++j) {
      const float last = widened(type, problem.b[4 * 40 + j]);
      CHECK(widened(type, c[j]) == std::copysign(kInfinity, last));
      CHECK(std::isfinite(widened(type, c[40 + j])));
      CHECK(std::isnan(widened(type, c[80 + j])));
    }
  }
}
