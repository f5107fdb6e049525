// Bodies and gradients of reductions that are composites, of softmax, normalisation, gelu and dropout, and of
// small helpers. Halves are widened to float32 first and rounded once at the end.
#include <numbers>

#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

Dims all_axes_of(const Body& b, int list) {
  return normalize_axes(b.list(list), b.type(0).sizes.rank(), b.op.name, b.e.location);
}

Dims one_axis(Emitter& e, int64_t axis, const TensorType& t, const char* op) {
  if (t.sizes.empty()) return {};
  return {normalize_axis(axis, t.sizes.rank(), op, e.location)};
}

/// 1 / (1 - p)
Value dropout_scale(Emitter& e, Value p) {
  const Value one = e.number(1);
  const Value kept = e.number_op(ScalarOp::sub, one, p);
  return e.number_op(ScalarOp::div, one, kept);
}

Value variance(Emitter& e, Value centered, const Dims& axes, bool keepdim, Value divisor) {
  const Value squares = e.sum(e.square(centered), axes, keepdim);
  return e.div(squares, divisor);
}

// The normalised rows of layer_norm and what they are made of.
struct Normalised {
  Dims axes;
  Value mean, rstd;
  Value x;  // x - mean, times rstd
};

Dims last_axes(Emitter& e, Value x, int64_t rank) {
  Dims axes;
  const int total = e.type(x).sizes.rank();
  for (auto i = total - static_cast<int>(rank); i < total; ++i) axes.push_back(i);
  return axes;
}

Normalised normalise(Emitter& e, Value x, int64_t rank, Value eps) {
  Normalised n;
  n.axes = last_axes(e, x, rank);
  const Value wide = widen(e, x);
  n.mean = e.mean(wide, n.axes, true);
  const Value centered = e.sub(wide, n.mean);
  const Value count = e.count(wide, n.axes);
  const Value var = variance(e, centered, n.axes, true, count);
  n.rstd = e.rsqrt(e.add(var, eps));
  n.x = e.mul(centered, n.rstd);
  return n;
}

/// The same from statistics that are known.
Normalised normalised(Emitter& e, Value x, int64_t rank, Value mean, Value rstd) {
  const Value centered = e.sub(widen(e, x), mean);
  return {last_axes(e, x, rank), mean, rstd, e.mul(centered, rstd)};
}

/// The gradient of rows x from h, that of their normalised form xhat, and from those of their mean and rstd,
/// where there are any: rstd * (h - mean(h) - xhat * mean(h * xhat)); 1 / n of the mean's; -rstd^2 xhat / n
/// of the other, since rstd is (var(x) + eps)^(-1/2).
Value pulled_back(Emitter& e, const Normalised& n, Value h, Value to_mean, Value to_rstd) {
  Value dx;
  const auto add = [&](Value more) { dx = dx ? e.add(dx, more) : more; };
  if (h) {
    const Value mean = e.mean(h, n.axes, true);
    const Value along = e.mean(e.mul(h, n.x), n.axes, true);
    const Value projected = e.mul(n.x, along);
    const Value centered = e.sub(h, mean);
    const Value rest = e.sub(centered, projected);
    add(e.mul(rest, n.rstd));
  }
  const Value count = e.count(n.x, n.axes);
  if (to_rstd) {
    const Value slope = e.mul(to_rstd, e.neg(e.square(n.rstd)));
    add(e.mul(n.x, e.div(slope, count)));
  }
  if (to_mean) add(e.expand(e.div(to_mean, count), e.type(n.x).sizes));
  return dx;
}

}  // namespace

Value dropped(Emitter& e, Value x, Value p, Value seed, Value offset) {
  const Dims sizes = e.type(x).sizes;
  std::vector<int64_t> words = {sizes.size()};
  words.insert(words.end(), sizes.begin(), sizes.end());
  const Value mask = e.call(OpId::bernoulli_mask, {p, seed, offset}, words);
  const Value scaled = e.mul(x, dropout_scale(e, p));
  return e.where(mask, scaled, 0.0);
}

Value widen(Emitter& e, Value a) {
  const DType t = e.type(a).dtype;
  return t == DType::float16 || t == DType::bfloat16 ? e.cast(a, DType::float32) : a;
}

Value variance_divisor(Emitter& e, Value x, const Dims& axes, int64_t correction) {
  const Value n = e.count(x, axes);
  const Value less = e.number(static_cast<double>(correction));
  const Value left = e.number_op(ScalarOp::sub, n, less);
  const Value zero = e.number(0);
  return e.number_op(ScalarOp::max, left, zero);
}

Value below_max(Emitter& e, Value x, const Dims& axes) {
  for (const int64_t a : axes)
    if (e.type(x).sizes[static_cast<int>(a)] == 0) return x;
  return e.sub(x, e.amax(x, axes, true));
}

void body::mean(Body& b) {
  const Dims axes = all_axes_of(b, 1);
  const Value x = widen(b.e, b.in(0));
  const Value total = b.e.sum(x, axes, b.integer(0) != 0);
  const Value mean = b.e.div(total, b.e.count(x, axes));
  b.set(b.e.cast(mean, b.type(0).dtype));
}

void body::var(Body& b) {
  Emitter& e = b.e;
  const Dims axes = all_axes_of(b, 2);
  const Value x = widen(e, b.in(0));
  const Value centered = e.sub(x, e.mean(x, axes, true));
  // The mean is rounded: what is left of the distances' sum is its error, whose square is taken off (Chan,
  // Golub and LeVeque, 1983).
  const bool keepdim = b.integer(1) != 0;
  const Value squares = e.sum(e.square(centered), axes, keepdim), left = e.sum(centered, axes, keepdim);
  const Value error = e.div(e.square(left), e.count(x, axes));
  const Value sum = e.maximum(e.sub(squares, error), 0.0);
  b.set(e.cast(e.div(sum, variance_divisor(e, x, axes, b.integer(0))), b.type(0).dtype));
}

void body::any(Body& b) {
  const Value hits = b.e.sum(b.e.cast(b.in(0), DType::bool_), all_axes_of(b, 1), b.integer(0) != 0);
  b.set(b.e.cast(hits, DType::bool_));
}

void body::all(Body& b) {
  const Value misses = b.e.sum(b.e.logical_not(b.in(0)), all_axes_of(b, 1), b.integer(0) != 0);
  b.set(b.e.logical_not(misses));
}

void body::softmax(Body& b) {
  Emitter& e = b.e;
  const Dims axis = one_axis(e, b.integer(0), b.type(0), b.op.name);
  const Value x = widen(e, b.in(0));
  const Value shifted = below_max(e, x, axis);
  const Value powers = e.exp(shifted);
  const Value y = e.div(powers, e.sum(powers, axis, true));
  b.set(e.cast(y, b.type(0).dtype));
}

// y * (g - sum(g * y))
void gradient::softmax(Gradient& r) {
  Emitter& e = r.e;
  const Dims axis = one_axis(e, r.integer(0), r.in_type(0), r.op.name);
  const Value y = widen(e, r.out());
  const Value g = widen(e, r.grad());
  const Value mean = e.sum(e.mul(g, y), axis, true);
  const Value centered = e.sub(g, mean);
  r.set(0, e.cast(e.mul(y, centered), r.in_type(0).dtype));
}

void body::log_softmax(Body& b) {
  Emitter& e = b.e;
  const Dims axis = one_axis(e, b.integer(0), b.type(0), b.op.name);
  const Value x = widen(e, b.in(0));
  const Value shifted = below_max(e, x, axis);
  const Value total = e.sum(e.exp(shifted), axis, true);
  b.set(e.cast(e.sub(shifted, e.log(total)), b.type(0).dtype));
}

// g - exp(y) * sum(g)
void gradient::log_softmax(Gradient& r) {
  Emitter& e = r.e;
  const Dims axis = one_axis(e, r.integer(0), r.in_type(0), r.op.name);
  const Value g = widen(e, r.grad());
  const Value total = e.sum(g, axis, true);
  const Value p = e.exp(widen(e, r.out()));
  const Value pulled = e.mul(p, total);
  r.set(0, e.cast(e.sub(g, pulled), r.in_type(0).dtype));
}

void body::layer_norm(Body& b) {
  Emitter& e = b.e;
  const Normalised n = normalise(e, b.in(0), b.integer(1), b.number(0));
  Value y = n.x;
  if (b.in(1)) y = e.mul(y, widen(e, b.in(1)));
  if (b.in(2)) y = e.add(y, widen(e, b.in(2)));
  b.set(e.cast(y, b.type(0).dtype));
  b.set(n.mean, 1);
  b.set(n.rstd, 2);
}

void gradient::layer_norm(Gradient& r) {
  Emitter& e = r.e;
  const Value g = r.grad(0) ? widen(e, r.grad(0)) : Value{};
  Normalised n;
  if (r.needs(0) || (g && r.needs(1))) n = normalised(e, r.in(0), r.integer(1), r.out(1), r.out(2));
  if (r.needs(0)) {
    const Value h = g && r.in(1) ? e.mul(g, widen(e, r.in(1))) : g;
    r.set(0, e.cast(pulled_back(e, n, h, r.grad(1), r.grad(2)), r.in_type(0).dtype));
  }
  if (g && r.needs(1)) {
    const Value total = e.sum_to(e.mul(g, n.x), r.in_type(1).sizes);
    r.set(1, e.cast(total, r.in_type(1).dtype));
  }
  if (g && r.needs(2)) {
    const Value total = e.sum_to(g, r.in_type(2).sizes);
    r.set(2, e.cast(total, r.in_type(2).dtype));
  }
}

void body::rms_norm(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0));
  const Value mean = e.mean(e.square(x), last_axes(e, x, b.integer(1)), true);
  Value y = e.mul(x, e.rsqrt(e.add(mean, b.number(0))));
  if (b.in(1)) y = e.mul(y, widen(e, b.in(1)));
  b.set(e.cast(y, b.type(0).dtype));
}

Value per_channel(Emitter& e, Value v, int rank) {
  Dims sizes = Dims::filled(rank - 1, 1);
  sizes[0] = e.type(v).sizes[0];
  return e.reshape(widen(e, v), sizes);
}

namespace {

/// y * weight + bias of operands `first` and `first` + 1, if there.
void set_scaled(Body& b, Value y, int first) {
  const int rank = b.type(0).sizes.rank();
  if (b.in(first)) y = b.e.mul(y, per_channel(b.e, b.in(first), rank));
  if (b.in(first + 1)) y = b.e.add(y, per_channel(b.e, b.in(first + 1), rank));
  b.set(b.e.cast(y, b.type(0).dtype));
}

Dims group_rows(const Dims& sizes, int64_t groups) {
  int64_t rest = sizes[1] / groups;
  for (int i = 2; i < sizes.rank(); ++i) rest *= sizes[i];
  return {sizes[0], groups, rest};
}

}  // namespace

// The groups as rows (N, groups, channels and positions), normalised as by layer_norm.
void body::group_norm(Body& b) {
  Emitter& e = b.e;
  const Dims sizes = b.type(0).sizes, groups = {sizes[0], b.integer(1)};
  const Value rows = e.reshape(b.in(0), group_rows(sizes, b.integer(1)));
  const Normalised n = normalise(e, rows, 1, b.number(0));
  set_scaled(b, e.reshape(n.x, sizes), 1);
  b.set(e.reshape(n.mean, groups), 1);
  b.set(e.reshape(n.rstd, groups), 2);
}

void gradient::group_norm(Gradient& r) {
  Emitter& e = r.e;
  const Dims sizes = r.in_type(0).sizes;
  const Value g = r.grad(0) ? widen(e, r.grad(0)) : Value{};
  if (g && r.needs(2)) r.set(2, e.cast(channel_sum(e, g), r.in_type(2).dtype));
  if (!r.needs(0) && !(g && r.needs(1))) return;
  const Dims rows = group_rows(sizes, r.integer(1));
  const auto beside_rows = [&](Value v) { return v ? e.unsqueeze(v, 2) : v; };
  const Normalised n =
      normalised(e, e.reshape(r.in(0), rows), 1, beside_rows(r.out(1)), beside_rows(r.out(2)));
  if (r.needs(0)) {
    const Value scaled = g && r.in(1) ? e.mul(g, per_channel(e, r.in(1), sizes.rank())) : g;
    const Value h = g ? e.reshape(scaled, rows) : g;
    const Value dx = pulled_back(e, n, h, beside_rows(r.grad(1)), beside_rows(r.grad(2)));
    r.set(0, e.cast(e.reshape(dx, sizes), r.in_type(0).dtype));
  }
  if (g && r.needs(1)) {
    const Value along = e.mul(g, e.reshape(n.x, sizes));
    r.set(1, e.cast(channel_sum(e, along), r.in_type(1).dtype));
  }
}

void body::batch_norm(Body& b) {
  Emitter& e = b.e;
  const int rank = b.type(0).sizes.rank();
  const Value x = widen(e, b.in(0));
  const Value centered = e.sub(x, per_channel(e, b.in(1), rank));
  const Value rstd = e.rsqrt(e.add(per_channel(e, b.in(2), rank), b.number(0)));
  set_scaled(b, e.mul(centered, rstd), 3);
}

void body::glu(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0));
  const int axis = normalize_axis(b.integer(0), b.type(0).sizes.rank(), b.op.name, e.location);
  const int64_t n = b.type(0).sizes[axis];
  const Value first = e.slice(x, axis, 0, n / 2);
  const Value gate = e.sigmoid(e.slice(x, axis, n / 2, n));
  b.set(e.cast(e.mul(first, gate), b.type(0).dtype));
}

constexpr double kGeluCubic = 0.044715;
constexpr double kGeluScale = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;  // sqrt(2 / pi)

namespace {

/// The costly part of gelu: erf(x / sqrt 2), or 1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3)), for (1 +
/// tanh(z)) / 2 is 1 / (1 + exp(-2 z)): one exp and one division, exact where tanh would be near -1.
Value gelu_bend(Emitter& e, Value x, bool tanh) {
  if (!tanh) return e.erf(e.mul(x, 1 / std::numbers::sqrt2));
  const Value cubic = e.mul(e.square(x), -2 * kGeluScale * kGeluCubic);
  return e.add(e.exp(e.mul(x, e.add(cubic, -2 * kGeluScale))), 1.0);
}

}  // namespace

// x * (1 + erf) / 2, or x / bend
void body::gelu(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0));
  const Value bend = gelu_bend(e, x, b.integer(0) != 0);
  Value y;
  if (b.integer(0)) {
    y = e.div(x, bend);
  } else {
    const Value half = e.mul(x, 0.5);
    y = e.mul(half, e.add(bend, 1.0));
  }
  b.set(e.cast(y, b.type(0).dtype));
}

// (1 + erf + x * erf') / 2, or with s = 1 / bend: s + x s (1 - s) z', z the exponent. Terms that cost nothing
// are written otherwise than in the body: a graph of both computes equal terms once, and would carry each of
// them through memory from one to the other.
void gradient::gelu(Gradient& r) {
  Emitter& e = r.e;
  const Value x = widen(e, r.in(0));
  const Value g = widen(e, r.grad());
  const Value bend = gelu_bend(e, x, r.integer(0) != 0);
  const Value squared = e.mul(x, x);
  if (r.integer(0)) {
    const Value share = e.div(1.0, bend);
    const Value inner = e.add(e.mul(squared, 6 * kGeluCubic * kGeluScale), 2 * kGeluScale);
    const Value left = e.mul(x, share);
    const Value curve = e.mul(left, e.sub(1.0, share));  // 0 before inner grows large
    const Value slope = e.add(share, e.mul(curve, inner));
    return r.set(0, e.cast(e.mul(slope, g), r.in_type(0).dtype));
  }
  const Value density = e.exp(e.mul(squared, -0.5));
  const Value bent = e.mul(density, e.mul(x, kGeluScale));
  const Value slope = e.add(bent, e.sub(bend, -1.0));  // exact where bend is near -1
  r.set(0, e.cast(e.mul(slope, e.mul(g, 0.5)), r.in_type(0).dtype));
}

void body::dropout(Body& b) { b.set(dropped(b.e, b.in(0), b.number(0), b.number(1), b.number(2))); }
void gradient::dropout(Gradient& r) {
  r.set(0, dropped(r.e, r.grad(), r.number(0), r.number(1), r.number(2)));
}

void body::embedding(Body& b) {
  Dims sizes = b.type(1).sizes;
  const Value index = b.e.reshape(b.in(1), {numel(sizes)});
  sizes.push_back(b.type(0).sizes[1]);
  const Value rows = b.e.call(OpId::index_select, {b.in(0), index}, {0});
  b.set(b.e.reshape(rows, sizes));
}

void body::masked_fill(Body& b) {
  Value value = b.in(2);
  if (!b.e.type(value).number) value = b.e.reshape(value, {});
  const Value y = b.e.where(b.in(1), value, b.in(0));
  b.set(b.e.cast(y, b.type(0).dtype));
}

void body::copy(Body& b) {
  const TensorType to = b.type(0);
  if (b.type(1).number) {
    const Value zeros = b.e.full(to.sizes, to.dtype, 0);
    const Value sum = b.e.add(zeros, b.in(1));
    return b.set(b.e.cast(sum, to.dtype));
  }
  b.set(b.e.expand(b.e.cast(b.in(1), to.dtype), to.sizes));
}

void gradient::copy(Gradient& r) {
  if (r.needs(0)) r.set(0, r.e.full_like(r.grad(), 0));
  if (r.needs(1)) r.set(1, r.e.cast(r.e.sum_to(r.grad(), r.in_type(1).sizes), r.in_type(1).dtype));
}

void body::full_like(Body& b) {
  const TensorType t = b.type(0);
  std::vector<int64_t> words = {static_cast<int64_t>(t.dtype), t.sizes.size()};
  words.insert(words.end(), t.sizes.begin(), t.sizes.end());
  b.set(b.e.call(OpId::full, {b.number(0)}, words));
}

void gradient::full_like(Gradient& r) { r.set(0, r.e.full_like(r.grad(), 0)); }

}  // namespace tandem::ops
