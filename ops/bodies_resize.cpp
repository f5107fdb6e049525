// Interpolation, axis by axis: the positions of the source as PyTorch computes them (in float32; linear ones
// of float64 in float64), then look-ups, whose gradients are index_add. Cubic: convolution with four points
// (R. Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981; a = -0.75 as in PyTorch).
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr int kCubic = 1, kAlign = 2, kScaled = 3, kScale = 4, kSizes = 7;

/// Source positions moved per position of the result: 1 / scale if given, else the ratio of the sizes, or of
/// the sizes less one where the corners are aligned. A number.
Value step(Body& b, Value x, int axis, int spatial, Value results) {
  Emitter& e = b.e;
  const Value one = e.number(1);
  if (b.integer(kScaled) && !b.integer(kAlign))
    return e.number_op(ScalarOp::div, one, b.number(kScale + spatial));
  Value from = e.count(x, {axis}), to = e.count(results, {0});
  if (b.integer(kAlign)) {
    if (e.type(results).sizes[0] == 1) return e.number(0);
    from = e.number_op(ScalarOp::sub, from, one);
    to = e.number_op(ScalarOp::sub, to, one);
  }
  return e.number_op(ScalarOp::div, from, to);
}

Value looked_up(Emitter& e, Value x, Value at, int axis) {
  return e.call(OpId::index_select, {x, e.cast(at, DType::int64)}, {axis});
}

/// The sum of c[i] t^(3 - i).
Value cubic(Emitter& e, Value t, double c0, double c1, double c2, double c3) {
  const Value bent = e.add(e.mul(t, c0), c1);
  const Value rising = e.add(e.mul(bent, t), c2);
  return e.add(e.mul(rising, t), c3);
}

/// The four positions around `at`, those outside taken to the edges; weights by their distances.
Value cubic_sum(Emitter& e, Value x, Value at, Value last, int axis, const Dims& line) {
  constexpr double a = -0.75;
  const DType type = e.type(x).dtype;
  const Value low = e.floor(at);
  const Value after = e.sub(at, low);
  const Value before = e.sub(1.0, after);
  const Value weights[] = {cubic(e, e.add(after, 1.0), a, -5 * a, 8 * a, -4 * a),
                           cubic(e, after, a + 2, -(a + 3), 0, 1), cubic(e, before, a + 2, -(a + 3), 0, 1),
                           cubic(e, e.add(before, 1.0), a, -5 * a, 8 * a, -4 * a)};
  Value sum;
  for (int k = 0; k < 4; ++k) {
    const Value inside = e.minimum(e.maximum(e.add(low, k - 1.0), 0.0), last);
    const Value weight = e.cast(e.reshape(weights[k], line), type);
    const Value part = e.mul(looked_up(e, x, inside, axis), weight);
    sum = sum ? e.add(sum, part) : part;
  }
  return sum;
}

Value resized(Body& b, Value x, int axis, int spatial, int64_t size) {
  Emitter& e = b.e;
  const bool linear = b.integer(0) != 0 || b.integer(kCubic) != 0;
  const DType type = linear && e.type(x).dtype == DType::float64 ? DType::float64 : DType::float32;
  const Value zero = e.number(0), one = e.number(1);
  const Value i = e.call(OpId::arange, {zero, one}, {static_cast<int64_t>(type), size});
  const Value gap = step(b, x, axis, spatial, i);
  const Value n = e.count(x, {axis});
  const Value last = e.number_op(ScalarOp::sub, n, one);
  if (!linear) return looked_up(e, x, e.minimum(e.floor(e.mul(i, gap)), last), axis);

  Value at = b.integer(kAlign) ? e.mul(i, gap) : e.sub(e.mul(e.add(i, 0.5), gap), 0.5);
  Dims line = Dims::filled(e.type(x).sizes.rank(), 1);
  line[axis] = size;
  if (b.integer(kCubic)) return cubic_sum(e, x, at, last, axis, line);
  at = e.maximum(at, 0.0);
  const Value low = e.minimum(e.floor(at), last);
  const Value high = e.minimum(e.add(low, 1.0), last);
  const Value share = e.minimum(e.sub(at, low), 1.0);
  const Value weight = e.cast(e.reshape(share, line), e.type(x).dtype);
  const Value first = looked_up(e, x, low, axis);
  const Value second = looked_up(e, x, high, axis);
  const Value rest = e.sub(1.0, weight);
  const Value nearer = e.mul(first, rest);
  return e.add(nearer, e.mul(second, weight));
}

}  // namespace

void check::interpolate(const InferCall& call, std::vector<TensorType>& out) {
  const bool cubic = call.integer(kCubic) != 0, linear = cubic || call.integer(0) != 0;
  if (linear)
    need_floating(call, 0);
  else
    need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  const Dims list = call.list(kSizes);
  if (list.empty() || list.size() > 3 || x.sizes.rank() != list.size() + 2)
    fail_call(call, "x must be (N, C) with as many axes behind as there are sizes, 1 to 3; found " +
                        operand_text(call) + " and sizes " + to_string(list));
  if (cubic && list.size() != 2)
    fail_call(call, "cubic interpolation is for two spatial axes; found " + operand_text(call));
  if (call.integer(kAlign) && !linear) fail_call(call, "align_corners is for linear and cubic interpolation");
  Dims sizes = x.sizes;
  for (int i = 0; i < list.size(); ++i) {
    if (list[i] < 1 || sizes[2 + i] < 1)
      fail_call(call, "sizes must be positive, found " + operand_text(call) + " to " + to_string(list));
    sizes[2 + i] = list[i];
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void body::interpolate(Body& b) {
  Emitter& e = b.e;
  const DType type = b.type(0).dtype;
  const bool linear = b.integer(0) != 0 || b.integer(kCubic) != 0;
  Value x = linear ? widen(e, b.in(0)) : b.in(0);
  const Dims sizes = b.list(kSizes);
  for (int i = 0; i < sizes.size(); ++i) x = resized(b, x, 2 + i, i, sizes[i]);
  b.set(e.cast(x, type));
}

}  // namespace tandem::ops
