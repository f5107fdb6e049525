// Kernels are compiled in programs of several, the programs side by side on several threads. Any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace tandem::jit {

/// What stands before the kernels of a program, the same in all of them, with its digest for cache keys.
struct ProgramStart {
  std::string text, digest;
  explicit ProgramStart(std::string text_);
};

/// A kernel's text, which knows of no other kernel. `cost`: how long it takes to compile, in characters of a
/// plain kernel.
struct ProgramPart {
  std::string text;
  size_t cost;
};

/// Which parts share a program (rising indices): as many programs as `processors`, alike in cost, but none
/// that would take longer to begin with than for its kernels, and none that grows without bounds.
std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs, size_t processors);
/// The same for this machine.
std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs);

/// Calls work(i) for i in [0, jobs), on as many threads as there are jobs and processors. Waits for all;
/// throws what the first job threw that failed.
void side_by_side(size_t jobs, const std::function<void(size_t)>& work);

}  // namespace tandem::jit
