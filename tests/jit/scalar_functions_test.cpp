// The functions of jit/prelude.h, as each instruction set has them: special values exactly, conversions and
// integers against plain C++. How exact they are elsewhere: scalar_ulp_test.cpp.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tandem/core/dtype.h"
#include "tandem/jit/evaluator_chunks.h"
#include "tandem/jit/evaluator_direct.h"
#include "tests/catch.h"
#include "tests/jit/scalar_functions.h"

namespace {

using namespace tandem;
using namespace tandem::jit;
using ops::ScalarOp;
using namespace tandem::test;

TEST_CASE("special values are exact", "[scalar]") {
  struct Case {
    ScalarOp op;
    float x, y;
  };
  const Case cases[] = {
      {ScalarOp::exp, 0, 1},
      {ScalarOp::exp, -0.0f, 1},
      {ScalarOp::exp, kInf, kInf},
      {ScalarOp::exp, -kInf, 0},
      {ScalarOp::exp, 200, kInf},
      {ScalarOp::exp, -200, 0},
      {ScalarOp::expm1, 0, 0},
      {ScalarOp::expm1, -0.0f, -0.0f},
      {ScalarOp::expm1, -kInf, -1},
      {ScalarOp::expm1, kInf, kInf},
      {ScalarOp::expm1, kTiny, kTiny},
      {ScalarOp::log, 0, -kInf},
      {ScalarOp::log, -0.0f, -kInf},
      {ScalarOp::log, 1, 0},
      {ScalarOp::log, kInf, kInf},
      {ScalarOp::log, -1, kNan},
      {ScalarOp::log, -kInf, kNan},
      {ScalarOp::log1p, 0, 0},
      {ScalarOp::log1p, -0.0f, -0.0f},
      {ScalarOp::log1p, -1, -kInf},
      {ScalarOp::log1p, -2, kNan},
      {ScalarOp::log1p, kInf, kInf},
      {ScalarOp::log1p, -kTiny, -kTiny},
      {ScalarOp::sin, -0.0f, -0.0f},
      {ScalarOp::sin, kInf, kNan},
      {ScalarOp::cos, -kInf, kNan},
      {ScalarOp::cos, -0.0f, 1},
      {ScalarOp::tanh, -0.0f, -0.0f},
      {ScalarOp::tanh, kInf, 1},
      {ScalarOp::tanh, -kInf, -1},
      {ScalarOp::tanh, kTiny, kTiny},
      {ScalarOp::erf, -0.0f, -0.0f},
      {ScalarOp::erf, kInf, 1},
      {ScalarOp::erf, -kInf, -1},
      {ScalarOp::log2, 0, -kInf},
      {ScalarOp::log2, -1, kNan},
      {ScalarOp::log2, 8, 3},
      {ScalarOp::log2, 0x1p-130f, -130},
      {ScalarOp::erfc, 0, 1},
      {ScalarOp::erfc, kInf, 0},
      {ScalarOp::erfc, -kInf, 2},
      {ScalarOp::floor, -0.5f, -1},
      {ScalarOp::floor, -0.0f, -0.0f},
      {ScalarOp::floor, 0.7f, 0},
      {ScalarOp::floor, -kInf, -kInf},
      {ScalarOp::ceil, -0.5f, -0.0f},
      {ScalarOp::ceil, 1.5f, 2},
      {ScalarOp::round, 0.5f, 0},
      {ScalarOp::round, 1.5f, 2},
      {ScalarOp::round, -2.5f, -2},
      {ScalarOp::round, 8388609.0f, 8388609.0f},
      {ScalarOp::round, -0.2f, -0.0f},
      {ScalarOp::trunc, -1.7f, -1},
      {ScalarOp::trunc, -0.7f, -0.0f},
      {ScalarOp::trunc, kInf, kInf},
      {ScalarOp::sqrt, -0.0f, -0.0f},
      {ScalarOp::sqrt, -1, kNan},
      {ScalarOp::sqrt, kInf, kInf},
      {ScalarOp::abs, -0.0f, 0},
      {ScalarOp::neg, 0, -0.0f},
  };
  for (const ChunkFunctions* c : runnable())
    for (const Case& t : cases) {
      float y = 0;
      c->unary(t.op, DType::float32)(&y, &t.x, 1);
      CAPTURE(c->name, ops::name(t.op), t.x, y, t.y);
      CHECK(same_bits(y, t.y));
    }
  for (const ChunkFunctions* c : runnable())
    for (int op = static_cast<int>(ScalarOp::neg); op < static_cast<int>(ScalarOp::eq); ++op) {
      const Unary f = c->unary(static_cast<ScalarOp>(op), DType::float32);
      if (f == nullptr) continue;
      float y = 0;
      f(&y, &kNan, 1);
      CAPTURE(ops::name(static_cast<ScalarOp>(op)));
      CHECK(std::isnan(y));
    }
}

TEST_CASE("max and min keep NaN, select and comparisons take their side", "[scalar]") {
  const float a[] = {1, kNan, 2, kNan, -0.0f, kInf}, b[] = {2, 1, kNan, kNan, 0, -kInf};
  for (const ChunkFunctions* c : runnable()) {
    float y[6];
    c->binary(ScalarOp::max, DType::float32, 0)(y, a, b, 6);
    CHECK((y[0] == 2 && std::isnan(y[1]) && std::isnan(y[2]) && std::isnan(y[3]) && y[5] == kInf));
    c->binary(ScalarOp::min, DType::float32, 0)(y, a, b, 6);
    CHECK((y[0] == 1 && std::isnan(y[1]) && std::isnan(y[2]) && std::isnan(y[3]) && y[5] == -kInf));
    c->binary(ScalarOp::max, DType::float32, 0)(y, a, b, 6);
    CHECK(same_bits(y[4], 0));  // of equal numbers the second, whatever the instruction set
    c->binary(ScalarOp::max, DType::float32, 0)(y, b, a, 6);
    CHECK(same_bits(y[4], -0.0f));
    c->binary(ScalarOp::min, DType::float32, 0)(y, b, a, 6);
    CHECK(same_bits(y[4], -0.0f));
    uint8_t f[6];
    const std::pair<ScalarOp, std::vector<int>> table[] = {
        {ScalarOp::eq, {0, 0, 0, 0, 1, 0}}, {ScalarOp::ne, {1, 1, 1, 1, 0, 1}},
        {ScalarOp::lt, {1, 0, 0, 0, 0, 0}}, {ScalarOp::le, {1, 0, 0, 0, 1, 0}},
        {ScalarOp::gt, {0, 0, 0, 0, 0, 1}}, {ScalarOp::ge, {0, 0, 0, 0, 1, 1}}};
    for (const auto& [op, want] : table) {
      c->binary(op, DType::float32, 0)(f, a, b, 6);
      CHECK(std::vector<int>(f, f + 6) == want);
    }
    const double p[] = {1, 2, 3}, q[] = {-1, -2, -3};
    const uint8_t m[] = {1, 0, 1};
    double r[3];
    c->ternary(ScalarOp::select, DType::float64, 0)(r, m, p, q, 3);
    CHECK((r[0] == 1 && r[1] == -2 && r[2] == 3));
  }
}

template <class T>
void check_integers() {
  using U = std::make_unsigned_t<T>;
  const T low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  const T values[] = {0,
                      1,
                      2,
                      3,
                      7,
                      static_cast<T>(-1),
                      static_cast<T>(-2),
                      static_cast<T>(-7),
                      low,
                      static_cast<T>(low + 1),
                      high,
                      static_cast<T>(high - 1),
                      100};
  std::vector<T> a, b;
  for (const T x : values)
    for (const T y : values) a.push_back(x), b.push_back(y);
  const auto n = static_cast<int64_t>(a.size());
  for (const ChunkFunctions* c : runnable()) {
    std::vector<T> y(a.size());
    const auto check = [&](ScalarOp op, auto exact) {
      for (unsigned uniform = 0; uniform < 3; ++uniform) {
        const Binary f = c->binary(op, dtype_of<T>, uniform);
        if (f == nullptr) {
          CHECK(uniform > 0);
          continue;
        }
        f(y.data(), a.data(), b.data(), n);
        for (size_t i = 0; i < a.size(); ++i) {
          const T p = a[uniform == 1 ? 0 : i], q = b[uniform == 2 ? 0 : i];
          CAPTURE(c->name, ops::name(op), int64_t{p}, int64_t{q}, uniform);
          REQUIRE(y[i] == exact(p, q));
        }
      }
    };
    check(ScalarOp::add, [](T p, T q) { return static_cast<T>(static_cast<U>(p) + static_cast<U>(q)); });
    check(ScalarOp::sub, [](T p, T q) { return static_cast<T>(static_cast<U>(p) - static_cast<U>(q)); });
    check(ScalarOp::mul,
          [](T p, T q) { return static_cast<T>(uint64_t{static_cast<U>(p)} * static_cast<U>(q)); });
    check(ScalarOp::min, [](T p, T q) { return std::min(p, q); });
    check(ScalarOp::max, [](T p, T q) { return std::max(p, q); });
    const auto floor_div = [](T p, T q) -> T {
      if (q == 0) return 0;
      if (std::is_signed_v<T> && q == static_cast<T>(-1)) return static_cast<T>(U{0} - static_cast<U>(p));
      const T t = static_cast<T>(p / q);
      return static_cast<T>(p % q != 0 && (p < 0) != (q < 0) ? t - 1 : t);
    };
    check(ScalarOp::idiv, floor_div);
    check(ScalarOp::bit_and, [](T p, T q) { return static_cast<T>(p & q); });
    check(ScalarOp::bit_or, [](T p, T q) { return static_cast<T>(p | q); });
    check(ScalarOp::bit_xor, [](T p, T q) { return static_cast<T>(p ^ q); });
    constexpr int kWidth = 8 * sizeof(T);
    const auto inside = [](T q) { return q >= 0 && static_cast<uint64_t>(q) < kWidth; };
    check(ScalarOp::shl, [&](T p, T q) -> T {
      return inside(q) ? static_cast<T>(static_cast<uint64_t>(p) << static_cast<int>(q)) : T{0};
    });
    check(ScalarOp::shr, [&](T p, T q) -> T {
      return inside(q) ? static_cast<T>(p >> static_cast<int>(q)) : static_cast<T>(p < 0 ? -1 : 0);
    });
    check(ScalarOp::mod, [&](T p, T q) -> T {
      return q == 0 ? T{0}
                    : static_cast<T>(
                          static_cast<U>(p) -
                          static_cast<U>(uint64_t{static_cast<U>(floor_div(p, q))} * static_cast<U>(q)));
    });
  }
}

TEST_CASE("integers wrap, divide towards minus infinity and by zero to zero", "[scalar]") {
  check_integers<int32_t>();
  check_integers<int64_t>();
  check_integers<uint8_t>();
}

TEST_CASE("float modulo has the sign of the divisor", "[scalar]") {
  const double a[] = {5, -5, 5, -5, 5.5, -0.25, 6},
               b[] = {3, 3, -3, -3, 0.5, 1, std::numeric_limits<double>::infinity()};
  const double want[] = {2, 1, -1, -2, 0, 0.75, 6};
  for (const ChunkFunctions* c : runnable()) {
    double y[7];
    c->binary(ScalarOp::mod, DType::float64, 0)(y, a, b, 7);
    for (int i = 0; i < 7; ++i) CHECK(y[i] == want[i]);
  }
}

// --- Conversions ---

template <class T>
T read_as(const void* p, int64_t i) {
  T x;
  std::memcpy(&x, static_cast<const char*>(p) + static_cast<size_t>(i) * sizeof x, sizeof x);
  return x;
}
double element(const void* p, DType t, int64_t i) {
  switch (t) {
    case DType::bool_:
      return read_as<uint8_t>(p, i) != 0;
    case DType::uint8:
      return read_as<uint8_t>(p, i);
    case DType::int32:
      return read_as<int32_t>(p, i);
    case DType::int64:
      return static_cast<double>(read_as<int64_t>(p, i));
    case DType::float16:
      return static_cast<double>(half_to_float(read_as<uint16_t>(p, i)));
    case DType::bfloat16:
      return static_cast<double>(bfloat_to_float(read_as<uint16_t>(p, i)));
    case DType::float32:
      return static_cast<double>(read_as<float>(p, i));
    case DType::float64:
      return read_as<double>(p, i);
  }
  return 0;
}
template <class T>
int64_t saturate(double x) {
  if (std::isnan(x)) return 0;
  if (x <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (x >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  return static_cast<int64_t>(x);
}

TEST_CASE("conversions between all types", "[scalar]") {
  constexpr int64_t kN = 29;
  const double values[kN] = {0,
                             -0.0,
                             1,
                             -1,
                             0.5,
                             -0.5,
                             1.5,
                             -1.5,
                             127.4,
                             128,
                             255,
                             255.5,
                             256,
                             -255.7,
                             300,
                             65519,
                             65520,
                             70000,
                             2147483520.0,
                             2147483648.0,
                             -2147483648.0,
                             -2147483904.0,
                             9.3e18,
                             -9.3e18,
                             1e30,
                             -1e30,
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()};
  for (const ChunkFunctions* c : runnable())
    for (int from = 0; from < kDTypeCount; ++from)
      for (int to = 0; to < kDTypeCount; ++to) {
        const auto f = static_cast<DType>(from), t = static_cast<DType>(to);
        alignas(8) char x[kN * 8], y[kN * 8];
        c->cast(DType::float64, f)(x, values, kN);
        c->cast(f, t)(y, x, kN);
        for (int64_t i = 0; i < kN; ++i) {
          const double v = element(x, f, i), got = element(y, t, i);
          double want = v;
          switch (t) {
            case DType::bool_:
              want = v != 0;
              break;
            case DType::uint8:
              want = is_floating(f) ? static_cast<double>(saturate<uint8_t>(v))
                                    : static_cast<double>(static_cast<uint8_t>(static_cast<int64_t>(v)));
              break;
            case DType::int32:
              want = is_floating(f)
                         ? static_cast<double>(saturate<int32_t>(v))
                         : static_cast<double>(static_cast<int32_t>(
                               f == DType::int64 ? read_as<int64_t>(x, i) : static_cast<int64_t>(v)));
              break;
            case DType::int64:
              want = is_floating(f) ? static_cast<double>(saturate<int64_t>(v)) : v;
              break;
            case DType::float16:
              want = static_cast<double>(half_to_float(float_to_half(static_cast<float>(v))));
              break;
            case DType::bfloat16:
              want = static_cast<double>(bfloat_to_float(float_to_bfloat(static_cast<float>(v))));
              break;
            case DType::float32:
              want = static_cast<double>(static_cast<float>(v));
              break;
            case DType::float64:
              break;
          }
          if (f == DType::int64 && t == DType::uint8)
            want = static_cast<double>(static_cast<uint8_t>(read_as<int64_t>(x, i)));
          CAPTURE(c->name, name(f), name(t), v, got, want);
          CHECK(((got == want && std::signbit(got) == std::signbit(want)) ||
                 (std::isnan(got) && std::isnan(want))));
        }
      }
}

TEST_CASE("half conversions agree with core's for every half and a sweep of floats", "[scalar]") {
  std::vector<uint16_t> halves(65536), back(65536);
  std::vector<float> floats(65536), sweep;
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099)
    sweep.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (uint32_t bits = 0x32ff0000; bits < 0x38810000; bits += 61) sweep.push_back(std::bit_cast<float>(bits));
  std::vector<uint16_t> narrow(sweep.size());
  for (const ChunkFunctions* c : runnable()) {
    for (const bool brain : {false, true}) {
      const DType t = brain ? DType::bfloat16 : DType::float16;
      c->cast(t, DType::float32)(floats.data(), halves.data(), 65536);
      c->cast(DType::float32, t)(narrow.data(), sweep.data(), static_cast<int64_t>(sweep.size()));
      size_t wrong = 0;
      for (size_t i = 0; i < halves.size(); ++i) {
        const float want = brain ? bfloat_to_float(halves[i]) : half_to_float(halves[i]);
        wrong += std::bit_cast<uint32_t>(want) != std::bit_cast<uint32_t>(floats[i]);
      }
      for (size_t i = 0; i < sweep.size(); ++i)
        wrong += narrow[i] != (brain ? float_to_bfloat(sweep[i]) : float_to_half(sweep[i]));
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("loops never touch what lies beyond their elements, and may work in place", "[scalar]") {
  for (const ChunkFunctions* c : runnable())
    for (int64_t n = 0; n < 70; ++n) {
      std::vector<float> x(80), y(80, 7.0f), half(80, 0.5f);
      for (size_t i = 0; i < 80; ++i) x[i] = static_cast<float>(i);
      c->binary(ScalarOp::mul, DType::float32, 0)(y.data(), x.data(), half.data(), n);
      for (size_t i = 0; i < 80; ++i)
        REQUIRE(y[i] == (static_cast<int64_t>(i) < n ? static_cast<float>(i) * 0.5f : 7.0f));
      c->unary(ScalarOp::neg, DType::float32)(x.data() + 1, x.data() + 1, n);
      for (size_t i = 1; i < 80; ++i)
        REQUIRE(x[i] == (static_cast<int64_t>(i) <= n ? -static_cast<float>(i) : static_cast<float>(i)));
      std::vector<uint8_t> flags(80, 9);
      c->cast(DType::float32, DType::bool_)(flags.data(), y.data(), n);
      for (size_t i = 0; i < 80; ++i) REQUIRE(flags[i] == (static_cast<int64_t>(i) < n ? y[i] != 0 : 9));
    }
}

TEST_CASE("direct loops are those of the best instruction set", "[scalar]") {
  const float a[] = {1, 2, 3, 4}, b[] = {10, 20, 30, 40};
  float y[4];
  direct_binary(ScalarOp::add, DType::float32)(y, a, b, 4);
  CHECK((y[0] == 11 && y[3] == 44));
  direct_unary(ScalarOp::sqrt, DType::float32)(y, b, 4);
  CHECK(y[3] == std::sqrt(40.0f));
  CHECK(direct_unary(ScalarOp::exp, DType::int32) == nullptr);
  CHECK(direct_binary(ScalarOp::logical_and, DType::float32) == nullptr);
}

}  // namespace
