#include "tandem/core/dtype.h"

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "tests/catch.h"

using namespace tandem;

TEST_CASE("names and sizes", "[dtype]") {
  CHECK(std::string(name(bool_)) == "bool");
  CHECK(std::string(name(bfloat16)) == "bfloat16");
  CHECK(std::string(name(float64)) == "float64");
  CHECK(itemsize(int64) == 8);
  CHECK(itemsize(float16) == 2);
  CHECK((is_floating(float16) && !is_floating(int64)));
  CHECK((is_integral(uint8) && !is_integral(bool_) && !is_integral(float32)));
  CHECK(dtype_of<double> == float64);
}

TEST_CASE("promotion of two tensors", "[dtype]") {
  // Rows and columns: bool uint8 int32 int64 float16 bfloat16 float32 float64.
  const DType kTable[kDTypeCount][kDTypeCount] = {
      {bool_, uint8, int32, int64, float16, bfloat16, float32, float64},
      {uint8, uint8, int32, int64, float16, bfloat16, float32, float64},
      {int32, int32, int32, int64, float16, bfloat16, float32, float64},
      {int64, int64, int64, int64, float16, bfloat16, float32, float64},
      {float16, float16, float16, float16, float16, float32, float32, float64},
      {bfloat16, bfloat16, bfloat16, bfloat16, float32, bfloat16, float32, float64},
      {float32, float32, float32, float32, float32, float32, float32, float64},
      {float64, float64, float64, float64, float64, float64, float64, float64},
  };
  for (int a = 0; a < kDTypeCount; ++a) {
    for (int b = 0; b < kDTypeCount; ++b) {
      CAPTURE(name(DType(a)), name(DType(b)));
      CHECK(promote(DType(a), DType(b)) == kTable[a][b]);
    }
  }
}

TEST_CASE("promotion with a number", "[dtype]") {
  for (int a = 0; a < kDTypeCount; ++a) {
    const DType t = DType(a);
    CAPTURE(name(t));
    CHECK(promote(t, NumberKind::bool_) == t);
    CHECK(promote(t, NumberKind::integer) == (t == bool_ ? int64 : t));
    CHECK(promote(t, NumberKind::floating) == (is_floating(t) ? t : float32));
  }
}

TEST_CASE("every half survives the way to float and back", "[dtype]") {
  int wrong = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    const uint16_t bits = static_cast<uint16_t>(h);
    const float f = half_to_float(bits);
    const bool nan = (bits & 0x7fff) > 0x7c00;
    if (nan ? !std::isnan(f) || !std::isnan(half_to_float(float_to_half(f))) : float_to_half(f) != bits)
      ++wrong;
    if (std::signbit(f) != (h >= 32768)) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(half_to_float(0x3c00) == 1.0f);
  CHECK(half_to_float(0x0001) == std::ldexp(1.0f, -24));
  CHECK(half_to_float(0x03ff) == std::ldexp(1023.0f, -24));
  CHECK(half_to_float(0x7bff) == 65504.0f);
  CHECK(half_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
}

TEST_CASE("between two halves, floats round to the nearer one and ties to even", "[dtype]") {
  int wrong = 0;
  for (uint32_t h = 0; h < 0x7c00; ++h) {  // 0x7bff: the largest, with infinity above it
    const uint16_t low = static_cast<uint16_t>(h), high = static_cast<uint16_t>(h + 1);
    const double a = half_to_float(low), b = high == 0x7c00 ? 65536.0 : half_to_float(high);
    const float middle = static_cast<float>((a + b) / 2);
    const uint16_t even = h % 2 == 0 ? low : high;
    if (float_to_half(middle) != even) ++wrong;
    if (float_to_half(std::nextafter(middle, 0.0f)) != low) ++wrong;
    if (float_to_half(std::nextafter(middle, 1e30f)) != high) ++wrong;
    if (float_to_half(-middle) != (even | 0x8000)) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(1e30f) == 0x7c00);
  CHECK(float_to_half(-std::numeric_limits<float>::infinity()) == 0xfc00);
  CHECK(float_to_half(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(float_to_half(-0.0f) == 0x8000);
}

TEST_CASE("bfloat rounds to nearest even", "[dtype]") {
  int wrong = 0;
  for (uint32_t h = 0; h < 65536; ++h) {
    const uint16_t bits = static_cast<uint16_t>(h);
    const bool nan = (bits & 0x7fff) > 0x7f80;
    const float f = bfloat_to_float(bits);
    if (nan ? !std::isnan(bfloat_to_float(float_to_bfloat(f))) : float_to_bfloat(f) != bits) ++wrong;
    if ((bits & 0x7fff) >= 0x7f80) continue;
    const uint32_t middle = (h << 16) | 0x8000u;
    const uint16_t above = static_cast<uint16_t>(bits + 1);
    if (float_to_bfloat(std::bit_cast<float>(middle)) != (bits % 2 == 0 ? bits : above)) ++wrong;
    if (float_to_bfloat(std::bit_cast<float>(middle - 1)) != bits) ++wrong;
    if (float_to_bfloat(std::bit_cast<float>(middle + 1)) != above) ++wrong;
  }
  CHECK(wrong == 0);
  CHECK(float_to_bfloat(std::numeric_limits<float>::max()) == 0x7f80);
  // A NaN whose payload lies only in the dropped bits must not become infinity.
  CHECK(std::isnan(bfloat_to_float(float_to_bfloat(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(half_to_float(float_to_half(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("an element of any type as a double", "[dtype]") {
  const auto load = [](DType t, auto bits) { return core::load_double(t, &bits); };
  CHECK(load(bool_, uint8_t{1}) == 1.0);
  CHECK(load(uint8, uint8_t{200}) == 200.0);
  CHECK(load(int32, int32_t{-7}) == -7.0);
  CHECK(load(int64, int64_t{-1} << 40) == -1099511627776.0);
  CHECK(load(float16, float_to_half(1.5f)) == 1.5);
  CHECK(load(bfloat16, float_to_bfloat(-2.5f)) == -2.5);
  CHECK(load(float32, 0.1f) == static_cast<double>(0.1f));
  CHECK(load(float64, 0.1) == 0.1);
}
