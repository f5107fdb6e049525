// The one interface by which gradients and composites are written: plain functions over `Value` and an
// `Emitter`. eager/ implements it by dispatch, jit/ by appending to a Graph. An emitter belongs to one thread
// and owns its values.
//
// No expression may hold two emitting calls as sibling arguments: compilers evaluate them in different orders
// (rule R14).
#pragma once

#include <initializer_list>

#include "tandem/ops/op.h"

namespace tandem::ops {

class Emitter {
 public:
  virtual ~Emitter() = default;
  /// Appends a call: `in` are operands (numbers allowed where the op takes them; an absent optional one is
  /// Value{}), then the run-time attributes as numbers; `words` the structural words. Returns def(op).n_out
  /// results in `out`.
  virtual void emit(OpId op, std::span<const Value> in, Words words, Value* out) = 0;
  /// By value: what is emitted next may move the others.
  virtual TensorType type(Value v) = 0;
  /// A constant number (float64).
  virtual Value number(double value) = 0;
  /// The number of elements of `v` along `axes`, as a number (float64): shape-relative, never a frozen
  /// constant (R9).
  virtual Value count(Value v, const Dims& axes) = 0;
  /// Arithmetic on numbers, in float64.
  virtual Value number_op(ScalarOp op, Value a, Value b = {}) = 0;

  Location location;  // the line that emitted calls are attributed to

  Value call(OpId op, std::initializer_list<Value> in, std::initializer_list<int64_t> words = {});
  Value call(OpId op, std::initializer_list<Value> in, const std::vector<int64_t>& words);

  // Every pointwise op by its name: e.add(a, b), e.exp(a), e.where(c, a, b); literals become numbers:
  // e.mul(a, 0.5).
#define TANDEM_POINTWISE1(name, ...) \
  Value name(Value a) { return call(OpId::name, {a}); }
#define TANDEM_POINTWISE2(name, ...)                                         \
  Value name(Value a, Value b) { return call(OpId::name, {a, b}); }          \
  Value name(Value a, double b) { return call(OpId::name, {a, number(b)}); } \
  Value name(double a, Value b) { return call(OpId::name, {number(a), b}); }
#define TANDEM_POINTWISE3(name, ...)                                                     \
  Value name(Value a, Value b, Value c) { return call(OpId::name, {a, b, c}); }          \
  Value name(Value a, Value b, double c) { return call(OpId::name, {a, b, number(c)}); } \
  Value name(Value a, double b, Value c) { return call(OpId::name, {a, number(b), c}); }
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3

  // Shapes and reductions, by what they do (see the table for the words behind them).
  Value cast(Value a, DType type);
  Value sum(Value a, const Dims& axes, bool keepdim);
  Value mean(Value a, const Dims& axes, bool keepdim);
  Value amax(Value a, const Dims& axes, bool keepdim);
  Value reshape(Value a, const Dims& sizes);
  Value expand(Value a, const Dims& sizes);
  Value permute(Value a, const Dims& axes);
  /// Swaps two axes.
  Value transpose(Value a, int axis0, int axis1);
  Value unsqueeze(Value a, int64_t axis);
  Value slice(Value a, int64_t axis, int64_t start, int64_t end, int64_t step = 1);
  /// Zeros before and after along an axis.
  Value pad(Value a, int64_t axis, int64_t before, int64_t after);
  Value matmul(Value a, Value b, bool tf32 = false);
  Value full(const Dims& sizes, DType type, double value);
  Value full_like(Value a, double value);
  /// Sums `a` down to `sizes`, the reverse of broadcasting; `a` itself if the sizes are equal.
  Value sum_to(Value a, const Dims& sizes);
};

/// What number_op computes: add, sub, mul, div, neg, sqrt, max and min.
double number_arithmetic(ScalarOp op, double a, double b);

/// What a composite's body sees.
struct Body {
  Emitter& e;
  const OpDef& op;
  std::span<const Value> operands;  // operands, then run-time attributes
  Words words;                      // structural
  Value* results;

  Value in(int i) const { return operands[static_cast<size_t>(i)]; }
  /// A run-time attribute by its declared index.
  Value number(int attr) const;
  int64_t integer(int attr) const;
  Dims list(int attr) const;
  TensorType type(int i) const { return e.type(in(i)); }
  void set(Value v, int i = 0) { results[i] = v; }
};

/// What a gradient rule sees. Only operands and results named in `reads` may be read; run-time attributes
/// always.
struct Gradient {
  Emitter& e;
  const OpDef& op;
  std::span<const Value> operands;            // as in Body; Value{} where not saved
  std::span<const TensorType> operand_types;  // always
  std::span<const Value> outputs;             // Value{} where not saved
  std::span<const Value> grads;               // of the results; Value{}: none flowed (zero)
  Words words;
  std::span<const bool> needed;  // per operand
  Value* results;                // per operand: its gradient, Value{} for none

  Value in(int i) const { return operands[static_cast<size_t>(i)]; }
  Value out(int i = 0) const { return outputs[static_cast<size_t>(i)]; }
  Value grad(int i = 0) const { return grads[static_cast<size_t>(i)]; }
  const TensorType& in_type(int i) const { return operand_types[static_cast<size_t>(i)]; }
  bool needs(int i) const { return needed[static_cast<size_t>(i)]; }
  Value number(int attr) const;
  int64_t integer(int attr) const;
  Dims list(int attr) const;
  void set(int i, Value v) { results[i] = v; }
};

/// Runs the gradient of any op with any emitter: its own rule, or, for a composite without one, the reverse
/// of its body (which is emitted again). Gradients of pointwise ops come back summed to the operand's sizes
/// and cast to its type.
void emit_gradient(Gradient& g);
/// Runs a composite's body.
void emit_body(Emitter& e, const OpDef& op, std::span<const Value> operands, Words words, Value* results);

}  // namespace tandem::ops
