#include "tandem/io/onnx_call.h"

#include <algorithm>
#include <cmath>

#include "tandem/core/error.h"

namespace tandem::io {

int64_t OnnxNumber::integer(DType t) const {
  if (!is_floating(type)) return bits;
  const double v = floating();
  if (std::isnan(v)) return t == DType::bool_;
  if (t == DType::bool_) return v != 0;
  const double low = t == DType::int64 ? -0x1p63 : t == DType::int32 ? -0x1p31 : 0;
  const double high = t == DType::int64 ? 0x1p63 : t == DType::int32 ? 0x1p31 - 1 : 255;
  if (t == DType::int64 && v >= high) return INT64_MAX;
  return static_cast<int64_t>(std::clamp(v, low, high));
}

void OnnxCall::refuse(const std::string& why) const {
  fail("onnx: " + std::string(op.name) + ": " + why, n.where);
}

OnnxValue OnnxCall::in(size_t i, DType t) {
  const int32_t v = n.in[i];
  if (const auto number = values.numbers.find(v); number != values.numbers.end())
    return is_floating(t) ? m.scalar(t, number->second.floating()) : m.scalar(t, number->second.integer(t));
  return cast(values.tensors[static_cast<size_t>(v)], t);
}

int64_t OnnxCall::integer(int attr) const {
  return ops::InferCall{op, {}, {}, n.words, n.where}.integer(attr);
}

Dims OnnxCall::list(int attr) const { return ops::InferCall{op, {}, {}, n.words, n.where}.list(attr); }

OnnxNumber OnnxCall::number(int attr) const {
  return values.numbers.at(n.in[n_in() + static_cast<size_t>(op.number_index(attr))]);
}

int64_t OnnxCall::axis(int attr) const {
  return normalize_axis(integer(attr), sizes(0).rank(), op.name, n.where);
}

void OnnxCall::set(OnnxValue v, size_t j) {
  const ops::TensorType& t = out_type(j);
  v = cast(v, t.dtype);
  TANDEM_INTERNAL(m.type(v).sizes == t.sizes, std::string("onnx: ") + op.name + " becomes " +
                                                  to_string(m.type(v).sizes) + " instead of " +
                                                  to_string(t.sizes));
  values.tensors[static_cast<size_t>(n.out[j])] = v;
}

OnnxValue OnnxCall::cast(OnnxValue v, DType t) {
  if (m.type(v).dtype == t) return v;
  return m.node("Cast", {v}, {t, m.type(v).sizes}, {{"to", int64_t{onnx_dtype(t)}}});
}

OnnxValue OnnxCall::reshape(OnnxValue v, const Dims& sizes) {
  const OnnxType t = m.type(v);
  if (t.sizes == sizes) return v;
  OnnxAttributes attributes;
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end())
    attributes.push_back({"allowzero", int64_t{1}});
  return m.node("Reshape", {v, shape(sizes)}, {t.dtype, sizes}, std::move(attributes));
}

OnnxValue OnnxCall::expand(OnnxValue v, const Dims& sizes) {
  const OnnxType t = m.type(v);
  if (t.sizes == sizes) return v;
  return m.node("Expand", {v, shape(sizes)}, {t.dtype, sizes});
}

OnnxValue OnnxCall::transpose(OnnxValue v, const std::vector<int64_t>& axes) {
  const OnnxType t = m.type(v);
  Dims sizes;
  for (const int64_t a : axes) sizes.push_back(t.sizes[static_cast<int>(a)]);
  if (axes.empty()) return v;
  return m.node("Transpose", {v}, {t.dtype, sizes}, {{"perm", axes}});
}

OnnxValue OnnxCall::pointwise(const char* name, const std::vector<OnnxValue>& in, OnnxAttributes attributes) {
  OnnxType t = m.type(in[0]);
  for (const OnnxValue v : in) t.sizes = broadcast(t.sizes, m.type(v).sizes, op.name);
  return m.node(name, in, t, std::move(attributes));
}

OnnxValue OnnxCall::compare(const char* name, OnnxValue a, OnnxValue b) {
  return m.node(name, {a, b}, {DType::bool_, broadcast(m.type(a).sizes, m.type(b).sizes, op.name)});
}

OnnxValue OnnxCall::where(OnnxValue condition, OnnxValue a, OnnxValue b) {
  const Dims both = broadcast(m.type(a).sizes, m.type(b).sizes, op.name);
  return m.node("Where", {condition, a, b},
                {m.type(a).dtype, broadcast(m.type(condition).sizes, both, op.name)});
}

}  // namespace tandem::io
