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

struct KernelText {
  const Kernel* kernel;
  const std::string* text;  // to_string of it
};
struct KnownKernels {
  std::vector<KnownKernel*> known;
  double compile_ms = 0;
};
/// The kernels of these texts, in order. With `compile` those that have no code yet are printed and compiled
/// together, in several programs side by side; where that fails the evaluator stays.
KnownKernels known_kernels(const std::vector<KernelText>& kernels, bool compile);

/// The name of the function printed for a kernel, from its text.
std::string kernel_symbol(const std::string& text);

}  // namespace tandem::jit
