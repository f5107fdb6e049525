// The sample language: calls of an op that the table gives for its tests, read by loops over the table.
// Samples are separated by ';', one reads "operands | attributes", and `!` in front says that the call must
// throw:
//   f(3,4)@0.1:2   a floating tensor with values in [0.1, 2); without @ in [-2, 2)
//   i(5)@0:3       an int64 tensor with values 0 .. 2; without @ in [0, 10)
//   b(3,4)         a bool tensor
//   0.5, 3, true   a number operand;   -   an absent optional operand
//   axes=[1,-1] keepdim=1 dtype=int64 eps=1e-5   attributes by name; those left out are 0 or empty
// Values only, any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/ops/op.h"

namespace tandem::ops {

struct SampleOperand {
  enum class Kind : uint8_t { floating, integer, boolean, number, absent };
  Kind kind = Kind::floating;
  Dims sizes;
  double low = 0, high = 0;  // tensors
  NumberKind number{};       // numbers
  double value = 0;
  bool is_tensor() const { return kind != Kind::number && kind != Kind::absent; }
};

struct Sample {
  std::string text;
  bool must_throw = false;
  std::vector<SampleOperand> operands;
  std::vector<int64_t> words;  // number operands as (kind, value), then the attributes in declared order
  int n_numbers = 0;           // number operands
};

/// All samples of an op; throws Error naming the op and what could not be read.
std::vector<Sample> samples(const OpDef& op);
/// Reproducible values of a tensor operand: floating ones with full precision, integers and bools as whole
/// numbers.
std::vector<double> sample_values(const SampleOperand& operand, uint64_t seed);
/// The type of an operand when floating operands have type `floating`.
TensorType sample_type(const SampleOperand& operand, DType floating);

}  // namespace tandem::ops
