// Scalar expressions: hash-consed nodes in an arena that one kernel (or one test) owns, and the symbol `S` on
// which the op table's formulas are called to build them. Leaves are a kernel's loads, run-time numbers,
// constants, the linear index and the results of its reductions. Not synchronised: one builder, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "tandem/core/dtype.h"

namespace tandem::ops {

enum class ScalarOp : uint8_t {
  load,      // bits: index of the kernel's load
  number,    // bits: index of the kernel's run-time number; type float64 or int64
  constant,  // bits: of a double (floating types) or of an int64 (the others)
  index,     // int64: linear index of the element in the iteration space
  reduced,   // bits: index of the kernel's reduction
#define TANDEM_SCALAR(name, arity, result) name,
#include "tandem/ops/scalar.def"
#undef TANDEM_SCALAR
  count_
};
const char* name(ScalarOp op);
int arity(ScalarOp op);

struct ScalarNode {
  ScalarOp op;
  DType
      type;  // of the result; halves occur only as results of `load` and `cast`: arithmetic is float32 there
  int32_t in[3] = {-1, -1, -1};
  int64_t bits = 0;
  friend bool operator==(const ScalarNode&, const ScalarNode&) = default;
};

/// How a reduction combines. max and min return NaN if there is one; argmax and argmin the first index of it.
enum class ReduceOp : uint8_t { sum, prod, max, min, argmax, argmin };

class ScalarGraph;

/// A node of a ScalarGraph, with arithmetic that appends to it. Operands must have equal types (see
/// scalar.def).
struct S {
  ScalarGraph* graph = nullptr;
  int32_t id = -1;
  DType type() const;
};

class ScalarGraph {
 public:
  S node(ScalarOp op, DType type, S a = {}, S b = {}, S c = {}, int64_t bits = 0);
  S constant(DType type, double value);
  const ScalarNode& operator[](int32_t id) const { return nodes_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(nodes_.size()); }
  const std::vector<ScalarNode>& nodes() const { return nodes_; }

 private:
  struct Hash {
    std::size_t operator()(const ScalarNode& n) const;
  };
  std::vector<ScalarNode> nodes_;
  std::unordered_map<ScalarNode, int32_t, Hash> ids_;
};

S cast(S a, DType type);
S select(S condition, S a, S b);
S operator+(S a, S b);
S operator-(S a, S b);
S operator*(S a, S b);
S operator/(S a, S b);
S operator-(S a);
S operator+(S a, double b);  // the literal becomes a constant of a's type
S operator+(double a, S b);
S operator-(S a, double b);
S operator-(double a, S b);
S operator*(S a, double b);
S operator*(double a, S b);
S operator/(S a, double b);
S operator/(double a, S b);
#define TANDEM_SCALAR(name, arity, result) TANDEM_SCALAR_##arity(name)
#define TANDEM_SCALAR_1(name) S s_##name(S a);
#define TANDEM_SCALAR_2(name) S s_##name(S a, S b);
#define TANDEM_SCALAR_3(name) S s_##name(S a, S b, S c);
#include "tandem/ops/scalar.def"
#undef TANDEM_SCALAR
#undef TANDEM_SCALAR_1
#undef TANDEM_SCALAR_2
#undef TANDEM_SCALAR_3

}  // namespace tandem::ops
