// Batch norm while training. Sums per channel of x (N, C, L) are made over L and then over N: rows and
// columns, which have kernels of their own.
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr int kX = 0, kWeight = 1, kBias = 2;

/// How many elements a channel has, and the same less one (at least 1), as numbers.
struct Counts {
  Value all, unbiased;
};
Counts counts_of(Emitter& e, Value x) {
  Dims axes;
  for (int i = 0; i < e.type(x).sizes.rank(); ++i)
    if (i != 1) axes.push_back(i);
  Counts n;
  n.all = e.count(x, axes);
  const Value one = e.number(1);
  const Value less = e.number_op(ScalarOp::sub, n.all, one);
  n.unbiased = e.number_op(ScalarOp::max, less, one);
  return n;
}

Value rstd_of(Emitter& e, Value variance, Value eps) { return e.rsqrt(e.add(variance, eps)); }

}  // namespace

Value channel_sum(Emitter& e, Value x) {
  const Dims sizes = e.type(x).sizes;
  if (sizes.rank() > 2) {
    int64_t rest = 1;
    for (int i = 2; i < sizes.rank(); ++i) rest *= sizes[i];
    x = e.sum(e.reshape(x, {sizes[0], sizes[1], rest}), {2}, false);
  }
  return e.sum(x, {0}, false);
}

void body::batch_norm_train(Body& b) {
  Emitter& e = b.e;
  const int rank = b.type(kX).sizes.rank();
  const Value x = widen(e, b.in(kX));
  const Counts n = counts_of(e, x);
  const Value mean = e.div(channel_sum(e, x), n.all);
  const Value centered = e.sub(x, per_channel(e, mean, rank));
  const Value squares = channel_sum(e, e.square(centered));
  const Value variance = e.div(squares, n.all);
  Value y = e.mul(centered, per_channel(e, rstd_of(e, variance, b.number(0)), rank));
  if (b.in(kWeight)) y = e.mul(y, per_channel(e, b.in(kWeight), rank));
  if (b.in(kBias)) y = e.add(y, per_channel(e, b.in(kBias), rank));
  b.set(e.cast(y, b.type(kX).dtype));
  b.set(mean, 1);
  b.set(variance, 2);
  b.set(e.div(squares, n.unbiased), 3);
}

// With xhat = (x - mean) * rstd and h = g * weight: rstd * (h - mean(h) - xhat * mean(h * xhat)); and what
// flows through the statistics: 1 / n to the mean, 2 (x - mean) / n to the variance.
void gradient::batch_norm_train(Gradient& r) {
  Emitter& e = r.e;
  const int rank = r.in_type(kX).sizes.rank();
  const Value g = r.grad(0) ? widen(e, r.grad(0)) : Value{};
  if (g && r.needs(kBias)) r.set(kBias, e.cast(channel_sum(e, g), r.in_type(kBias).dtype));
  if (!r.needs(kX) && !(g && r.needs(kWeight))) return;
  const Value x = widen(e, r.in(kX));
  const Value centered = e.sub(x, per_channel(e, r.out(1), rank));
  const Counts n = counts_of(e, x);
  Value dx;
  if (g) {
    const Value rstd = rstd_of(e, r.out(2), r.number(0));
    const Value xhat = e.mul(centered, per_channel(e, rstd, rank));
    const Value along = channel_sum(e, e.mul(g, xhat));
    if (r.needs(kWeight)) r.set(kWeight, e.cast(along, r.in_type(kWeight).dtype));
    if (r.needs(kX)) {
      const Value mean = e.div(channel_sum(e, g), n.all);
      const Value shifted = e.sub(g, per_channel(e, mean, rank));
      const Value projected = e.mul(xhat, per_channel(e, e.div(along, n.all), rank));
      const Value scale = r.in(kWeight) ? e.mul(rstd, widen(e, r.in(kWeight))) : rstd;
      dx = e.mul(e.sub(shifted, projected), per_channel(e, scale, rank));
    }
  }
  if (!r.needs(kX)) return;
  const auto add = [&](Value more) { dx = dx ? e.add(dx, more) : more; };
  if (r.grad(2) || r.grad(3)) {
    Value slope;
    if (r.grad(2)) slope = e.div(r.grad(2), n.all);
    if (r.grad(3)) {
      const Value unbiased = e.div(r.grad(3), n.unbiased);
      slope = slope ? e.add(slope, unbiased) : unbiased;
    }
    add(e.mul(centered, per_channel(e, e.mul(slope, 2.0), rank)));
  }
  if (r.grad(1)) {
    const Value share = per_channel(e, e.div(r.grad(1), n.all), rank);
    add(e.expand(share, e.type(x).sizes));
  }
  r.set(kX, e.cast(dx, r.in_type(kX).dtype));
}

}  // namespace tandem::ops
