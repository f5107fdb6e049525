// Formulas and gradients of pointwise ops that take more than an expression in the table.
#include <numbers>

#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// A tensor of rank 0 in place of a number, which most ops do not take alone.
Value as_tensor(Emitter& e, Value v, Value like) {
  if (!e.type(v).number) return v;
  const Value zero = e.full({}, e.type(like).dtype, 0);
  return e.add(zero, v);
}

}  // namespace

S formula::constant(S like, double value) { return like.graph->constant(like.type(), value); }

S formula::sign(S a) {
  if (a.type() == DType::bool_) return a;
  const S zero = constant(a, 0), one = constant(a, 1);
  const S positive = s_gt(a, zero);
  if (a.type() == DType::uint8) return select(positive, one, zero);
  return select(positive, one, select(s_lt(a, zero), constant(a, -1), zero));
}

S formula::pow(S a, S b) {
  if (is_floating(a.type())) return s_pow(a, b);
  return cast(s_pow(cast(a, DType::float64), cast(b, DType::float64)), a.type());
}

// max(a, 0) + log1p(exp(-|a|))
S formula::softplus(S a) { return s_max(a, constant(a, 0)) + s_log1p(s_exp(-s_abs(a))); }

// b * a^(b - 1), and 0 where b is 0, whatever a is.
Value gradient::pow_base(Emitter& e, Value g, Value a, Value b) {
  b = as_tensor(e, b, g);
  const Value power = e.pow(a, e.sub(b, 1.0));
  const Value slope = e.mul(b, power);
  const Value kept = e.where(e.eq(b, 0.0), 0.0, slope);
  return e.mul(g, kept);
}

// y * log(a), and 0 where a is 0 and b is not negative.
Value gradient::pow_exponent(Emitter& e, Value g, Value a, Value b, Value y) {
  a = as_tensor(e, a, g);
  const Value slope = e.mul(y, e.log(a));
  const Value at_zero = e.eq(a, 0.0);
  const Value flat = e.logical_and(at_zero, e.ge(b, 0.0));
  const Value kept = e.where(flat, 0.0, slope);
  return e.mul(g, kept);
}

Value gradient::larger(Emitter& e, Value g, Value a, Value b) {
  const Value tie = e.eq(a, b);
  const Value shared = e.where(tie, e.mul(g, 0.5), 0.0);
  const Value greater = e.gt(a, b);
  return e.where(greater, g, shared);
}

// s + a * s * (1 - s) with s = sigmoid(a)
Value gradient::silu(Emitter& e, Value g, Value a) {
  const Value s = e.sigmoid(a);
  const Value rest = e.mul(a, e.sub(1.0, s));
  const Value slope = e.mul(s, e.add(rest, 1.0));
  return e.mul(g, slope);
}

Value gradient::erf(Emitter& e, Value g, Value a) {
  const Value bell = e.exp(e.neg(e.square(a)));
  return e.mul(g, e.mul(bell, 2 * std::numbers::inv_sqrtpi));
}

Value gradient::remainder_divisor(Emitter& e, Value g, Value a, Value b) {
  const Value quotient = e.floor_divide(a, b);
  return e.neg(e.mul(g, quotient));
}

void gradient::cast(Gradient& r) { r.set(0, r.grad()); }
void gradient::clone(Gradient& r) { r.set(0, r.grad()); }

void gradient::clamp(Gradient& r) {
  const Value above = r.e.ge(r.in(0), r.number(0));
  const Value below = r.e.le(r.in(0), r.number(1));
  const Value inside = r.e.logical_and(above, below);
  r.set(0, r.e.where(inside, r.grad(), 0.0));
}

void gradient::leaky_relu(Gradient& r) {
  const Value positive = r.e.gt(r.in(0), 0.0);
  const Value scaled = r.e.mul(r.grad(), r.number(0));
  r.set(0, r.e.where(positive, r.grad(), scaled));
}

}  // namespace tandem::ops
