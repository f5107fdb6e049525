// The table's samples as calls with values: what they shall give (on the float64 reference, to second order)
// and how close a result must come. For tests that loop over the table. Values only, one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tandem/ops/reverse.h"
#include "tests/elements.h"
#include "tests/ops/sample_call.h"

namespace tandem::test {

using Lists = std::vector<std::vector<double>>;

inline constexpr DType kSampleTypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16,
                                         DType::int64,   DType::int32,   DType::uint8,    DType::bool_};

/// Whether the sample can be run in several types.
inline bool has_floating(const ops::Sample& s) {
  return std::any_of(s.operands.begin(), s.operands.end(), takes_gradient);
}

/// `v` as type `t` holds it.
inline double in_type(DType t, double v) {
  char bytes[8];
  write_element(bytes, t, 0, v);
  return read_element(bytes, t, 0);
}

/// `values` as the operands hold them when floating ones are of `type`.
inline Lists rounded(const ops::Sample& s, DType type, Lists values) {
  for (size_t i = 0; i < values.size(); ++i) {
    const DType t = ops::sample_type(s.operands[i], type).dtype;
    for (double& v : values[i]) {
      if (!is_floating(t)) v = std::floor(v);
      v = in_type(t, t == DType::uint8 ? std::fabs(v) : v);
    }
  }
  return values;
}

/// What a result of one op may be off: 16 units of the type that is computed in (float32 for halves and
/// integers), counted at the largest magnitude among operands and results. The scatters store after every
/// sum: there the units are those of the result's own type. Random draws are made in float32.
inline Tolerance sample_tolerance(const ops::OpDef& op, DType result, double magnitude) {
  const bool own =
      op.kind == ops::OpKind::scatter || (result == DType::float64 && op.kind != ops::OpKind::random);
  const DType computed = own && is_floating(result) ? result : DType::float32;
  return {16 * epsilon(computed), 16 * epsilon(computed) * magnitude};
}

inline double magnitude_of(const std::vector<double>& values, double at_least = 1) {
  for (const double v : values)
    if (std::isfinite(v)) at_least = std::max(at_least, std::fabs(v));
  return at_least;
}

/// Reproducible values in [-1, 1).
inline std::vector<double> noise(size_t n, uint64_t seed) {
  ops::SampleOperand o;
  o.low = -1, o.high = 1;
  o.sizes = {static_cast<int64_t>(n)};
  return ops::sample_values(o, seed);
}
/// The weights of result j in the loss, and of the gradient of floating operand i in the slope.
inline std::vector<double> loss_weights(size_t n, size_t j) { return noise(n, 100 + j); }
inline std::vector<double> slope_weights(size_t n, size_t i) { return noise(n, 200 + i); }

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// One evaluation of an op with gradients of first and second order, all along fixed random weights.
struct Evaluation {
  double loss = 0;        // sum of weights * results
  Lists gradients;        // of the loss, per floating operand
  double slope = 0;       // sum of weights * gradients
  Lists second;           // gradients of the slope, per floating operand
  bool types_fit = true;  // gradients have sizes and types of their operands
};

/// On the reference. Bit i of `wanted`: the gradient of floating operand i is asked for.
inline Evaluation evaluate(const ops::OpDef& op, const ops::Sample& s, DType floating, const Lists& values,
                           bool second, uint32_t wanted = ~0u) {
  ReferenceEmitter e;
  SampleCall call = make_call(e, op, s, floating, values);
  std::vector<size_t> counts;
  for (size_t i = 0; i < call.tensors.size(); ++i) {
    counts.push_back(e.values(call.tensors[i]).size());
    if (!((wanted >> i) & 1)) call.tensors[i] = {};
  }
  ops::LogEmitter log(e);
  ops::Value out[ops::kMaxOutputs];
  log.emit(op.id, call.in, call.words, out);
  Evaluation result;
  std::vector<ops::Value> roots, weights;
  for (size_t j = 0; j < static_cast<size_t>(op.n_out); ++j) {
    if (!is_floating(e.type(out[j]).dtype)) continue;
    roots.push_back(out[j]);
    weights.push_back(e.add(e.type(out[j]), loss_weights(e.values(out[j]).size(), j)));
    result.loss += dot(e.values(out[j]), e.values(weights.back()));
  }
  std::vector<ops::Value> grads(call.tensors.size());
  std::vector<ops::LoggedCall> calls = log.calls();
  ops::reverse(log, calls, roots, weights, call.tensors, grads.data());

  std::vector<ops::Value> slope_roots, weights_of_slope;
  for (size_t i = 0; i < grads.size(); ++i) {
    result.gradients.push_back(grads[i] ? e.values(grads[i]) : std::vector<double>(counts[i], 0));
    if (!grads[i]) continue;
    result.types_fit = result.types_fit && e.type(grads[i]) == e.type(call.tensors[i]);
    slope_roots.push_back(grads[i]);
    weights_of_slope.push_back(e.add(e.type(grads[i]), slope_weights(counts[i], i)));
    result.slope += dot(result.gradients.back(), e.values(weights_of_slope.back()));
  }
  if (second) {
    calls = log.calls();
    std::vector<ops::Value> again(call.tensors.size());
    ops::reverse(e, calls, slope_roots, weights_of_slope, call.tensors, again.data());
    for (size_t i = 0; i < again.size(); ++i)
      result.second.push_back(again[i] ? e.values(again[i]) : std::vector<double>(counts[i], 0));
  }
  return result;
}

/// Values moved by `step` along fixed random directions; and the product of a gradient with these.
struct Direction {
  Lists parts;
  explicit Direction(const ops::Sample& s, const Lists& values) {
    for (size_t i = 0; i < s.operands.size(); ++i)
      parts.push_back(takes_gradient(s.operands[i]) ? noise(values[i].size(), 300 + i)
                                                    : std::vector<double>(values[i].size(), 0));
  }
  Lists moved(Lists values, double step) const {
    for (size_t i = 0; i < values.size(); ++i)
      for (size_t k = 0; k < values[i].size(); ++k) values[i][k] += step * parts[i][k];
    return values;
  }
  double along(const ops::Sample& s, const Lists& gradients) const {
    double sum = 0;
    for (size_t i = 0, g = 0; i < parts.size(); ++i)
      if (takes_gradient(s.operands[i])) sum += dot(gradients[g++], parts[i]);
    return sum;
  }
};

}  // namespace tandem::test
