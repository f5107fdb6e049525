// The text around a program's own CUDA kernel (ops/user_ops.h): its parameter, and what its body sees by the
// names that the program gave. Pure functions; any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/cuda_native.h"
#include "tandem/ops/user_ops.h"

namespace tandem::jit {

struct OwnKernel {
  std::string symbol, source;     // without prelude; they depend on text, dtypes and ranks alone
  std::vector<NativeWord> words;  // of the parameter
  int64_t count = 0;              // threads wanted; 0: nothing to launch
  LaunchShape chosen = {};        // by the kernel itself
};
/// An Error if its `launch` asks for what no device has.
OwnKernel own_kernel(const NativeCallPlan& call, const ops::KernelDef& def);

}  // namespace tandem::jit
