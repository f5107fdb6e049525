// Bodies of the losses, and the gradient of cross_entropy. Reductions: 0 none, 1 mean, 2 sum.
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr int64_t kNone = 0, kMean = 1;

Value reduce_loss(Emitter& e, Value each, int64_t reduction, Value count) {
  if (reduction == kNone) return each;
  const Value total = e.sum(each, {}, false);
  return reduction == kMean ? e.div(total, count) : total;
}

/// Rows that count, as numbers of type `type`: a tensor of rank 0.
Value counted_rows(Emitter& e, Value ignored, DType type) {
  return e.sum(e.cast(e.logical_not(ignored), type), {}, false);
}

/// True for the rows that cross_entropy leaves out.
Value ignored_rows(Emitter& e, Value labels, Value ignore_index) { return e.eq(labels, ignore_index); }

/// v (N) beside each element of its row of (N, C).
Value beside_rows(Emitter& e, Value v) { return e.unsqueeze(v, 1); }

}  // namespace

// Per row log(sum(exp(x - max))) - (x[label] - max). An ignored row looks up class 0, so only labels that
// count are checked.
void body::cross_entropy(Body& b) {
  Emitter& e = b.e;
  const int64_t rows = b.type(0).sizes[0];
  const Value x = widen(e, b.in(0));
  const Value labels = b.in(1);
  const Value ignored = ignored_rows(e, labels, b.number(1));
  const Value zero = e.full({}, b.type(1).dtype, 0);
  const Value index = e.reshape(e.where(ignored, zero, labels), {rows, 1});
  const Value largest = e.amax(x, {1}, true);
  const Value shifted = e.sub(x, largest);
  const Value total = e.sum(e.exp(shifted), {1}, false);
  const Value picked = e.reshape(e.call(OpId::gather, {shifted, index}, {1}), {rows});
  const Value each = e.sub(e.log(total), picked);
  const Value kept = e.where(ignored, 0.0, each);
  Value count;
  if (b.integer(0) == kMean) count = counted_rows(e, ignored, e.type(kept).dtype);
  b.set(e.cast(reduce_loss(e, kept, b.integer(0), count), b.type(0).dtype));
  b.set(e.reshape(largest, {rows}), 1);
  b.set(e.reciprocal(total), 2);
}

namespace {

/// What flows to x from m = max(x) and s = 1 / sum(exp(x - m)) of its rows, where p is softmax(x): for s, -s
/// p to x and s to m; for m, an even share to each logit that is as large. Only second derivatives have
/// these.
Value through_statistics(Gradient& r, Value x, Value p) {
  Emitter& e = r.e;
  Value to_largest = r.grad(1), by_scale;
  if (r.grad(2)) {
    by_scale = e.mul(r.grad(2), r.out(2));
    to_largest = to_largest ? e.add(to_largest, by_scale) : by_scale;
  }
  const Value hit = e.eq(x, beside_rows(e, r.out(1)));
  const Value ties = e.sum(e.cast(hit, e.type(x).dtype), {1}, false);
  const Value share = e.where(hit, beside_rows(e, e.div(to_largest, ties)), 0.0);
  return by_scale ? e.sub(share, e.mul(p, beside_rows(e, by_scale))) : share;
}

}  // namespace

// softmax(x) less one at the label, times the gradient of the row's loss. The rows' statistics come from the
// forward, so that x is read once.
void gradient::cross_entropy(Gradient& r) {
  Emitter& e = r.e;
  const Dims& sizes = r.in_type(0).sizes;
  const Value x = widen(e, r.in(0));
  const Value powers = e.exp(e.sub(x, beside_rows(e, r.out(1))));
  const Value p = e.mul(powers, beside_rows(e, r.out(2)));
  Value dx;
  if (r.grad(0)) {
    const Value labels = r.in(1);
    const Value zero = e.number(0);
    const Value one = e.number(1);
    // Labels that count have been checked, so 32 bits hold them: half of what is compared an element.
    const Value classes = e.call(OpId::arange, {zero, one}, {static_cast<int64_t>(DType::int32), sizes[1]});
    const Value hot = e.eq(beside_rows(e, e.cast(labels, DType::int32)), classes);
    const Value delta = e.where(hot, e.sub(p, 1.0), p);
    const Value ignored = ignored_rows(e, labels, r.number(1));
    Value g = widen(e, r.grad(0));
    if (r.integer(0) == kMean) g = e.div(g, counted_rows(e, ignored, e.type(g).dtype));
    dx = e.mul(delta, beside_rows(e, e.where(ignored, 0.0, g)));
  }
  if (r.grad(1) || r.grad(2)) {
    const Value more = through_statistics(r, x, p);
    dx = dx ? e.add(dx, more) : more;
  }
  r.set(0, e.cast(dx, r.in_type(0).dtype));
}

namespace {

/// A loss of one value an element, in the type of operand 0.
void set_loss(Body& b, Value each) {
  Dims axes;
  for (int i = 0; i < b.type(0).sizes.rank(); ++i) axes.push_back(i);
  Value count;
  if (b.integer(0) == kMean) count = b.e.count(each, axes);
  b.set(b.e.cast(reduce_loss(b.e, each, b.integer(0), count), b.type(0).dtype));
}

/// a - b
Value distance(Body& b) {
  const Value x = widen(b.e, b.in(0));
  return b.e.sub(x, widen(b.e, b.in(1)));
}

/// max(-x, 0) + log1p(exp(-|x|)) = log(1 + exp(-x))
Value below_zero(Emitter& e, Value x) {
  const Value low = e.maximum(e.neg(x), 0.0);
  return e.add(low, e.log1p(e.exp(e.neg(e.abs(x)))));
}

}  // namespace

void body::mse_loss(Body& b) { set_loss(b, b.e.square(distance(b))); }
void body::l1_loss(Body& b) { set_loss(b, b.e.abs(distance(b))); }

// Both in terms of min(d, beta): where d is beyond the bound its square, and so a gradient of it, may be
// infinite.
void body::smooth_l1_loss(Body& b) {
  Emitter& e = b.e;
  const Value d = e.abs(distance(b)), beta = b.number(1), inner = e.minimum(d, beta);
  const Value rest = e.sub(d, e.mul(inner, 0.5));
  set_loss(b, e.mul(e.div(inner, beta), rest));
}

void body::huber_loss(Body& b) {
  Emitter& e = b.e;
  const Value d = e.abs(distance(b)), delta = b.number(1), inner = e.minimum(d, delta);
  set_loss(b, e.mul(inner, e.sub(d, e.mul(inner, 0.5))));
}

void body::binary_cross_entropy(Body& b) {
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0)), t = widen(e, b.in(1));
  const Value yes = e.mul(t, e.maximum(e.log(p), -100.0));
  const Value no = e.maximum(e.log1p(e.neg(p)), -100.0);
  const Value rest = e.mul(e.sub(1.0, t), no);
  set_loss(b, e.neg(e.add(yes, rest)));
}

// (p - t) / (p (1 - p)) for the probability, log(1 - p) - log(p) for the target.
void gradient::binary_cross_entropy(Gradient& r) {
  Emitter& e = r.e;
  Dims axes;
  for (int i = 0; i < r.in_type(0).sizes.rank(); ++i) axes.push_back(i);
  const Value p = widen(e, r.in(0));
  Value g = widen(e, r.grad());
  if (r.integer(0) == kMean) g = e.div(g, e.count(p, axes));
  if (r.needs(0)) {
    const Value spread = e.maximum(e.mul(p, e.sub(1.0, p)), 1e-12);
    const Value slope = e.div(e.sub(p, widen(e, r.in(1))), spread);
    r.set(0, e.cast(e.mul(slope, g), r.in_type(0).dtype));
  }
  if (r.needs(1)) {
    const Value no = e.maximum(e.log1p(e.neg(p)), -100.0);
    const Value slope = e.sub(no, e.maximum(e.log(p), -100.0));
    r.set(1, e.cast(e.mul(slope, g), r.in_type(1).dtype));
  }
}

// (1 - t) x + (1 + (w - 1) t) log(1 + exp(-x))
void body::binary_cross_entropy_with_logits(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0)), t = widen(e, b.in(1));
  const Value left = e.mul(e.sub(1.0, t), x);
  Value bend = below_zero(e, x);
  if (b.in(2)) {
    const Value more = e.sub(widen(e, b.in(2)), 1.0);
    bend = e.mul(e.add(e.mul(more, t), 1.0), bend);
  }
  set_loss(b, e.add(left, bend));
}

void body::kl_div(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0)), t = widen(e, b.in(1));
  if (b.integer(1)) return set_loss(b, e.mul(e.exp(t), e.sub(t, x)));
  const Value own = e.xlogy(t, t);
  set_loss(b, e.sub(own, e.mul(t, x)));
}

void body::soft_margin_loss(Body& b) {
  const Value x = widen(b.e, b.in(0));
  set_loss(b, below_zero(b.e, b.e.mul(x, widen(b.e, b.in(1)))));
}

// As cross_entropy's second half, with a weight per class.
void body::nll_loss(Body& b) {
  Emitter& e = b.e;
  const int64_t rows = b.type(0).sizes[0];
  const Value logp = widen(e, b.in(0)), labels = b.in(1);
  const Value ignored = ignored_rows(e, labels, b.number(1));
  const Value zero = e.full({}, b.type(1).dtype, 0);
  const Value known = e.where(ignored, zero, labels);
  const Value picked = e.reshape(e.call(OpId::gather, {logp, e.reshape(known, {rows, 1})}, {1}), {rows});
  Value each = e.neg(picked), weights;
  if (b.in(2)) {
    weights = e.call(OpId::index_select, {widen(e, b.in(2)), known}, {0});
    each = e.mul(each, weights);
  }
  const Value kept = e.where(ignored, 0.0, each);
  Value count;
  if (b.integer(0) == kMean) {
    count = weights ? e.sum(e.where(ignored, 0.0, weights), {}, false)
                    : counted_rows(e, ignored, e.type(kept).dtype);
  }
  b.set(e.cast(reduce_loss(e, kept, b.integer(0), count), b.type(0).dtype));
}

void body::cosine_similarity(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0)), y = widen(e, b.in(1));
  const int64_t axis = normalize_axis(b.integer(0), b.type(0).sizes.rank(), b.op.name, e.location);
  const auto length = [&](Value v) { return e.maximum(e.call(OpId::norm, {v}, {0, 1, axis}), b.number(1)); };
  const Value dot = e.sum(e.mul(x, y), {axis}, false);
  const Value by_x = e.div(dot, length(x));
  b.set(e.cast(e.div(by_x, length(y)), b.type(0).dtype));
}

}  // namespace tandem::ops
