#include "tandem/core/dtype.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "tandem/core/bfloat.h"

namespace tandem {

const char* name(DType t) {
  static constexpr const char* kNames[kDTypeCount] = {"bool",    "uint8",    "int32",   "int64",
                                                      "float16", "bfloat16", "float32", "float64"};
  return kNames[static_cast<int>(t)];
}

DType promote(DType a, DType b) {
  // The enumerators stand in promotion order; the two halves are the one pair where neither holds the other.
  const DType low = std::min(a, b);
  const DType high = std::max(a, b);
  if (low == DType::float16 && high == DType::bfloat16) return DType::float32;
  return high;
}

DType promote(DType a, NumberKind b) {
  switch (b) {
    case NumberKind::bool_:
      return a;
    case NumberKind::integer:
      return a == DType::bool_ ? DType::int64 : a;
    case NumberKind::floating:
      return is_floating(a) ? a : DType::float32;
  }
  return a;
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31u;
  uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  if (mantissa == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(mantissa) - 21;  // brings the leading one to bit 10
  mantissa = (mantissa << shift) & 0x3ffu;
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 | mantissa << 13);
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result = 0;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u | ((magnitude >> 13) & 0x3ffu);  // quiet, with what fits of the payload
  } else if (magnitude >= 0x477ff000u) {
    result = 0x7c00u;  // 65520 and above round to infinity
  } else if (magnitude >= 0x38800000u) {
    // Normal: add half a unit, less one if the kept part is even; a carry moves into the exponent as it
    // should.
    const uint32_t odd = (magnitude >> 13) & 1u;
    result = (magnitude + 0xfffu + odd - (112u << 23)) >> 13;
  } else if (magnitude > 0x33000000u) {
    // Subnormal: the mantissa with its hidden one, in units of 2^-24.
    const uint32_t shift = 126u - (magnitude >> 23);
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t odd = (mantissa >> shift) & 1u;
    result = (mantissa + (1u << (shift - 1)) - 1u + odd) >> shift;
  }
  return static_cast<uint16_t>(sign | result);
}

float bfloat_to_float(uint16_t bits) { return core::widened_bfloat(bits); }
uint16_t float_to_bfloat(float value) { return core::rounded_to_bfloat(value); }

namespace core {

namespace {
template <class T>
T load(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
}  // namespace

double load_double(DType t, const void* p) {
  switch (t) {
    case DType::bool_:
    case DType::uint8:
      return load<uint8_t>(p);
    case DType::int32:
      return load<int32_t>(p);
    case DType::int64:
      return static_cast<double>(load<int64_t>(p));
    case DType::float16:
      return half_to_float(load<uint16_t>(p));
    case DType::bfloat16:
      return bfloat_to_float(load<uint16_t>(p));
    case DType::float32:
      return load<float>(p);
    case DType::float64:
      return load<double>(p);
  }
  return 0;
}

}  // namespace core

}  // namespace tandem
