// Single elements of any type, in doubles, and how far one may be from the float64 reference. Values only.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "tandem/core/dtype.h"

namespace tandem::test {

inline double read_element(const char* bytes, DType t, int64_t i) {
  const auto get = [&](auto x) {
    std::memcpy(&x, bytes + i * static_cast<int64_t>(sizeof(x)), sizeof(x));
    return x;
  };
  switch (t) {
    case DType::bool_:
    case DType::uint8:
      return get(uint8_t{});
    case DType::int32:
      return get(int32_t{});
    case DType::int64:
      return static_cast<double>(get(int64_t{}));
    case DType::float16:
      return half_to_float(get(uint16_t{}));
    case DType::bfloat16:
      return bfloat_to_float(get(uint16_t{}));
    case DType::float32:
      return get(float{});
    case DType::float64:
      return get(double{});
  }
  return 0;
}

inline void write_element(char* bytes, DType t, int64_t i, double v) {
  const auto put = [&](auto x) { std::memcpy(bytes + i * static_cast<int64_t>(sizeof(x)), &x, sizeof(x)); };
  switch (t) {
    case DType::bool_:
      return put(static_cast<uint8_t>(v != 0));
    case DType::uint8:
      return put(static_cast<uint8_t>(v));
    case DType::int32:
      return put(static_cast<int32_t>(v));
    case DType::int64:
      return put(static_cast<int64_t>(v));
    case DType::float16:
      return put(float_to_half(static_cast<float>(v)));
    case DType::bfloat16:
      return put(float_to_bfloat(static_cast<float>(v)));
    case DType::float32:
      return put(static_cast<float>(v));
    case DType::float64:
      return put(v);
  }
}

inline constexpr double kExact = 0x1p52;  // integers beyond it are not all doubles

inline bool is_half(DType t) { return t == DType::float16 || t == DType::bfloat16; }

/// The distance from 1 to the next value.
inline double epsilon(DType t) {
  switch (t) {
    case DType::float16:
      return 0x1p-10;
    case DType::bfloat16:
      return 0x1p-7;
    case DType::float32:
      return 0x1p-23;
    case DType::float64:
      return 0x1p-52;
    default:
      return 0;
  }
}

inline double smallest(DType t) {
  switch (t) {
    case DType::float16:
      return 0x1p-24;
    case DType::bfloat16:
      return 0x1p-133;
    case DType::float32:
      return 0x1p-149;
    default:
      return 0;
  }
}

inline double largest(DType t) {
  switch (t) {
    case DType::float16:
      return 65504;
    case DType::bfloat16:
      return 0x1.fep127;
    case DType::float32:
      return static_cast<double>(std::numeric_limits<float>::max());
    default:
      return std::numeric_limits<double>::max();
  }
}

/// How far a result of one op may be from float64, beside rounding to its own type: a few units in the last
/// place of the type it is computed in, more where many terms are added (of the sum of their magnitudes).
struct Tolerance {
  double relative = 0, absolute = 0;
};

inline bool close(double actual, double wanted, DType type, const Tolerance& tolerance) {
  if (actual == wanted || (std::isnan(actual) && std::isnan(wanted))) return true;
  if (!is_floating(type)) {
    // The reference does not wrap around.
    const double most = type == DType::uint8 ? 255 : type == DType::int32 ? 0x1p31 - 1 : kExact;
    return type != DType::bool_ && (wanted >= most || wanted <= (type == DType::uint8 ? 0 : -most));
  }
  const double half_step = is_half(type)
                               ? 0.51 * epsilon(type)
                               : 0.51 * epsilon(type) * (tolerance.relative > 0 || tolerance.absolute > 0);
  const double allowed =
      (tolerance.relative + half_step) * std::fabs(wanted) + tolerance.absolute + smallest(type);
  if (std::isinf(actual)) return (actual > 0) == (wanted > 0) && std::fabs(wanted) + allowed >= largest(type);
  return std::fabs(actual - wanted) <= allowed;
}

}  // namespace tandem::test
