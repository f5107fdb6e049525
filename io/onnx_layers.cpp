// Products, convolutions, pooling and normalisation.
#include <algorithm>

#include "tandem/io/onnx_ops.h"
#include "tandem/ops/windows.h"

namespace tandem::io {

namespace {

/// Operators of layers take float16, float32 and float64; products int32 and int64 besides.
DType layer_type(DType t) { return onnx_carrier(t); }

std::vector<int64_t> twice(const Dims& d) {
  std::vector<int64_t> v(d.begin(), d.end());
  v.insert(v.end(), d.begin(), d.end());
  return v;
}
std::vector<int64_t> list_of(const Dims& d) { return {d.begin(), d.end()}; }

/// Matrix products as numpy has them.
OnnxValue product(OnnxCall& c, OnnxValue a, OnnxValue b, const Dims& sizes) {
  return c.m.node("MatMul", {a, b}, {c.m.type(a).dtype, sizes});
}

}  // namespace

void onnx_row::matmul(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  c.set(product(c, c.in(0, t), c.in(1, t), c.out_type().sizes));
}

void onnx_row::linear(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  const OnnxValue x = c.in(0, t), weight = c.in(1, t), bias = c.has(2) ? c.in(2, t) : OnnxValue{};
  if (c.sizes(0).rank() == 2 && is_floating(t)) {
    std::vector<OnnxValue> in = {x, weight};
    if (bias) in.push_back(bias);
    return c.set(c.m.node("Gemm", in, c.out_as(t), {{"transB", int64_t{1}}}));
  }
  const OnnxValue y = product(c, x, c.transpose(weight, {1, 0}), c.out_type().sizes);
  c.set(bias ? c.pointwise("Add", {y, bias}) : y);
}

namespace {

/// Those of convolutions; for want of operators on integers an Error there.
OnnxAttributes window_attributes(const OnnxCall& c, std::vector<int64_t> pads) {
  if (!is_floating(c.out_type().dtype)) c.refuse("ONNX has no convolutions of integers");
  std::vector<int64_t> kernel;
  for (int d = 2; d < c.sizes(1).rank(); ++d) kernel.push_back(c.sizes(1)[d]);
  return {{"kernel_shape", kernel},
          {"group", c.integer(0)},
          {"strides", list_of(c.list(2))},
          {"pads", std::move(pads)},
          {"dilations", list_of(c.list(4))}};
}

}  // namespace

void onnx_row::convolution(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  std::vector<OnnxValue> in = {c.in(0, t), c.in(1, t)};
  if (c.has(2)) in.push_back(c.in(2, t));
  c.set(c.m.node("Conv", in, c.out_as(t), window_attributes(c, twice(c.list(3)))));
}

void onnx_row::convolution_input(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  const Dims stride = c.list(2), padding = c.list(3), dilation = c.list(4), more = c.list(5);
  std::vector<OnnxValue> in = {c.in(0, t), c.in(1, t)};
  const int rank = more.rank();
  bool fits = true;  // runtimes take less than a step
  for (int i = 0; i < rank; ++i) fits = fits && more[i] < stride[i];
  if (fits) {
    if (c.has(2)) in.push_back(c.in(2, t));
    OnnxAttributes attributes = window_attributes(c, twice(padding));
    attributes.push_back({"output_padding", list_of(more)});
    return c.set(c.m.node("ConvTranspose", in, c.out_as(t), std::move(attributes)));
  }
  // All windows, without what the padding cuts off, and zeros behind them.
  Dims whole = c.out_type().sizes, kept = whole;
  std::vector<int64_t> from, to, axes, zeros(static_cast<size_t>(2 * (rank + 2)), 0);
  bool none = false;
  for (int i = 0; i < rank; ++i) {
    const int64_t size = whole[2 + i];
    whole[2 + i] = (c.sizes(0)[2 + i] - 1) * stride[i] + dilation[i] * (c.sizes(1)[2 + i] - 1) + 1;
    kept[2 + i] = std::clamp<int64_t>(whole[2 + i] - padding[i], 0, size);
    none = none || kept[2 + i] == 0;
    axes.push_back(2 + i), from.push_back(padding[i]), to.push_back(padding[i] + kept[2 + i]);
    zeros[static_cast<size_t>(rank + 4 + i)] = size - kept[2 + i];
  }
  OnnxValue y = c.expand(c.m.scalar(t, 0.0), c.out_type().sizes);
  if (!none) {
    y = c.m.node("ConvTranspose", in, {t, whole},
                 window_attributes(c, std::vector<int64_t>(zeros.size() - 4, 0)));
    y = c.m.node("Slice", {y, c.m.integers(from), c.m.integers(to), c.m.integers(axes)}, {t, kept});
    y = c.m.node("Pad", {y, c.m.integers(zeros), c.m.scalar(t, 0.0)}, c.out_as(t));
  }
  if (c.has(2)) {
    Dims channels = Dims::filled(rank + 1, 1);
    channels[0] = c.sizes(2)[0];
    y = c.pointwise("Add", {y, c.reshape(c.in(2, t), channels)});
  }
  c.set(y);
}

// A convolution of x with y as its weight, where N is what is summed over, and stride and dilation change
// places: x as (C / groups, groups * N, *in), y as (O, N, *out).
void onnx_row::convolution_weight(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  const Dims x_sizes = c.sizes(0), kernel = c.list(5), stride = c.list(2), padding = c.list(3),
             dilation = c.list(4);
  const int64_t n = x_sizes[0], groups = c.integer(0), each = x_sizes[1] / groups;
  const int rank = kernel.rank();
  if (numel(x_sizes) == 0 || numel(c.sizes(1)) == 0)
    return c.set(c.expand(c.m.scalar(t, 0.0), c.out_type().sizes));
  Dims apart = {n, groups, each}, joined = {each, groups * n}, sizes = {each, c.sizes(1)[1]};
  std::vector<int64_t> turn = {2, 1, 0}, swap = {1, 0}, kernel_shape;
  for (int i = 0; i < rank; ++i) {
    const int64_t in = x_sizes[2 + i], out = c.sizes(1)[2 + i];
    apart.push_back(in), joined.push_back(in);
    turn.push_back(3 + i), swap.push_back(2 + i);
    kernel_shape.push_back(out);
    sizes.push_back((in + 2 * padding[i] - (stride[i] * (out - 1) + 1)) / dilation[i] + 1);
  }
  const OnnxValue x = c.reshape(c.transpose(c.reshape(c.in(0, t), apart), turn), joined);
  if (!is_floating(t)) c.refuse("ONNX has no convolutions of integers");
  OnnxValue w = c.m.node("Conv", {x, c.transpose(c.in(1, t), swap)}, {t, sizes},
                         {{"kernel_shape", kernel_shape},
                          {"group", groups},
                          {"strides", list_of(dilation)},
                          {"pads", twice(padding)},
                          {"dilations", list_of(stride)}});
  // Positions that no window has, since stride does not divide the sizes.
  for (int i = 0; i < rank; ++i) {
    if (sizes[2 + i] == kernel[i]) continue;
    sizes[2 + i] = kernel[i];
    w = c.m.node("Slice", {w, c.m.integers({0}), c.m.integers({kernel[i]}), c.m.integers({2 + i})},
                 {t, sizes});
  }
  c.set(c.transpose(w, swap));
}

// --- Pooling ---

namespace {

/// The spatial axes of a pooling, and what ONNX's poolings say by padding at both ends. Those are of one
/// kernel and stride; adaptive windows that are all alike are such, too.
struct Pooling {
  Pooling(const OnnxCall& c) : windows(ops::windows_of(c.op, c.sizes(0), c.n.words)) {
    for (int i = ops::kMaxSpatial - windows.rank; i < ops::kMaxSpatial; ++i) {
      const ops::WindowAxis& a = windows.axis[i];
      axes.push_back(a);
      const bool even = a.adaptive && a.in % a.out == 0;
      plain = plain && (even || !a.adaptive);
      const int64_t kernel_size = even ? a.in / a.out : a.kernel, step = even ? kernel_size : a.stride;
      const int64_t before = even ? 0 : a.padding;
      const int64_t reach = (a.out - 1) * step + (kernel_size - 1) * a.dilation + 1 - before;
      const int64_t after = std::max(before, reach - a.in);
      // Padding that another window would fit into, or as large as a kernel, is not allowed.
      plain = plain && before < kernel_size && after < kernel_size &&
              (a.in + before + after - ((kernel_size - 1) * a.dilation + 1)) / step + 1 == a.out;
      overhangs = overhangs || after > before;
      kernel.push_back(kernel_size), stride.push_back(step), dilation.push_back(a.dilation);
      begin.push_back(before), end.push_back(after);
    }
  }
  std::vector<int64_t> pads() const {
    std::vector<int64_t> v(begin.begin(), begin.end());
    v.insert(v.end(), end.begin(), end.end());
    return v;
  }

  ops::Windows windows;
  std::vector<ops::WindowAxis> axes;
  bool plain = true, overhangs = false;
  std::vector<int64_t> kernel, stride, dilation, begin, end;
};

/// x with an axis of N, and the sizes of a result that has one.
OnnxValue batched(OnnxCall& c, const Pooling& p, OnnxValue x, Dims* out) {
  *out = c.out_type().sizes;
  if (out->rank() > p.windows.rank + 1) return x;
  out->insert(0, 1);
  Dims sizes = c.m.type(x).sizes;
  sizes.insert(0, 1);
  return c.reshape(x, sizes);
}

/// Positions (row-major in the plane) of each window, as many for each: the first one stands again for those
/// that are missing.
std::vector<std::vector<int64_t>> positions(const ops::Windows& w) {
  std::vector<std::vector<int64_t>> all;
  size_t most = 0;
  for (int64_t o = 0; o < w.out_plane(); ++o) {
    const ops::WindowAxis::Range rows = w.axis[0].positions(o / w.axis[1].out);
    const ops::WindowAxis::Range columns = w.axis[1].positions(o % w.axis[1].out);
    std::vector<int64_t>& at = all.emplace_back();
    for (int64_t i = rows.first; i < rows.end; i += w.axis[0].dilation)
      for (int64_t j = columns.first; j < columns.end; j += w.axis[1].dilation)
        at.push_back(i * w.axis[1].in + j);
    most = std::max(most, at.size());
  }
  for (std::vector<int64_t>& at : all) at.resize(most, at.empty() ? 0 : at[0]);
  return all;
}

/// x with each plane as one axis.
OnnxValue flat_planes(OnnxCall& c, const Pooling& p, OnnxValue x, int64_t plane) {
  Dims sizes = c.m.type(x).sizes;
  sizes.resize(sizes.rank() - p.windows.rank);
  sizes.push_back(plane);
  return c.reshape(x, sizes);
}

/// A constant of each window, of the spatial sizes that a pooling gives: get(o).
template <class Get>
OnnxValue of_windows(OnnxCall& c, const Pooling& p, Get get) {
  std::vector<double> values;
  for (int64_t o = 0; o < p.windows.out_plane(); ++o) values.push_back(static_cast<double>(get(o)));
  Dims sizes;
  for (const ops::WindowAxis& a : p.axes) sizes.push_back(a.out);
  return c.m.constant({DType::int64, sizes}, values);
}

/// How max_pool counts places in a window: from these rows and columns, so far apart.
struct Places {
  Places(OnnxCall& c, const Pooling& p)
      : row(of_windows(c, p, [&](int64_t o) { return p.windows.axis[0].positions(o / columns(p)).first; })),
        column(
            of_windows(c, p, [&](int64_t o) { return p.windows.axis[1].positions(o % columns(p)).first; })),
        down(number(c, p.windows.axis[0].dilation)),
        right(number(c, p.windows.axis[1].dilation)),
        width(number(c, p.windows.axis[1].widest())),
        in(number(c, std::max<int64_t>(1, p.windows.axis[1].in))) {}
  static int64_t columns(const Pooling& p) { return p.windows.axis[1].out; }
  static OnnxValue number(OnnxCall& c, int64_t n) { return c.m.scalar(DType::int64, n); }

  OnnxValue row, column, down, right, width, in;
};

/// Positions in the plane, as the second result of max_pool has them.
OnnxValue places(OnnxCall& c, const Pooling& p, OnnxValue at) {
  if (c.out_type(1).dtype != DType::uint8) return at;
  const Places k(c, p);
  const OnnxValue row = c.pointwise("Div", {at, k.in}), column = c.pointwise("Mod", {at, k.in});
  const OnnxValue below = c.pointwise("Sub", {row, k.row}), behind = c.pointwise("Sub", {column, k.column});
  const OnnxValue y = c.pointwise("Div", {below, k.down}), x = c.pointwise("Div", {behind, k.right});
  const OnnxValue before = c.pointwise("Mul", {y, k.width});
  return c.pointwise("Add", {before, x});
}

/// The reverse: positions in the plane of operand 1.
OnnxValue plane_positions(OnnxCall& c, const Pooling& p) {
  const OnnxValue at = c.in(1, DType::int64);
  if (c.type(1).dtype != DType::uint8) return at;
  const Places k(c, p);
  const OnnxValue y = c.pointwise("Div", {at, k.width}), x = c.pointwise("Mod", {at, k.width});
  const OnnxValue below = c.pointwise("Mul", {y, k.down}), behind = c.pointwise("Mul", {x, k.right});
  const OnnxValue row = c.pointwise("Add", {below, k.row}), column = c.pointwise("Add", {behind, k.column});
  const OnnxValue before = c.pointwise("Mul", {row, k.in});
  return c.pointwise("Add", {before, column});
}

/// Any windows: gathered, so that each is a row, of which ArgMax finds the first largest element.
void gathered_maxima(OnnxCall& c, const Pooling& p, OnnxValue x) {
  const std::vector<std::vector<int64_t>> windows = positions(p.windows);
  const auto n = static_cast<int64_t>(windows.size());
  const auto each = static_cast<int64_t>(windows.empty() ? 0 : windows[0].size());
  std::vector<double> list, first;
  for (const std::vector<int64_t>& w : windows) {
    first.push_back(static_cast<double>(list.size()));
    list.insert(list.end(), w.begin(), w.end());
  }
  Dims lead = c.sizes(0), rows, flat;
  lead.resize(lead.rank() - p.windows.rank);
  rows = flat = lead;
  rows.push_back(p.windows.in_plane());
  const OnnxValue table = c.m.constant({DType::int64, {n * each}}, list);
  flat.push_back(n * each);
  const int64_t axis = lead.rank();
  OnnxValue seen =
      c.m.node("Gather", {c.reshape(x, rows), table}, {c.m.type(x).dtype, flat}, {{"axis", axis}});
  Dims apart = lead, found = lead;
  apart.push_back(n), apart.push_back(each);
  found.push_back(n);
  seen = c.reshape(seen, apart);
  const OnnxValue which =
      c.m.node("ArgMax", {seen}, {DType::int64, found}, {{"axis", axis + 1}, {"keepdims", int64_t{0}}});
  const OnnxValue at = c.pointwise("Add", {which, c.m.constant({DType::int64, {n}}, first)});
  const OnnxValue y = c.m.node("Gather", {table, at}, {DType::int64, found}, {{"axis", int64_t{0}}});
  const OnnxValue best =
      c.m.node("GatherElements", {c.reshape(x, rows), y}, {c.m.type(x).dtype, found}, {{"axis", axis}});
  c.set(c.reshape(best, c.out_type().sizes));
  c.set(places(c, p, c.reshape(y, c.out_type(1).sizes)), 1);
}

}  // namespace

// MaxPool counts positions over the whole of x; here they are those of a plane.
void onnx_row::max_pool(OnnxCall& c) {
  const DType own = c.type(0).dtype;
  const Pooling p(c);
  const DType t = is_floating(own) ? layer_type(own) : onnx_carrier(own);
  if (!p.plain || !is_floating(own)) return gathered_maxima(c, p, c.in(0, t));
  Dims sizes;
  const OnnxValue x = batched(c, p, c.in(0, t), &sizes);
  OnnxValue out[2];
  c.m.nodes(
      "MaxPool", {x}, {{t, sizes}, {DType::int64, sizes}}, out,
      {{"kernel_shape", p.kernel}, {"strides", p.stride}, {"pads", p.pads()}, {"dilations", p.dilation}}, 1);
  c.set(c.reshape(out[0], c.out_type().sizes));
  const OnnxValue plane = c.m.scalar(DType::int64, std::max<int64_t>(1, p.windows.in_plane()));
  const OnnxValue at = c.pointwise("Mod", {out[1], plane});
  c.set(places(c, p, c.reshape(at, c.out_type(1).sizes)), 1);
}

void onnx_row::max_pool_backward(OnnxCall& c) {
  const Pooling p(c);
  const DType own = layer_type(c.out_type().dtype), t = own == DType::float16 ? DType::float32 : own;
  const OnnxValue from = flat_planes(c, p, c.in(0, t), p.windows.out_plane());
  const OnnxValue at = flat_planes(c, p, plane_positions(c, p), p.windows.out_plane());
  Dims sizes = c.out_type().sizes;
  sizes.resize(sizes.rank() - p.windows.rank);
  sizes.push_back(p.windows.in_plane());
  const OnnxValue zeros = c.expand(c.m.scalar(t, 0.0), sizes);
  const OnnxValue y = c.m.node("ScatterElements", {zeros, at, from}, {t, sizes},
                               {{"axis", int64_t{sizes.rank() - 1}}, {"reduction", std::string("add")}});
  c.set(c.reshape(y, c.out_type().sizes));
}

void onnx_row::max_pool_pick(OnnxCall& c) {
  const Pooling p(c);
  const OnnxValue from = flat_planes(c, p, c.in(0), p.windows.in_plane());
  const OnnxValue at = flat_planes(c, p, plane_positions(c, p), p.windows.out_plane());
  const Dims sizes = c.m.type(at).sizes;
  const OnnxValue y = c.m.node("GatherElements", {from, at}, {c.m.type(from).dtype, sizes},
                               {{"axis", int64_t{sizes.rank() - 1}}});
  c.set(c.reshape(y, c.out_type().sizes));
}

namespace {

/// What positions of an axis count in its windows, (out, in) or (in, out): the mean of a window of two axes
/// is that of one axis after the other.
OnnxValue shares(OnnxCall& c, const ops::WindowAxis& a, bool transposed, DType t, double divisor) {
  const bool counted = c.integer(2) != 0;
  std::vector<double> shares(static_cast<size_t>(a.in * a.out), 0);
  for (int64_t o = 0; o < a.out; ++o) {
    const ops::WindowAxis::Range r = a.positions(o);
    const int64_t first = std::max<int64_t>(r.first, 0);
    const double by = divisor != 0 ? divisor : static_cast<double>(counted ? r.size : r.end - first);
    for (int64_t i = first; i < r.end; ++i)
      shares[static_cast<size_t>(transposed ? i * a.out + o : o * a.in + i)] = 1 / by;
  }
  const Dims sizes = transposed ? Dims{a.in, a.out} : Dims{a.out, a.in};
  return c.m.constant({t, sizes}, shares);
}

void means(OnnxCall& c, const Pooling& p, bool backward) {
  const DType t = layer_type(c.out_type().dtype);
  OnnxValue x = c.in(0, t);
  const auto divisor = static_cast<double>(c.integer(3));
  const auto last = static_cast<size_t>(p.windows.rank - 1);
  Dims sizes = c.sizes(0);
  sizes[sizes.rank() - 1] = backward ? p.axes[last].in : p.axes[last].out;
  x = product(c, x, shares(c, p.axes[last], !backward, t, divisor), sizes);
  if (last > 0)
    x = product(c, shares(c, p.axes[0], backward, t, divisor != 0 ? 1 : 0), x, c.out_type().sizes);
  c.set(x);
}

}  // namespace

void onnx_row::avg_pool(OnnxCall& c) {
  const Pooling p(c);
  if (!p.plain || p.overhangs || c.integer(3) != 0) return means(c, p, false);
  const DType t = layer_type(c.out_type().dtype);
  Dims sizes;
  const OnnxValue x = batched(c, p, c.in(0, t), &sizes);
  const OnnxValue y = c.m.node("AveragePool", {x}, {t, sizes},
                               {{"kernel_shape", p.kernel},
                                {"strides", p.stride},
                                {"pads", p.pads()},
                                {"count_include_pad", int64_t{c.integer(2) != 0}}});
  c.set(c.reshape(y, c.out_type().sizes));
}

void onnx_row::avg_pool_backward(OnnxCall& c) { means(c, Pooling(c), true); }

// --- Normalisation ---

void onnx_row::softmax(OnnxCall& c) {
  const DType own = c.out_type().dtype, t = layer_type(own);
  const OnnxValue x = c.in(0, t);
  if (c.sizes(0).empty()) return c.set(c.m.scalar(own, c.text[0] == 'S' ? 1.0 : 0.0));
  c.set(c.m.node(c.text, {x}, c.out_as(t), {{"axis", c.axis(0)}}));
}

namespace {
/// Operand i, or ones or zeros.
OnnxValue or_filled(OnnxCall& c, size_t i, DType t, const Dims& sizes, double value) {
  if (c.has(i)) return c.in(i, t);
  return c.m.constant({t, sizes}, std::vector<double>(static_cast<size_t>(numel(sizes)), value));
}
}  // namespace

void onnx_row::layer_norm(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  const int64_t rank = c.integer(1);
  Dims rows;
  for (auto d = c.sizes(0).rank() - static_cast<int>(rank); d < c.sizes(0).rank(); ++d)
    rows.push_back(c.sizes(0)[d]);
  std::vector<OnnxValue> in = {c.in(0, t), or_filled(c, 1, t, rows, 1)};
  if (c.has(2)) in.push_back(c.in(2, t));
  const OnnxType statistics = {DType::float32, c.out_type(1).sizes};
  OnnxValue out[3];
  c.m.nodes("LayerNormalization", in, {c.out_as(t), statistics, statistics}, out,
            {{"axis", -rank}, {"epsilon", static_cast<float>(c.floating(0))}}, 1);
  for (size_t j = 0; j < 3; ++j) c.set(out[j], j);
}

// With the statistics given; operands are x, mean, variance, weight and bias.
void onnx_row::batch_norm(OnnxCall& c) {
  const DType t = layer_type(c.out_type().dtype);
  const Dims channels = {c.sizes(0)[1]};
  const OnnxValue weight = or_filled(c, 3, t, channels, 1), bias = or_filled(c, 4, t, channels, 0);
  c.set(c.m.node("BatchNormalization", {c.in(0, t), weight, bias, c.in(1, t), c.in(2, t)}, c.out_as(t),
                 {{"epsilon", static_cast<float>(c.floating(0))}}));
}

}  // namespace tandem::io
