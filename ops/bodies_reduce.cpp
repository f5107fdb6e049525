// Bodies and gradients of reductions and scans that are composites. Halves are widened to float32 first and
// rounded once at the end. Scans work by doubling: after step k each position holds the combination of the
// 2^k positions that end there (W. D. Hillis and G. L. Steele, Data Parallel Algorithms, 1986).
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

Dims axes_of(const Body& b, int list) {
  return normalize_axes(b.list(list), b.type(0).sizes.rank(), b.op.name, b.e.location);
}

/// A reduction's result or its gradient, shaped so that it broadcasts over the operand; halves widened.
Value over_operand(Gradient& r, Value v, int list) {
  Dims sizes = r.in_type(0).sizes;
  for (const int64_t a : normalize_axes(r.list(list), sizes.rank(), r.op.name, r.e.location))
    sizes[static_cast<int>(a)] = 1;
  return widen(r.e, r.e.reshape(v, sizes));
}

void set_rounded(Gradient& r, Value v) { r.set(0, r.e.cast(v, r.in_type(0).dtype)); }

using Parts = std::vector<Value>;

/// `combine(early, late)` of the parts along the axis, running.
template <class Combine>
Parts running(Emitter& e, Parts parts, int64_t axis, Combine combine) {
  const Dims sizes = e.type(parts[0]).sizes;
  if (sizes.empty()) return parts;
  const int at = normalize_axis(axis, sizes.rank(), "scan", e.location);
  const int64_t n = sizes[at];
  for (int64_t step = 1; step < n; step *= 2) {
    Parts early, late;
    for (const Value p : parts) {
      early.push_back(e.slice(p, at, 0, n - step));
      late.push_back(e.slice(p, at, step, n));
    }
    const Parts joined = combine(early, late);
    for (size_t k = 0; k < parts.size(); ++k) {
      const Value head = e.slice(parts[k], at, 0, step);
      parts[k] = e.call(OpId::cat, {head, joined[k]}, {at});
    }
  }
  return parts;
}

void running_extremum(Body& b, bool largest) {
  Emitter& e = b.e;
  const Dims sizes = b.type(0).sizes;
  Value position;
  if (sizes.empty()) {
    position = e.full({}, DType::int64, 0);
  } else {
    const int axis = normalize_axis(b.integer(0), sizes.rank(), b.op.name, e.location);
    const Value zero = e.number(0);
    const Value one = e.number(1);
    Dims line = Dims::filled(sizes.rank(), 1);
    line[axis] = sizes[axis];
    const Value order = e.call(OpId::arange, {zero, one}, {static_cast<int64_t>(DType::int64), sizes[axis]});
    position = e.expand(e.reshape(order, line), sizes);
  }
  const Parts parts =
      running(e, {b.in(0), position}, b.integer(0), [&](const Parts& early, const Parts& late) {
        const Value better = largest ? e.ge(late[0], early[0]) : e.le(late[0], early[0]);
        const Value taken = e.logical_or(better, e.ne(late[0], late[0]));
        const Value value = e.where(taken, late[0], early[0]);
        return Parts{value, e.where(taken, late[1], early[1])};
      });
  b.set(parts[0], 0);
  b.set(parts[1], 1);
}

}  // namespace

void body::std(Body& b) {
  Emitter& e = b.e;
  const Dims axes = axes_of(b, 2);
  std::vector<int64_t> words = {b.integer(0), b.integer(1), axes.size()};
  words.insert(words.end(), axes.begin(), axes.end());
  const Value var = e.call(OpId::var, {widen(e, b.in(0))}, words);
  b.set(e.cast(e.sqrt(var), b.type(0).dtype));
}

// (x - mean) / ((n - correction) * std)
void gradient::std(Gradient& r) {
  Emitter& e = r.e;
  const Dims axes = normalize_axes(r.list(2), r.in_type(0).sizes.rank(), r.op.name, e.location);
  const Value x = widen(e, r.in(0));
  const Value centered = e.sub(x, e.mean(x, axes, true));
  const Value y = over_operand(r, r.out(), 2);
  const Value slope = e.div(e.div(centered, variance_divisor(e, x, axes, r.integer(0))), y);
  const Value kept = e.where(e.eq(y, 0.0), 0.0, slope);
  set_rounded(r, e.mul(over_operand(r, r.grad(), 2), kept));
}

void body::norm(Body& b) {
  Emitter& e = b.e;
  const Value squares = e.sum(e.square(widen(e, b.in(0))), axes_of(b, 1), b.integer(0) != 0);
  b.set(e.cast(e.sqrt(squares), b.type(0).dtype));
}

void gradient::norm(Gradient& r) {
  Emitter& e = r.e;
  const Value y = over_operand(r, r.out(), 1);
  const Value slope = e.div(widen(e, r.in(0)), y);
  const Value kept = e.where(e.eq(y, 0.0), 0.0, slope);
  set_rounded(r, e.mul(over_operand(r, r.grad(), 1), kept));
}

void body::norm_p(Body& b) {
  Emitter& e = b.e;
  const Value powers = e.pow(e.abs(widen(e, b.in(0))), b.number(0));
  const Value total = e.sum(powers, axes_of(b, 2), b.integer(1) != 0);
  const Value one = e.number(1);
  b.set(e.cast(e.pow(total, e.number_op(ScalarOp::div, one, b.number(0))), b.type(0).dtype));
}

// sign(x) * (|x| / y)^(p - 1)
void gradient::norm_p(Gradient& r) {
  Emitter& e = r.e;
  const Value x = widen(e, r.in(0));
  const Value y = over_operand(r, r.out(), 2);
  const Value ratio = e.div(e.abs(x), y);
  const Value one = e.number(1);
  const Value power = e.pow(ratio, e.number_op(ScalarOp::sub, r.number(0), one));
  const Value slope = e.mul(e.sign(x), power);
  const Value kept = e.where(e.eq(x, 0.0), 0.0, slope);
  set_rounded(r, e.mul(over_operand(r, r.grad(), 2), kept));
}

// The largest is taken away before and added again, unless it is infinite.
void body::logsumexp(Body& b) {
  Emitter& e = b.e;
  const Dims axes = axes_of(b, 1);
  const bool keepdim = b.integer(0) != 0;
  const Value x = widen(e, b.in(0));
  for (const int64_t a : axes)
    if (e.type(x).sizes[static_cast<int>(a)] == 0)
      return b.set(e.cast(e.log(e.sum(x, axes, keepdim)), b.type(0).dtype));
  const Value largest = e.amax(x, axes, true);
  const Value base = e.where(e.isfinite(largest), largest, 0.0);
  const Value total = e.log(e.sum(e.exp(e.sub(x, base)), axes, keepdim));
  const Value back = e.reshape(base, e.type(total).sizes);
  b.set(e.cast(e.add(total, back), b.type(0).dtype));
}

void gradient::logsumexp(Gradient& r) {
  Emitter& e = r.e;
  const Value x = widen(e, r.in(0));
  const Value share = e.exp(e.sub(x, over_operand(r, r.out(), 1)));
  set_rounded(r, e.mul(over_operand(r, r.grad(), 1), share));
}

void body::nansum(Body& b) {
  Emitter& e = b.e;
  const Value x = widen(e, b.in(0));
  const Value kept = e.where(e.isnan(x), 0.0, x);
  b.set(e.cast(e.sum(kept, axes_of(b, 1), b.integer(0) != 0), b.type(0).dtype));
}

void gradient::nansum(Gradient& r) {
  const Value g = over_operand(r, r.grad(), 1);
  set_rounded(r, r.e.where(r.e.isnan(r.in(0)), 0.0, g));
}

void body::count_nonzero(Body& b) { b.set(b.e.sum(b.e.ne(b.in(0), 0.0), axes_of(b, 0), false)); }

void body::cumprod(Body& b) {
  Emitter& e = b.e;
  const DType type = b.type(0).dtype;
  const Value x = is_floating(type) ? widen(e, b.in(0)) : e.cast(b.in(0), DType::int64);
  const Parts y = running(e, {x}, b.integer(0), [&](const Parts& early, const Parts& late) {
    return Parts{e.mul(early[0], late[0])};
  });
  b.set(is_floating(type) ? e.cast(y[0], type) : y[0]);
}

void body::cummax(Body& b) { running_extremum(b, true); }
void body::cummin(Body& b) { running_extremum(b, false); }

void body::logcumsumexp(Body& b) {
  Emitter& e = b.e;
  const Parts y = running(e, {widen(e, b.in(0))}, b.integer(0), [&](const Parts& early, const Parts& late) {
    return Parts{e.logaddexp(early[0], late[0])};
  });
  b.set(e.cast(y[0], b.type(0).dtype));
}

}  // namespace tandem::ops
