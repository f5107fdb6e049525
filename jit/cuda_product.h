// Matrix products on a CUDA device: cuBLASLt where it takes the type and the strides, else a kernel of our
// own. Which one, and with which algorithm, is a function of shapes, strides and dtype alone. Float32
// products do not use TF32; halves accumulate in float32. Any thread.
#pragma once

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// Finds the algorithm, or compiles the kernel, before the first call.
void prepare_cuda_product(cuda::Runtime& device, const ProductCallPlan& call);
/// Bytes of workspace that it needs.
int64_t cuda_product_workspace(cuda::Runtime& device, const ProductCallPlan& call);
/// Queues it. `bias` may be 0.
void cuda_product(cuda::Runtime& device, const ProductCallPlan& call, cuda::Pointer a, cuda::Pointer b,
                  cuda::Pointer bias, cuda::Pointer c, cuda::Pointer workspace, cuda::Stream stream);

}  // namespace tandem::jit
