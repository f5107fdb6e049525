// The float64 reference of every op: an Emitter that executes each call at once on plain vectors of doubles,
// straight from the op's definition (formulas interpreted, reductions and products by loops, views by their
// index maps, composites by their bodies). It shares no kernel with the library. Types are tracked, values of
// floating types never rounded. Owns its values; one thread.
#pragma once

#include <deque>
#include <vector>

#include "tandem/ops/emitter.h"

namespace tandem::test {

struct ReferenceTensor {
  ops::TensorType type;
  std::vector<double> values;  // row-major; one for a number
};

class ReferenceEmitter : public ops::Emitter {
 public:
  void emit(ops::OpId op, std::span<const ops::Value> in, ops::Words words, ops::Value* out) override;
  ops::TensorType type(ops::Value v) override { return at(v).type; }
  ops::Value number(double value) override;
  ops::Value count(ops::Value v, const Dims& axes) override;
  ops::Value number_op(ops::ScalarOp op, ops::Value a, ops::Value b) override;

  /// A tensor or, if the type says so, a number from outside.
  ops::Value add(const ops::TensorType& type, std::vector<double> values);
  const std::vector<double>& values(ops::Value v) const { return at(v).values; }
  const ReferenceTensor& at(ops::Value v) const;
  using ops::Emitter::add;

 private:
  std::deque<ReferenceTensor> tensors_;
};

/// `v` as an element of type `t` holds it; floating types are not rounded to.
double to_type(double v, DType t);
/// One pointwise scalar expression in double arithmetic; floating and integer nodes as scalar.def says.
/// `load(i)`, `number(i)` and `index` give the leaves.
struct ScalarLeaves {
  std::vector<double> loads, numbers;
  int64_t index = 0;
};
double interpret(const ops::ScalarGraph& graph, int32_t node, const ScalarLeaves& leaves);

}  // namespace tandem::test
