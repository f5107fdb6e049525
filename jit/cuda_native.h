// Native ops (ops/native.cpp) on a CUDA device: hand-written kernels in the dialect of the printed ones. Each
// sum is built by one thread in the order of the CPU's, so results are the same bit for bit. Any thread.
#pragma once

#include <span>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// Compiles what the call needs.
void prepare_cuda_native(cuda::Runtime& device, const NativeCallPlan& call);
/// Queues it. `error`: set if an index is out of range.
void cuda_native(cuda::Runtime& device, const NativeCallPlan& call, std::span<const cuda::Pointer> in,
                 cuda::Pointer out, cuda::Pointer error, cuda::Stream stream);

}  // namespace tandem::jit
