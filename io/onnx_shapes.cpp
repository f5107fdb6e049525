// Views, joining, access by index, fills, scans and reductions. Sizes are known, so shapes are constants.
#include <algorithm>

#include "tandem/io/onnx_ops.h"
#include "tandem/ops/windows.h"

namespace tandem::io {

namespace {

/// Accumulating operators lack halves here and there; those of Tandem accumulate in float32.
DType accumulator(DType t) {
  if (is_floating(t)) return t == DType::float64 ? t : DType::float32;
  return DType::int64;
}

Dims without_axes(const Dims& sizes, const Dims& axes, bool keepdim) {
  Dims left;
  for (int i = 0; i < sizes.rank(); ++i) {
    const bool gone = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (gone && !keepdim) continue;
    left.push_back(gone ? 1 : sizes[i]);
  }
  return left;
}

}  // namespace

// --- Reductions ---

void onnx_row::reduction(OnnxCall& c) {
  const Dims listed = c.list(1);
  const Dims axes = ops::normalize_axes(listed, c.sizes(0).rank(), c.op.name, c.n.where);
  const bool keepdim = c.integer(0) != 0, sums = c.op.id == ops::OpId::sum;
  const DType own = c.type(0).dtype;
  const bool picks = c.op.id == ops::OpId::amax || c.op.id == ops::OpId::amin;
  const DType t = picks ? onnx_carrier(own) : accumulator(own);
  const OnnxValue x = c.in(0, t);
  if (axes.empty()) return c.set(x);
  const OnnxType type{t, without_axes(c.sizes(0), axes, keepdim)};
  OnnxAttributes attributes = {{"keepdims", int64_t{keepdim}}};
  std::vector<OnnxValue> in = {x};
  const std::vector<int64_t> list(axes.begin(), axes.end());
  if (sums)
    in.push_back(c.m.integers(list));
  else
    attributes.push_back({"axes", list});
  c.set(c.m.node(c.text, in, type, std::move(attributes)));
}

void onnx_row::arg_reduction(OnnxCall& c) {
  const Dims listed = c.list(1);
  const bool keepdim = c.integer(0) != 0;
  OnnxValue x = c.in(0, onnx_carrier(c.type(0).dtype));
  if (c.sizes(0).empty()) return c.set(c.m.scalar(DType::int64, int64_t{0}));
  int64_t axis = 0;
  if (listed.empty())
    x = c.reshape(x, {numel(c.sizes(0))});
  else
    axis = normalize_axis(listed[0], c.sizes(0).rank(), c.op.name, c.n.where);
  const bool kept = keepdim && !listed.empty();
  const OnnxValue y = c.m.node(c.text, {x}, {DType::int64, without_axes(c.m.type(x).sizes, {axis}, kept)},
                               {{"axis", axis}, {"keepdims", int64_t{kept}}});
  c.set(c.reshape(y, c.out_type().sizes));
}

// --- Views ---

void onnx_row::reshape(OnnxCall& c) { c.set(c.reshape(c.in(0), c.out_type().sizes)); }
void onnx_row::expand(OnnxCall& c) { c.set(c.expand(c.in(0), c.out_type().sizes)); }

void onnx_row::permute(OnnxCall& c) {
  std::vector<int64_t> axes;
  for (const int64_t a : c.list(0))
    axes.push_back(normalize_axis(a, c.sizes(0).rank(), c.op.name, c.n.where));
  c.set(c.transpose(c.in(0), axes));
}

void onnx_row::slice(OnnxCall& c) {
  const int64_t axis = c.axis(0), n = c.sizes(0)[static_cast<int>(axis)];
  const auto clamped = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + n : at, 0, n); };
  const int64_t start = clamped(c.integer(1)), end = std::max(start, clamped(c.integer(2)));
  c.set(c.m.node("Slice",
                 {c.in(0), c.m.integers({start}), c.m.integers({end}), c.m.integers({axis}),
                  c.m.integers({c.integer(3)})},
                 c.out_as(c.type(0).dtype)));
}

void onnx_row::select(OnnxCall& c) {
  const int64_t axis = c.axis(0), index = c.integer(1);
  const int64_t at = index < 0 ? index + c.sizes(0)[static_cast<int>(axis)] : index;
  c.set(c.m.node("Gather", {c.in(0), c.m.scalar(DType::int64, at)}, c.out_as(c.type(0).dtype),
                 {{"axis", axis}}));
}

void onnx_row::unsqueeze(OnnxCall& c) {
  const int64_t axis = normalize_axis(c.integer(0), c.out_type().sizes.rank(), c.op.name, c.n.where);
  c.set(c.m.node("Unsqueeze", {c.in(0), c.m.integers({axis})}, c.out_as(c.type(0).dtype)));
}

void onnx_row::squeeze(OnnxCall& c) {
  const Dims sizes = c.sizes(0), listed = c.list(0);
  std::vector<int64_t> axes;
  for (int i = 0; i < sizes.rank(); ++i) {
    bool meant = listed.empty();
    for (const int64_t a : listed) meant = meant || normalize_axis(a, sizes.rank(), c.op.name) == i;
    if (meant && sizes[i] == 1) axes.push_back(i);
  }
  if (axes.empty()) return c.set(c.in(0));
  c.set(c.m.node("Squeeze", {c.in(0), c.m.integers(axes)}, c.out_as(c.type(0).dtype)));
}

// By a list of positions, as long as the result.
void onnx_row::any_view(OnnxCall& c) {
  const Dims sizes = c.sizes(0);
  const bool present = true;
  const ops::InferCall call{c.op, {&c.type(0), 1}, {&present, 1}, c.n.words, c.n.where};
  const ops::Layout to = c.op.view(call, {sizes, contiguous_strides(sizes), 0});
  std::vector<double> positions(static_cast<size_t>(numel(to.sizes)));
  for (size_t k = 0; k < positions.size(); ++k) {
    int64_t at = to.offset, rest = static_cast<int64_t>(k);
    for (int d = to.sizes.rank() - 1; d >= 0; --d) {
      at += rest % to.sizes[d] * to.strides[d];
      rest /= to.sizes[d];
    }
    positions[k] = static_cast<double>(at);
  }
  const OnnxValue flat = c.reshape(c.in(0), {numel(sizes)});
  const OnnxValue index = c.m.constant({DType::int64, to.sizes}, positions);
  c.set(c.m.node("Gather", {flat, index}, c.out_as(c.type(0).dtype), {{"axis", int64_t{0}}}));
}

// --- Fills ---

void onnx_row::full(OnnxCall& c) {
  const OnnxNumber v = c.number(1);
  const DType t = c.out_type().dtype;
  const OnnxValue one = is_floating(t) ? c.m.scalar(t, v.floating()) : c.m.scalar(t, v.integer(t));
  c.set(c.expand(one, c.out_type().sizes));
}

// arange and linspace: their elements, by their formulas in ops/random.def.
void onnx_row::fill(OnnxCall& c) {
  const bool line = c.op.id == ops::OpId::linspace;
  const DType t = c.out_type().dtype;
  const double start = c.floating(2), step = c.floating(line ? 4 : 3);
  const double end = line ? c.floating(3) : 0, last = line ? c.floating(5) : 0;
  std::vector<double> values(static_cast<size_t>(numel(c.out_type().sizes)));
  for (size_t k = 0; k < values.size(); ++k) {
    const auto i = static_cast<double>(k);
    values[k] = line && i + i >= last ? end - step * (last - i) : start + i * step;
    if (!is_floating(t)) values[k] = static_cast<double>(OnnxNumber::of(values[k]).integer(t));
  }
  c.set(c.m.constant(c.out_as(t), values));
}

// --- Joining and access by index ---

void onnx_row::cat(OnnxCall& c) {
  const DType t = c.out_type().dtype;
  std::vector<OnnxValue> parts;
  for (size_t i = 0; i < c.n_in(); ++i) parts.push_back(c.in(i, t));
  c.set(c.m.node("Concat", parts, c.out_as(t), {{"axis", c.axis(0)}}));
}

void onnx_row::pad(OnnxCall& c) {
  const int rank = c.sizes(0).rank();
  std::vector<int64_t> pads(static_cast<size_t>(2 * rank), 0);
  pads[static_cast<size_t>(c.axis(0))] = c.integer(1);
  pads[static_cast<size_t>(c.axis(0) + rank)] = c.integer(2);
  const DType t = c.type(0).dtype;
  c.set(c.m.node("Pad", {c.in(0), c.m.integers(pads), c.m.scalar(t, 0.0)}, c.out_as(t)));
}

void onnx_row::index_select(OnnxCall& c) {
  const bool rows = c.op.id == ops::OpId::embedding;
  c.set(c.m.node("Gather", {c.in(0), c.in(1)}, c.out_as(c.type(0).dtype),
                 {{"axis", rows ? int64_t{0} : c.axis(0)}}));
}

void onnx_row::gather(OnnxCall& c) {
  c.set(c.m.node("GatherElements", {c.in(0), c.in(1)}, c.out_as(c.type(0).dtype), {{"axis", c.axis(0)}}));
}

void onnx_row::scatter(OnnxCall& c) {
  const bool adds = c.text[0] != 0,
             rows = c.op.id == ops::OpId::index_add || c.op.id == ops::OpId::index_copy;
  const DType own = c.out_type().dtype,
              t = adds && own == DType::float16 ? DType::float32 : onnx_carrier(own);
  OnnxValue index = c.in(1);
  const Dims source = c.sizes(2);
  if (rows && !source.empty()) {
    Dims along = Dims::filled(source.rank(), 1);
    along[static_cast<int>(c.axis(0))] = c.sizes(1).empty() ? 1 : c.sizes(1)[0];
    index = c.expand(c.reshape(index, along), source);
  }
  OnnxAttributes attributes = {{"axis", c.axis(0)}};
  if (adds) attributes.push_back({"reduction", std::string(c.text)});
  c.set(c.m.node("ScatterElements", {c.in(0, t), index, c.in(2, t)}, c.out_as(t), std::move(attributes)));
}

// --- Scans ---

void onnx_row::cumsum(OnnxCall& c) {
  const DType t = accumulator(c.type(0).dtype);
  const OnnxValue x = c.in(0, t);
  if (c.sizes(0).empty()) return c.set(x);
  c.set(c.m.node("CumSum", {x, c.m.scalar(DType::int64, c.axis(0))}, c.out_as(t),
                 {{"reverse", int64_t{c.integer(1) != 0}}}));
}

// Of equal elements TopK takes the one with the lower index first, as stable sorting does.
void onnx_row::argsort(OnnxCall& c) {
  if (c.sizes(0).empty()) return c.set(c.m.scalar(DType::int64, int64_t{0}));
  const DType own = c.type(0).dtype, t = own == DType::float16 ? DType::float32 : onnx_carrier(own);
  const int64_t axis = c.axis(0);
  OnnxValue out[2];
  c.m.nodes(
      "TopK",
      {c.in(0, t), c.m.integers({c.integer(2) < 0 ? c.sizes(0)[static_cast<int>(axis)] : c.integer(2)})},
      {c.out_as(t), c.out_as(DType::int64)}, out,
      {{"axis", axis}, {"largest", int64_t{c.integer(1) != 0}}, {"sorted", int64_t{1}}});
  c.set(out[1]);
}

}  // namespace tandem::io
