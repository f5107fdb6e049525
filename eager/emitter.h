// The Emitter that dispatches: gradients and composites written over Value run as ordinary ops, so a tracer
// sees them and the tape notes them. Holds its values until it dies; one thread.
#pragma once

#include "tandem/eager/dispatch.h"
#include "tandem/ops/emitter.h"

namespace tandem::eager {

class EagerEmitter final : public ops::Emitter {
 public:
  explicit EagerEmitter(Location at) { location = at; }
  void emit(ops::OpId op, std::span<const ops::Value> in, ops::Words words, ops::Value* out) override;
  ops::TensorType type(ops::Value v) override { return at(v).type; }
  ops::Value number(double value) override {
    return number_bits(std::bit_cast<int64_t>(value), NumberKind::floating);
  }
  ops::Value count(ops::Value v, const Dims& axes) override;
  ops::Value number_op(ops::ScalarOp op, ops::Value a, ops::Value b) override;

  ops::Value add(Ref<TensorImpl> tensor);
  ops::Value number_bits(int64_t bits, NumberKind kind, std::shared_ptr<const NumberSource> source = {});
  const Ref<TensorImpl>& tensor(ops::Value v) { return at(v).tensor; }
  int32_t size() const { return static_cast<int32_t>(items_.size()); }
  /// True if the value was made by a view op: its memory is another value's.
  bool is_view(ops::Value v) const { return at(v).view; }

  using ops::Emitter::add;

 private:
  struct Item {
    Ref<TensorImpl> tensor;  // null: a number
    int64_t bits = 0;
    NumberKind kind = NumberKind::floating;
    ops::TensorType type;
    bool view = false;
    std::shared_ptr<const NumberSource> source;  // of numbers that follow a recorded word
  };
  const Item& at(ops::Value v) const { return items_[static_cast<size_t>(v.id)]; }
  std::vector<Item> items_;
};

}  // namespace tandem::eager
