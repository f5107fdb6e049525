// Native ops (ops/native.cpp) on a CUDA device: hand-written kernels in the dialect of the printed ones. Each
// sum is built in the order of the CPU's, so results are the same bit for bit. A program's own kernels
// (ops/user_ops.h) get their parameters from here. Any thread.
#pragma once

#include <limits>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

/// A word of a launch: `value`, from the address of an operand if there is one.
struct NativeWord {
  // kInput + i: input i; kOutputs - j: result j; kWorkspace: memory that the call's launches share
  static constexpr int32_t kNone = -1, kOut = 0, kError = 1, kInput = 2, kOutputs = -2;
  static constexpr int32_t kWorkspace = std::numeric_limits<int32_t>::max();
  int32_t operand = kNone;
  int64_t value = 0;
  constexpr NativeWord(int64_t word) : value(word) {}
  constexpr NativeWord(int32_t of, int64_t offset) : operand(of), value(offset) {}
};

/// A launch of `count` threads, compiled and loaded.
struct NativeLaunch {
  static constexpr unsigned kBlock = 256;  // threads, where `chosen` says nothing
  cuda::Function function = nullptr;
  std::vector<NativeWord> words;
  int64_t count = 0;
  LaunchShape chosen = {};  // of a program's own kernel that says so itself
  int64_t workspace_bytes = 0;
  LaunchShape shape() const {
    if (chosen.grid > 0) return chosen;
    return {static_cast<unsigned>((count + kBlock - 1) / kBlock), kBlock, 0};
  }
};

/// The launches of a call, in order.
std::vector<NativeLaunch> cuda_native(cuda::Runtime& device, const NativeCallPlan& call);
/// Copies `count` elements from input 0.
NativeLaunch cuda_copy(cuda::Runtime& device, DType dtype, int64_t count);

}  // namespace tandem::jit
