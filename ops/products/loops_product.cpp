// Plain loops for every dtype: the way of the integers, and a reference for the rest. Integers are summed
// unsigned, so that overflow wraps around.
#include <algorithm>
#include <type_traits>

#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/providers.h"

namespace tandem::ops {
namespace {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

template <class Sum, class T>
Sum widen(T v) {
  if constexpr (std::is_same_v<T, Half>)
    return half_to_float(v.bits);
  else if constexpr (std::is_same_v<T, Bfloat>)
    return bfloat_to_float(v.bits);
  else
    return static_cast<Sum>(v);
}

template <class T, class Sum>
T narrow(Sum v) {
  if constexpr (std::is_same_v<T, Half>)
    return {float_to_half(v)};
  else if constexpr (std::is_same_v<T, Bfloat>)
    return {float_to_bfloat(v)};
  else
    return static_cast<T>(v);
}

template <class T, class Sum>
void loops(const ProductCall& call) {
  const double row_flops = 2.0 * static_cast<double>(call.n) * static_cast<double>(call.k);
  core::parallel(call.batch * call.m, static_cast<int64_t>(kSerialFlops / 4 / row_flops) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t row = begin; row < end; ++row) {
                     const int64_t batch = row / call.m, i = row % call.m;
                     const T* a = static_cast<const T*>(call.a) + batch * call.a_batch + i * call.a_row;
                     const T* b = static_cast<const T*>(call.b) + batch * call.b_batch;
                     T* c = static_cast<T*>(call.c) + batch * call.c_batch + i * call.c_row;
                     for (int64_t j = 0; j < call.n; ++j) {
                       Sum sum{};
                       for (int64_t p = 0; p < call.k; ++p)
                         sum +=
                             widen<Sum>(a[p * call.a_col]) * widen<Sum>(b[p * call.b_row + j * call.b_col]);
                       if (call.bias)
                         sum += widen<Sum>(static_cast<const T*>(call.bias)[j * call.bias_stride]);
                       c[j * call.c_col] = narrow<T>(sum);
                     }
                   }
                 });
}

}  // namespace

void product_loops(const ProductCall& call) {
  switch (call.dtype) {
    case DType::uint8:
      return loops<uint8_t, uint32_t>(call);
    case DType::int32:
      return loops<int32_t, uint32_t>(call);
    case DType::int64:
      return loops<int64_t, uint64_t>(call);
    case DType::float16:
      return loops<Half, float>(call);
    case DType::bfloat16:
      return loops<Bfloat, float>(call);
    case DType::float32:
      return loops<float, float>(call);
    case DType::float64:
      return loops<double, double>(call);
    case DType::bool_:
      break;
  }
  internal_error("product_loops of bool");
}

}  // namespace tandem::ops
