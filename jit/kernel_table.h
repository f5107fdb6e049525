// The kernels of this process by their structure: each has an evaluator and, once some plan asked for it,
// compiled code. Entries live to the process's end, so plans keep plain pointers. Any thread.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "tandem/jit/kernel.h"

namespace tandem::jit {

struct KnownKernel {
  explicit KnownKernel(const Kernel& k) : evaluator(k) {}
  const Evaluator evaluator;
  std::atomic<KernelFunction> function{nullptr};  // compiled, or null
  std::atomic<bool> refused{false};               // the printer or the compiler gave up: not tried again
};

/// The kernel whose text is `text`.
KnownKernel& known_kernel(const Kernel& k, const std::string& text);

/// Prints those of the kernels that have no code yet and compiles them, in several programs side by side.
/// Where that fails the evaluator stays. Returns the time in milliseconds.
double compile_kernels(const std::vector<const Kernel*>& kernels,
                       const std::vector<const std::string*>& texts, const std::vector<KnownKernel*>& known);

/// The name of the function printed for a kernel, from its text.
std::string kernel_symbol(const std::string& text);

}  // namespace tandem::jit
