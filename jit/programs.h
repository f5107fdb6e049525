// Kernels are compiled in programs of several, the programs side by side on several threads. Any thread.
#pragma once

#include <cstddef>
#include <functional>

namespace tandem::jit {

/// Calls work(begin, end) for ranges that cover [0, kernels), each one program, on as many threads as there
/// are programs and cores. Waits for all; throws what the first range threw that failed.
void for_programs(size_t kernels, const std::function<void(size_t begin, size_t end)>& work);

}  // namespace tandem::jit
