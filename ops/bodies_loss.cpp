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

/// x - max(x) per row: all that follows is free of overflow.
Value shifted_rows(Emitter& e, Value x) { return below_max(e, x, {1}); }

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
  const Value shifted = shifted_rows(e, x);
  const Value total = e.sum(e.exp(shifted), {1}, false);
  const Value picked = e.reshape(e.call(OpId::gather, {shifted, index}, {1}), {rows});
  const Value each = e.sub(e.log(total), picked);
  const Value kept = e.where(ignored, 0.0, each);
  Value count;
  if (b.integer(0) == kMean) count = counted_rows(e, ignored, e.type(kept).dtype);
  b.set(e.cast(reduce_loss(e, kept, b.integer(0), count), b.type(0).dtype));
}

// softmax(x) less one at the label, times the gradient of the row's loss.
void gradient::cross_entropy(Gradient& r) {
  Emitter& e = r.e;
  const Dims& sizes = r.in_type(0).sizes;
  const Value x = widen(e, r.in(0));
  const Value labels = r.in(1);
  const Value powers = e.exp(shifted_rows(e, x));
  const Value p = e.div(powers, e.sum(powers, {1}, true));
  const Value zero = e.number(0);
  const Value one = e.number(1);
  const Value classes =
      e.call(OpId::arange, {zero, one}, {static_cast<int64_t>(r.in_type(1).dtype), sizes[1]});
  const Value hot = e.eq(e.reshape(labels, {sizes[0], 1}), classes);
  const Value delta = e.sub(p, e.cast(hot, e.type(p).dtype));
  const Value ignored = ignored_rows(e, labels, r.number(1));
  Value g = widen(e, r.grad());
  if (r.integer(0) == kMean) g = e.div(g, counted_rows(e, ignored, e.type(g).dtype));
  const Value scale = e.reshape(e.where(ignored, 0.0, g), {sizes[0], 1});
  r.set(0, e.cast(e.mul(delta, scale), r.in_type(0).dtype));
}

void body::mse_loss(Body& b) {
  Emitter& e = b.e;
  const Value a = widen(e, b.in(0));
  const Value each = e.square(e.sub(a, widen(e, b.in(1))));
  Dims axes;
  for (int i = 0; i < b.type(0).sizes.rank(); ++i) axes.push_back(i);
  b.set(e.cast(reduce_loss(e, each, b.integer(0), e.count(a, axes)), b.type(0).dtype));
}

}  // namespace tandem::ops
