// Ops that a program makes itself while it runs: formulas recorded from a function on symbols
// (eager/pointwise.h), and kernels given as text with a plain C++ twin (eager/kernel.h). Each has an id
// behind those of the table and an OpDef that lives to the process's end; registering the same thing again
// gives the same id. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tandem/ops/op.h"

namespace tandem::ops {

/// A formula: calls of the table's pointwise ops, in order. Operands come first; then constants and steps.
struct FormulaNode {
  enum class Kind : uint8_t { operand, floating, integer, step } kind = Kind::operand;
  OpId op = OpId::count_;      // steps
  int64_t bits = 0;            // constants: of a double, or an integer
  std::vector<int32_t> in;     // steps: earlier nodes; run-time attributes of `op` come last
  std::vector<int64_t> words;  // steps: structural words
  friend bool operator==(const FormulaNode&, const FormulaNode&) = default;
};
struct Formula {
  int n_in = 0;
  std::vector<FormulaNode> nodes;
  int32_t result = -1;
  friend bool operator==(const Formula&, const Formula&) = default;
};

/// One launch of a user's kernel: blocks, threads in each, and bytes of dynamic shared memory.
struct KernelLaunch {
  int64_t blocks = 0;
  int64_t threads = 256;
  int64_t shared_bytes = 0;
};

/// A kernel in CUDA text and in C++; eager/kernel.h says what they see.
struct KernelDef {
  std::string name = {};
  std::vector<std::string> inputs = {}, outputs = {};
  std::string cuda = {}, header = {};
  void (*cpu)(const NativeCall&) = nullptr;
  std::vector<TensorType> (*infer)(std::span<const TensorType> in) = nullptr;
  KernelLaunch (*launch)(std::span<const TensorType> in, std::span<const TensorType> out) = nullptr;
  friend bool operator==(const KernelDef&, const KernelDef&) = default;
};

/// A composite of as many operands as the formula has, tensors or numbers. It computes halves in float32 and
/// rounds once, its result has the broadcast sizes of all operands, and its gradients are those of its steps.
OpId register_formula(std::string name, Formula formula);
OpId register_kernel(KernelDef kernel);

/// Null if there is no such op; never for one that was registered.
const OpDef* user_op(OpId id);
/// True for the table's ops and registered ones.
inline bool is_op(OpId id) { return id < OpId::count_ || user_op(id); }
/// Of a registered kernel; null for any other op.
const KernelDef* user_kernel(OpId id);

}  // namespace tandem::ops
