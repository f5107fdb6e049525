// Gradients of reductions, views, joining and index ops. All take their sizes from the operands' types.
#include "tandem/core/error.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Sizes of `x` with 1 in place of the reduced axes.
Dims kept_sizes(const Dims& sizes, const Dims& axes) {
  Dims kept = sizes;
  for (const int64_t a : axes) kept[static_cast<int>(a)] = 1;
  return kept;
}

/// A reduction's result or its gradient, shaped so that it broadcasts over the operand.
Value over_operand(Gradient& r, Value v, const Dims& axes) {
  return r.e.reshape(v, kept_sizes(r.in_type(0).sizes, axes));
}

Dims reduction_axes(const Gradient& r, int list) {
  return normalize_axes(r.list(list), r.in_type(0).sizes.rank(), r.op.name, r.e.location);
}

int axis_of(const Gradient& r) {
  return normalize_axis(r.integer(0), r.in_type(0).sizes.rank(), r.op.name, r.e.location);
}

void extremum(Gradient& r) {
  const Dims axes = reduction_axes(r, 1);
  const Value best = over_operand(r, r.out(), axes);
  const Value g = widen(r.e, over_operand(r, r.grad(), axes));
  const Value hit = r.e.eq(r.in(0), best);
  const Value ties = r.e.sum(r.e.cast(hit, r.e.type(g).dtype), axes, true);
  const Value share = r.e.div(g, ties);
  r.set(0, r.e.cast(r.e.where(hit, share, 0.0), r.in_type(0).dtype));
}

Value zeros(Gradient& r, int operand) {
  return r.e.full(r.in_type(operand).sizes, r.in_type(operand).dtype, 0);
}

}  // namespace

void gradient::sum(Gradient& r) {
  const Value g = over_operand(r, r.grad(), reduction_axes(r, 1));
  r.set(0, r.e.expand(g, r.in_type(0).sizes));
}

void gradient::mean(Gradient& r) {
  const Dims axes = reduction_axes(r, 1);
  const Value g = over_operand(r, r.grad(), axes);
  const Value whole = r.e.expand(g, r.in_type(0).sizes);
  r.set(0, r.e.div(whole, r.e.count(whole, axes)));
}

void gradient::var(Gradient& r) {
  Emitter& e = r.e;
  const Dims axes = reduction_axes(r, 2);
  const Value x = widen(e, r.in(0));
  const Value centered = e.sub(x, e.mean(x, axes, true));
  const Value divisor = variance_divisor(e, x, axes, r.integer(0));
  const Value two = e.number(2);
  const Value scale = e.number_op(ScalarOp::div, two, divisor);
  const Value g = widen(e, over_operand(r, r.grad(), axes));
  const Value slope = e.mul(centered, scale);
  r.set(0, e.cast(e.mul(g, slope), r.in_type(0).dtype));
}

void gradient::amax(Gradient& r) { extremum(r); }
void gradient::amin(Gradient& r) { extremum(r); }

// The product of all other elements, exact at zeros and differentiable again: the elements are the leaves of
// a binary tree (padded with ones), products go up, and down the tree goes to each node the product of
// everything outside of it.
void gradient::prod(Gradient& r) {
  Emitter& e = r.e;
  const Dims sizes = r.in_type(0).sizes;
  const Dims axes = reduction_axes(r, 1);
  if (numel(sizes) == 0) return r.set(0, zeros(r, 0));
  Dims order, back = sizes, kept;
  for (int i = 0, next = 0; i < sizes.rank(); ++i) {
    const bool reduced = next < axes.size() && axes[next] == i;
    next += reduced;
    if (!reduced) order.push_back(i), kept.push_back(sizes[i]);
  }
  const int64_t rows = numel(kept);
  for (const int64_t a : axes) order.push_back(a);
  Dims permuted = sizes;
  for (int i = 0; i < order.size(); ++i) {
    permuted[i] = sizes[static_cast<int>(order[i])];
    back[static_cast<int>(order[i])] = i;
  }
  const int64_t n = numel(sizes) / rows;
  int64_t leaves = 1;
  while (leaves < n) leaves *= 2;
  const Value row = e.reshape(e.permute(r.in(0), order), {rows, n});
  std::vector<Value> level = {row};
  if (leaves > n) {
    const Value ones = e.full({rows, leaves - n}, r.in_type(0).dtype, 1);
    level[0] = e.call(OpId::cat, {row, ones}, {1});
  }
  for (int64_t width = leaves; width > 1; width /= 2) {
    const Value even = e.slice(level.back(), 1, 0, width, 2);
    const Value odd = e.slice(level.back(), 1, 1, width, 2);
    level.push_back(e.mul(even, odd));
  }
  Value outside = e.reshape(r.grad(), {rows, 1});
  for (int64_t width = 2; width <= leaves; width *= 2) {
    level.pop_back();
    const Value even = e.slice(level.back(), 1, 0, width, 2);
    const Value odd = e.slice(level.back(), 1, 1, width, 2);
    const Value to_even = e.unsqueeze(e.mul(outside, odd), 2);
    const Value to_odd = e.unsqueeze(e.mul(outside, even), 2);
    outside = e.reshape(e.call(OpId::cat, {to_even, to_odd}, {2}), {rows, width});
  }
  if (leaves > n) outside = e.slice(outside, 1, 0, n);
  r.set(0, e.permute(e.reshape(outside, permuted), back));
}

void gradient::reshape(Gradient& r) { r.set(0, r.e.reshape(r.grad(), r.in_type(0).sizes)); }
void gradient::unsqueeze(Gradient& r) { r.set(0, r.e.reshape(r.grad(), r.in_type(0).sizes)); }
void gradient::squeeze(Gradient& r) { r.set(0, r.e.reshape(r.grad(), r.in_type(0).sizes)); }
void gradient::expand(Gradient& r) { r.set(0, r.e.sum_to(r.grad(), r.in_type(0).sizes)); }

void gradient::permute(Gradient& r) {
  const Dims axes = r.list(0);
  Dims back = axes;
  for (int i = 0; i < axes.size(); ++i)
    back[normalize_axis(axes[i], axes.size(), r.op.name, r.e.location)] = i;
  r.set(0, r.e.permute(r.grad(), back));
}

// Zeros between the positions (a new axis of `step`, of which the first place is taken), then before and
// after them.
void gradient::slice(Gradient& r) {
  Emitter& e = r.e;
  const Dims& sizes = r.in_type(0).sizes;
  const int axis = axis_of(r);
  const int64_t size = sizes[axis], step = r.integer(3);
  const int64_t start =
      std::min(std::max<int64_t>(r.integer(1) < 0 ? r.integer(1) + size : r.integer(1), 0), size);
  Value g = r.grad();
  int64_t length = e.type(g).sizes[axis];
  if (length == 0) return r.set(0, zeros(r, 0));
  if (step > 1 && length > 1) {
    Dims spread = e.type(g).sizes;
    spread[axis] = checked_mul(length, step, "slice: size", e.location);
    g = e.reshape(e.pad(e.unsqueeze(g, axis + 1), axis + 1, 0, step - 1), spread);
    length = (length - 1) * step + 1;
    g = e.slice(g, axis, 0, length);
  }
  r.set(0, e.pad(g, axis, start, size - start - length));
}

void gradient::select(Gradient& r) {
  const int axis = axis_of(r);
  const int64_t size = r.in_type(0).sizes[axis];
  const int64_t index = r.integer(1) < 0 ? r.integer(1) + size : r.integer(1);
  r.set(0, r.e.pad(r.e.unsqueeze(r.grad(), axis), axis, index, size - index - 1));
}

void gradient::cat(Gradient& r) {
  const int axis = axis_of(r);
  int64_t start = 0;
  for (size_t i = 0; i < r.operand_types.size(); ++i) {
    const TensorType& t = r.operand_types[i];
    const int64_t end = start + t.sizes[axis];
    if (r.needed[i]) {
      const Value part = r.e.slice(r.grad(), axis, start, end);
      r.set(static_cast<int>(i), r.e.cast(part, t.dtype));
    }
    start = end;
  }
}

void gradient::pad(Gradient& r) {
  const int axis = axis_of(r);
  const int64_t before = r.integer(1);
  r.set(0, r.e.slice(r.grad(), axis, before, before + r.in_type(0).sizes[axis]));
}

void gradient::index_select(Gradient& r) {
  r.set(0, r.e.call(OpId::index_add, {zeros(r, 0), r.in(1), r.grad()}, {r.integer(0)}));
}

void gradient::gather(Gradient& r) {
  r.set(0, r.e.call(OpId::scatter_add, {zeros(r, 0), r.in(1), r.grad()}, {r.integer(0)}));
}

void gradient::index_add(Gradient& r) {
  if (r.needs(0)) r.set(0, r.grad());
  if (r.needs(2)) r.set(2, r.e.call(OpId::index_select, {r.grad(), r.in(1)}, {r.integer(0)}));
}

void gradient::scatter_add(Gradient& r) {
  if (r.needs(0)) r.set(0, r.grad());
  if (r.needs(2)) r.set(2, r.e.call(OpId::gather, {r.grad(), r.in(1)}, {r.integer(0)}));
}

void gradient::cumsum(Gradient& r) {
  r.set(0, r.e.call(OpId::cumsum, {r.grad()}, {r.integer(0), r.integer(1) == 0}));
}

// index_add over the rows, whatever the rank of the index.
void gradient::embedding(Gradient& r) {
  const Dims& weight = r.in_type(0).sizes;
  const int64_t n = numel(r.in_type(1).sizes);
  const Value index = r.e.reshape(r.in(1), {n});
  const Value rows = r.e.reshape(r.grad(), {n, weight[1]});
  const Value none = zeros(r, 0);
  r.set(0, r.e.call(OpId::index_add, {none, index, rows}, {0}));
}

void gradient::masked_fill(Gradient& r) {
  Emitter& e = r.e;
  if (r.needs(0)) {
    const Value passed = e.where(r.in(1), 0.0, r.grad());
    r.set(0, e.sum_to(passed, r.in_type(0).sizes));
  }
  if (r.needs(2)) {
    const Value taken = e.where(r.in(1), r.grad(), 0.0);
    const Value total = e.reshape(e.sum(taken, {}, false), r.in_type(2).sizes);
    r.set(2, e.cast(total, r.in_type(2).dtype));
  }
}

}  // namespace tandem::ops
