// The choice among cuBLASLt's algorithms by time: only where TANDEM_CUDA_TUNE asks for it, since results then
// depend on what was measured. Measured once for a key, and kept on disk beside the kernels. Any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tandem/core/cuda/runtime.h"

namespace tandem::jit {

/// Whether algorithms are chosen by time.
bool tunes_products();

/// One of `candidates`, which are in the order of the library's own estimate, or one that was kept for `key`:
/// device, library and product. `works(algorithm)`: whether the library still takes a kept one. `queue(i)`
/// queues the product by candidate i on the current stream; false if it cannot. The first of them where
/// nothing could be measured.
cuda::CublasLt::HeuristicResult tuned(
    cuda::Runtime& device, const std::string& key,
    const std::vector<cuda::CublasLt::HeuristicResult>& candidates,
    const std::function<bool(cuda::CublasLt::HeuristicResult& algorithm)>& works,
    const std::function<bool(size_t i)>& queue);

}  // namespace tandem::jit
