// Matrix products on the CPU: C[b] = A[b] (m,k) * B[b] (k,n) + bias (n), for any strides, by the provider
// that fits the shape. The caller owns all memory; C overlaps no operand. Any thread may call; work is spread
// over Tandem's pool.
//
// The result depends on the operands' values, the shape and the dtype alone: not on strides, transposition,
// alignment, the number of threads or the position in the batch. Own tiles, dot products and loops compute
// each element by one fixed tree of operations over k (see tiles.h); libraries see aligned row-major copies,
// cut into blocks fixed by the shape.
#pragma once

#include <cstdint>

#include "tandem/core/dtype.h"

namespace tandem::ops {

/// Strides are in elements and may be 0, negative or, where the size is below 2, anything. `bias` may be
/// null. float16 and bfloat16 accumulate in float32 and round once (bfloat16 by pairs where the processor
/// does, which takes subnormal values for zero); integers wrap around. bool is refused with an Error.
struct ProductCall {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  DType dtype = DType::float32;
  bool tf32 = false;  // float32 operands may be rounded; not on the CPU
  const void* a = nullptr;
  int64_t a_batch = 0, a_row = 0, a_col = 0;
  const void* b = nullptr;
  int64_t b_batch = 0, b_row = 0, b_col = 0;
  bool b_panels = false;  // B lies as pack_panels() leaves it, and has no strides; one for the whole batch
  const void* bias = nullptr;
  int64_t bias_stride = 0;
  void* c = nullptr;
  int64_t c_batch = 0, c_row = 0, c_col = 0;
};

enum class Provider : uint8_t { dots, tiles, onednn, eigen, loops };

/// "dots", "tiles", "onednn", ...
const char* name(Provider provider);
/// Whether this build and this machine have it.
bool provider_available(Provider provider);
/// Whether it computes this dtype.
bool provider_takes(Provider provider, DType dtype);
/// Depends on batch, m, n, k and dtype alone.
Provider choose_provider(const ProductCall& shape_only);

void product(const ProductCall& call);
/// For tests and measurements; an Error when the provider is missing or does not take the dtype.
void product(const ProductCall& call, Provider provider);

/// Columns of B that lie together: value by value of k, side by side. What own tiles read in a stream, and
/// need not copy in each call; the last panel's columns are filled up to a multiple of 16 with zeros.
inline constexpr int64_t kPanel = 64;
/// Whether a product of such a B may be asked for: float32 or float64 by own tiles.
bool takes_panels(const ProductCall& shape_only);
int64_t panels_nbytes(const ProductCall& shape_only);
/// B of `call`, which lies by its strides, in panels.
void pack_panels(const ProductCall& call, void* to);

}  // namespace tandem::ops
