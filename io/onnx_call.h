// One node of a graph on its way into an ONNX model: its operands as values of the model, and the building
// blocks that the conversions share. What an op becomes is a row of onnx.def. One thread.
#pragma once

#include <bit>
#include <unordered_map>

#include "tandem/io/onnx_model.h"
#include "tandem/jit/graph.h"

namespace tandem::io {

/// A number that is known when the model is made: all are.
struct OnnxNumber {
  DType type = DType::float64;  // else int64 or bool
  int64_t bits = 0;
  static OnnxNumber of(double v) { return {DType::float64, std::bit_cast<int64_t>(v)}; }
  double floating() const {
    return is_floating(type) ? std::bit_cast<double>(bits) : static_cast<double>(bits);
  }
  int64_t integer() const { return integer(DType::int64); }
  /// As type `t`, which is not floating, holds it: floating numbers towards zero, saturating, NaN as 0;
  /// integers wrap when they are stored.
  int64_t integer(DType t) const;
};

/// What a graph's values have become.
struct OnnxValues {
  std::vector<OnnxValue> tensors;                   // by value id; none: a number
  std::unordered_map<int32_t, OnnxNumber> numbers;  // by value id
};

struct OnnxCall {
  OnnxModel& m;
  const jit::Graph& g;
  const jit::Node& n;
  const ops::OpDef& op;
  const char* text;  // of the row
  OnnxValues& values;

  [[noreturn]] void refuse(const std::string& why) const;

  // --- Operands, attributes, results ---
  size_t n_in() const { return n.in.size() - static_cast<size_t>(op.n_numbers()); }
  bool has(size_t i) const { return i < n_in() && n.in[i] >= 0; }
  const ops::TensorType& type(size_t i) const { return g.type(n.in[i]); }
  const Dims& sizes(size_t i) const { return type(i).sizes; }
  const ops::TensorType& out_type(size_t j = 0) const { return g.type(n.out[j]); }
  OnnxType out_as(DType t) const { return {t, out_type().sizes}; }
  /// Operand i, cast if it is of another type; numbers become constants without axes.
  OnnxValue in(size_t i, DType t);
  OnnxValue in(size_t i) { return in(i, type(i).dtype); }
  int64_t integer(int attr) const;
  Dims list(int attr) const;
  OnnxNumber number(int attr) const;
  double floating(int attr) const { return number(attr).floating(); }
  /// An axis of operand 0.
  int64_t axis(int attr) const;
  /// Result j, cast to its type in the graph.
  void set(OnnxValue v, size_t j = 0);

  // --- Building blocks ---
  OnnxValue cast(OnnxValue v, DType t);
  OnnxValue reshape(OnnxValue v, const Dims& sizes);
  OnnxValue expand(OnnxValue v, const Dims& sizes);
  OnnxValue transpose(OnnxValue v, const std::vector<int64_t>& axes);
  /// Of broadcast operands; the result has their type, or is of bools.
  OnnxValue pointwise(const char* name, const std::vector<OnnxValue>& in, OnnxAttributes attributes = {});
  OnnxValue compare(const char* name, OnnxValue a, OnnxValue b);
  OnnxValue where(OnnxValue condition, OnnxValue a, OnnxValue b);
  OnnxValue shape(const Dims& sizes) { return m.integers({sizes.begin(), sizes.end()}); }
};

/// Halves that ONNX's operators do not all take, and types without arithmetic, in a wider one.
inline DType onnx_carrier(DType t) {
  if (t == DType::bfloat16) return DType::float32;
  return t == DType::uint8 || t == DType::bool_ ? DType::int32 : t;
}

}  // namespace tandem::io
