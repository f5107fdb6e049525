// Eager execution as the JIT of a one-call program: each distinct (op, structural words, operand types and
// layouts) becomes an Executable once, run by the chunk evaluator. Gradient rules are compiled the same way.
// Thread-local caches over immutable executables.
#pragma once

#include <memory>
#include <vector>

#include "tandem/eager/dispatch.h"
#include "tandem/jit/executable.h"

namespace tandem::eager {

struct Node;

/// An executable with what its caller must bring and gets back.
struct Compiled {
  std::shared_ptr<const jit::Executable> executable;
  Device device;                           // of all its operands and results
  std::vector<ops::TensorType> out_types;  // of the executable's outputs
  std::vector<int> inputs;                 // operand (or saved value) behind each graph input
  std::vector<int> numbers;                // word of the call behind each run-time number
  /// Gradients only, per operand: >= 0 output of the executable; kNone; or an alias of incoming gradient -2 -
  /// k.
  std::vector<int> results;
  static constexpr int kNone = -1;
};

/// The call's executable; `call.in` hold real tensors. In-place calls write their operands and have no
/// outputs.
const Compiled& compiled_call(const Call& call);

/// The gradient rule of `n` for the given incoming gradients (null: none), saved values being real.
const Compiled& compiled_gradient(const Node& n, std::span<const Ref<TensorImpl>> grads);

/// Appends the call to a graph by `e`: `operand(i)` gives the value of tensor operand i, `number(w)` of word
/// w.
template <class Operand, class Number>
void emit_call(ops::Emitter& e, const Call& call, Operand&& operand, Number&& number, ops::Value* out);

/// Runs `c` on inputs gathered by the caller. Throws Error with the op's line when an index is out of range,
/// naming the index if `call` is given.
void run_compiled(const Compiled& c, const char* op_name, Location where, void* const* inputs,
                  const int64_t* words, Ref<TensorImpl>* outputs, const Call* call = nullptr);

}  // namespace tandem::eager

#include "tandem/eager/compiled.inc"
