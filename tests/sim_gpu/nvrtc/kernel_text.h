// Making a CUDA text fit for a host compiler: finding its kernels, and the few words that macros cannot turn.
// Plain functions, any thread.
#pragma once

#include <string>
#include <vector>

namespace sim_gpu {

struct KernelName {
  std::string name;
  std::string max_threads;  // the first argument of __launch_bounds__, as written; "0" without one
};

struct KernelText {
  std::string text;                 // as many lines as the original
  std::vector<KernelName> kernels;  // each `extern "C" __global__ void NAME(` that defines one
};

KernelText prepare_kernel_text(const std::string& text);

/// What follows the text: an entry for each kernel, and the table by which the driver finds them.
std::string kernel_table_text(const std::vector<KernelName>& kernels);

}  // namespace sim_gpu
