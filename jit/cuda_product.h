// Matrix products on a CUDA device: cuBLASLt where it takes the type and the strides, else a kernel of our
// own. Which one, and with which algorithm, is a function of shapes, the operands' strides, dtype and whether
// all are 16-byte aligned, alone; with TANDEM_CUDA_TUNE also of what was measured. Float32 products do not
// use TF32; halves accumulate in float32. Any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// Operands at multiples of so many bytes are multiplied by the usual algorithm, others by one that needs no
/// alignment.
inline constexpr int64_t kProductAlignment = 16;

/// A product as cuBLASLt knows it; lives to the process's end.
struct LibraryProduct;

/// Finds or makes it; null if the kernel of our own takes the product.
const LibraryProduct* library_product(cuda::Runtime& device, const ProductCallPlan& call);
/// Whether the library gives a product's result at the strides of `moved`, `offset` elements into memory that
/// is aligned, with the bits of the contiguous one, `packed`.
bool library_writes(cuda::Runtime& device, const Contraction& packed, const Contraction& moved,
                    int64_t offset, bool bias);
/// Bytes of workspace that it needs.
int64_t workspace_bytes(const LibraryProduct& product);
/// How many calls of the library a product takes.
int64_t library_calls(const ProductCallPlan& call);
/// Queues it. `bias` may be 0.
void run_product(cuda::Runtime& device, const ProductCallPlan& call, const LibraryProduct& product,
                 cuda::Pointer a, cuda::Pointer b, cuda::Pointer bias, cuda::Pointer c,
                 cuda::Pointer workspace, cuda::StreamHandle stream);

/// The kernel of our own, one thread an element: (symbol, text).
std::pair<std::string, std::string> product_kernel(DType dtype);
/// Its parameters behind the addresses of a, b, bias and c; the last one counts its threads.
std::vector<int64_t> product_words(const ops::ProductCall& call);

/// Calls `f(a, b, c)`, offsets in bytes, for each of the products that a call consists of.
template <class F>
void for_products(const ProductCallPlan& call, F&& f) {
  const Contraction& shape = call.shape;
  const int64_t total = numel(shape.outer), size = itemsize(shape.call.dtype);
  for (int64_t i = 0; i < total; ++i) {
    int64_t a = 0, b = 0, c = 0, rest = i;
    for (int d = shape.outer.rank() - 1; d >= 0; --d) {
      const int64_t at = rest % shape.outer[d];
      rest /= shape.outer[d];
      a += at * shape.a_outer[d];
      b += at * shape.b_outer[d];
      c += at * shape.c_outer[d];
    }
    f(a * size, b * size, c * size);
  }
}

}  // namespace tandem::jit
