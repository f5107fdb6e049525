// Elements of array files as tensors on the CPU: another byte order, or a type that tensors do not have. For
// the readers alone; free functions, any thread.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

#include "tandem/core/storage.h"
#include "tandem/eager/tensor.h"

namespace tandem::data {

/// An unsigned number at `p`, in either byte order.
template <class Bits>
Bits load(const char* p, bool big_endian) {
  Bits v = 0;
  for (size_t i = 0; i < sizeof(Bits); ++i) {
    const size_t shift = 8 * (big_endian ? sizeof(Bits) - 1 - i : i);
    v = static_cast<Bits>(v | static_cast<Bits>(static_cast<uint8_t>(p[i])) << shift);
  }
  return v;
}

/// How a file stores an element, and what a tensor makes of it.
struct ElementType {
  DType dtype;
  int64_t nbytes;  // in the file
  void (*read)(const char* from, int64_t n, bool big_endian, void* to);
};

/// Stored values of type `Stored` as elements of type T, which is the C++ type of `dtype` or has its bits.
template <class T, class Stored>
constexpr ElementType element_type(DType dtype) {
  return {dtype, sizeof(Stored), [](const char* from, int64_t n, bool big_endian, void* to) {
            using Bits = std::conditional_t<
                sizeof(Stored) == 8, uint64_t,
                std::conditional_t<sizeof(Stored) == 4, uint32_t,
                                   std::conditional_t<sizeof(Stored) == 2, uint16_t, uint8_t>>>;
            T* out = static_cast<T*>(to);
            for (int64_t i = 0; i < n; ++i, from += sizeof(Stored))
              out[i] = static_cast<T>(std::bit_cast<Stored>(load<Bits>(from, big_endian)));
          }};
}

/// All of `bytes`, which `sizes` fit.
inline Tensor elements(const ElementType& type, const char* bytes, const Dims& sizes, bool big_endian) {
  core::Ref<core::TensorImpl> t = core::make_tensor(sizes, type.dtype);
  type.read(bytes, numel(sizes), big_endian, t->data);
  return Tensor(std::move(t));
}

}  // namespace tandem::data
