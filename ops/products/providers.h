// What the files of this folder share: each provider's entry, and the way for libraries that must see one
// layout. Calls arrive checked: sizes of at least 1 and the strides of sizes below 2 normalised. Any thread.
#pragma once

#include <cstdint>

#include "tandem/ops/products/products.h"
#include "tandem/ops/scratch.h"

namespace tandem::ops {

/// Strides of sizes below 2 never move a pointer; they get values that no arithmetic overflows on.
ProductCall normalised(ProductCall call);

void product_tiles(const ProductCall& call);            // float32, float64
void product_dots(const ProductCall& call);             // float32, float64
void product_half(const ProductCall& call, bool dots);  // float16, bfloat16, by tiles or dot products
void product_loops(const ProductCall& call);            // every dtype but bool
void product_onednn(const ProductCall& call);           // float32
void product_eigen(const ProductCall& call);            // float32, float64
bool onednn_available();
bool eigen_available();

/// Floating-point operations below which a second thread does not pay.
inline constexpr double kSerialFlops = 1e6;

/// A library's product of one row block on one thread: row-major, without gaps, C overwritten.
template <class T>
using RowBlockProduct = void (*)(int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c);

/// Runs `of_rows` over the whole call in row blocks fixed by the shape. A library may choose its kernel by
/// transposition, leading dimension or alignment; so each matrix it gets is row-major without gaps and begins
/// at a multiple of 64 bytes, by a copy where the caller's is not.
template <class T>
void product_by_rows(const ProductCall& call, RowBlockProduct<T> of_rows);
extern template void product_by_rows<float>(const ProductCall&, RowBlockProduct<float>);
extern template void product_by_rows<double>(const ProductCall&, RowBlockProduct<double>);

}  // namespace tandem::ops
