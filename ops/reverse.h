// Reverse accumulation over emitted calls: an Emitter that forwards to another and logs what passes, and the
// walk back over the log that emits the gradients, with any emitter (which may again be a logging one). One
// thread; the log holds values of the inner emitter and must not outlive it.
#pragma once

#include <vector>

#include "tandem/ops/emitter.h"

namespace tandem::ops {

struct LoggedCall {
  OpId op;
  std::vector<Value> in;  // operands, then run-time attributes
  std::vector<int64_t> words;
  std::vector<Value> out;
};

class LogEmitter final : public Emitter {
 public:
  explicit LogEmitter(Emitter& inner) : inner_(inner) { location = inner.location; }
  void emit(OpId op, std::span<const Value> in, Words words, Value* out) override;
  TensorType type(Value v) override { return inner_.type(v); }
  Value number(double value) override { return inner_.number(value); }
  Value count(Value v, const Dims& axes) override { return inner_.count(v, axes); }
  Value number_op(ScalarOp op, Value a, Value b) override { return inner_.number_op(op, a, b); }

  const std::vector<LoggedCall>& calls() const { return calls_; }

 private:
  Emitter& inner_;
  std::vector<LoggedCall> calls_;
};

/// Emits into `e` the gradients of `wanted`, given those of `roots` (Value{}: none). A result is Value{}
/// where no gradient flows. Calls are walked from last to first, contributions added in that order.
void reverse(Emitter& e, std::span<const LoggedCall> calls, std::span<const Value> roots,
             std::span<const Value> root_grads, std::span<const Value> wanted, Value* grads);

}  // namespace tandem::ops
