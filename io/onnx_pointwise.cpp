// Pointwise ops that are one operator of ONNX. What ONNX has for some types alone falls back to the formula.
#include <cmath>

#include "tandem/io/onnx_ops.h"

namespace tandem::io {

namespace {
/// Of floating operands; bfloat16 goes by float32, which more operators and runtimes take.
DType floating_carrier(DType t) { return t == DType::bfloat16 ? DType::float32 : t; }
}  // namespace

bool onnx_row::narrow(const jit::Graph& g, const jit::Node& n) {
  const size_t n_in = n.in.size() - static_cast<size_t>(ops::def(n.op).n_numbers());
  const DType t = g.type(n.in[0]).dtype;
  for (size_t i = 0; i < n_in; ++i)
    if (n.in[i] >= 0 && (g.type(n.in[i]).number || g.type(n.in[i]).dtype != t)) return false;
  return is_floating(t) && t != DType::float64;
}

void onnx_row::cast(OnnxCall& c) { c.set(c.in(0)); }

void onnx_row::unary(OnnxCall& c) {
  const DType t = c.out_type().dtype;
  if (!is_floating(t)) return formula(c);
  c.set(c.pointwise(c.text, {c.in(0, floating_carrier(t))}));
}

void onnx_row::with_alpha(OnnxCall& c) {
  const DType t = c.op.id == ops::OpId::celu ? DType::float32 : floating_carrier(c.out_type().dtype);
  c.set(c.pointwise(c.text, {c.in(0, t)}, {{"alpha", static_cast<float>(c.floating(0))}}));
}

void onnx_row::hardsigmoid(OnnxCall& c) {
  const OnnxValue x = c.in(0, floating_carrier(c.out_type().dtype));
  c.set(c.pointwise("HardSigmoid", {x}, {{"alpha", 1.0f / 6}, {"beta", 0.5f}}));
}

void onnx_row::shrink(OnnxCall& c) {
  const auto lambda = static_cast<float>(c.floating(0));
  const float bias = c.op.id == ops::OpId::softshrink ? lambda : 0;
  const OnnxValue x = c.in(0, floating_carrier(c.out_type().dtype));
  c.set(c.pointwise("Shrink", {x}, {{"lambd", lambda}, {"bias", bias}}));
}

// From threshold 20 on the two functions are one in float32.
void onnx_row::softplus(OnnxCall& c) {
  const DType t = c.out_type().dtype;
  if (t == DType::float64 || c.floating(0) != 1 || c.floating(1) < 20) return formula(c);
  c.set(c.pointwise("Softplus", {c.in(0, floating_carrier(t))}));
}

void onnx_row::silu(OnnxCall& c) {
  const DType t = c.out_type().dtype;
  const OnnxValue x = c.in(0, t == DType::float16 ? DType::float32 : floating_carrier(t));
  c.set(c.pointwise("Mul", {x, c.pointwise("Sigmoid", {x})}));
}

void onnx_row::clip(OnnxCall& c) {
  const DType t = floating_carrier(c.out_type().dtype);
  const bool six = c.op.id == ops::OpId::relu6;
  const double low = six ? 0 : c.floating(0), high = six ? 6 : c.floating(1);
  if (!is_floating(t) || !(low <= high)) return formula(c);
  const OnnxValue least = std::isinf(low) ? OnnxValue{} : c.m.scalar(t, low);
  const OnnxValue most = std::isinf(high) ? OnnxValue{} : c.m.scalar(t, high);
  const OnnxValue x = c.in(0, t);
  c.set(c.m.node("Clip", {x, least, most}, c.m.type(x)));
}

void onnx_row::question(OnnxCall& c) {
  const DType t = c.type(0).dtype;
  if (!is_floating(t)) return formula(c);
  c.set(c.m.node(c.text, {c.in(0, t == DType::float64 ? t : DType::float32)}, c.out_as(DType::bool_)));
}

}  // namespace tandem::io
