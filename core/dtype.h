// Element types, their sizes, names and PyTorch's promotion rules; half-precision conversions.
// Values only, any thread.
#pragma once

#include <cstdint>

namespace tandem {

enum class DType : uint8_t { bool_, uint8, int32, int64, float16, bfloat16, float32, float64 };
inline constexpr int kDTypeCount = 8;

inline constexpr DType bool_ = DType::bool_;
inline constexpr DType uint8 = DType::uint8;
inline constexpr DType int32 = DType::int32;
inline constexpr DType int64 = DType::int64;
inline constexpr DType float16 = DType::float16;
inline constexpr DType bfloat16 = DType::bfloat16;
inline constexpr DType float32 = DType::float32;
inline constexpr DType float64 = DType::float64;

/// Bytes of one element.
constexpr int64_t itemsize(DType t) {
  constexpr unsigned kLog2 = 0b11'10'01'01'11'10'00'00;  // two bits a type, the first lowest
  return int64_t{1} << (kLog2 >> 2 * static_cast<unsigned>(t) & 3);
}
static_assert(itemsize(DType::uint8) == 1 && itemsize(DType::int32) == 4 && itemsize(DType::int64) == 8 &&
              itemsize(DType::float16) == 2 && itemsize(DType::float32) == 4 &&
              itemsize(DType::float64) == 8);
constexpr bool is_floating(DType t) { return t >= DType::float16; }
constexpr bool is_integral(DType t) { return t < DType::float16 && t != DType::bool_; }

/// "float32", "bool", ...
const char* name(DType t);

/// The category of a number operand: it decides promotion, never the width (PyTorch's rule for Python
/// scalars).
enum class NumberKind : uint8_t { bool_, integer, floating };

/// Result type of two tensors: the smallest type that both promote to (float16 with bfloat16 gives float32).
DType promote(DType a, DType b);
/// Result type of a tensor and a number: the tensor's, unless the number is of a higher category
/// (integer or bool tensor with a floating number gives float32, bool tensor with an integer gives int64).
DType promote(DType a, NumberKind b);

/// Conversions by bits: round to nearest even, NaN stays NaN, overflow becomes infinity.
float half_to_float(uint16_t bits);
uint16_t float_to_half(float value);
float bfloat_to_float(uint16_t bits);
uint16_t float_to_bfloat(float value);

namespace core {
/// The element at `p` as a double (exact for every type but int64 beyond 2^53).
double load_double(DType t, const void* p);
}  // namespace core

template <class T>
struct DTypeOf;
// clang-format off
template <> struct DTypeOf<bool> { static constexpr DType value = DType::bool_; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::uint8; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::int32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::int64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::float32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::float64; };
// clang-format on
/// The dtype of a C++ element type.
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace tandem
