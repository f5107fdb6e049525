// Elements of any type as native kernels read and write them: halves are computed in float32 and rounded at
// each store. Values only, any thread.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "tandem/core/dtype.h"
#include "tandem/core/error.h"

namespace tandem::ops {

inline constexpr int64_t kGrain = 32768;  // elements worth a thread

struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

template <class T>
T load(const T& v) {
  return v;
}
inline float load(Half v) { return half_to_float(v.bits); }
inline float load(BFloat v) { return bfloat_to_float(v.bits); }

/// Stores a value computed in any arithmetic type; integers wrap, bool is "not zero".
template <class T, class V>
void store(T& to, V v) {
  if constexpr (std::is_same_v<T, Half>) {
    to.bits = float_to_half(static_cast<float>(v));
  } else if constexpr (std::is_same_v<T, BFloat>) {
    to.bits = float_to_bfloat(static_cast<float>(v));
  } else if constexpr (std::is_same_v<T, bool>) {
    to = v != V{};
  } else {
    to = static_cast<T>(v);
  }
}

template <class F>
void with_type(DType t, F&& f) {
  switch (t) {
    case DType::bool_:
      return f(bool{});
    case DType::uint8:
      return f(uint8_t{});
    case DType::int32:
      return f(int32_t{});
    case DType::int64:
      return f(int64_t{});
    case DType::float16:
      return f(Half{});
    case DType::bfloat16:
      return f(BFloat{});
    case DType::float32:
      return f(float{});
    case DType::float64:
      return f(double{});
  }
  internal_error("no such type");
}

}  // namespace tandem::ops
