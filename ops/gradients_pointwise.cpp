// Gradients of pointwise ops that take more than an expression in the table.
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

// -g * trunc(a / b)
Value gradient::fmod_divisor(Emitter& e, Value g, Value a, Value b) {
  const Value quotient = e.trunc(e.div(a, b));
  return e.neg(e.mul(g, quotient));
}

// g where a and the result have one sign, -g where not, 0 where a is 0.
Value gradient::copysign(Emitter& e, Value g, Value a, Value y) {
  const Value ratio = e.div(y, a);
  return e.mul(g, e.where(e.eq(a, 0.0), 0.0, ratio));
}

Value gradient::lerp_weight(Emitter& e, Value g, Value a, Value b) {
  const Value to_b = e.mul(g, b);
  return e.sub(to_b, e.mul(g, a));
}

// log(b), and 0 where a is 0 and b has none.
Value gradient::xlogy_factor(Emitter& e, Value g, Value a, Value b) {
  const DType type = e.type(g).dtype;
  if (e.type(b).number) {
    const Value zero = e.full({}, type, 0);
    b = e.add(zero, b);
  }
  const Value some = e.ne(a, 0.0);
  const Value known = e.logical_not(e.le(b, 0.0));
  const Value counts = e.cast(e.logical_or(some, known), type);
  return e.mul(g, e.xlogy(counts, b));
}

Value gradient::logit(Emitter& e, Value g, Value a) {
  const Value rest = e.sub(1.0, a);
  return e.div(g, e.mul(a, rest));
}

Value gradient::atan2(Emitter& e, Value g, Value a, Value b) {
  const Value x = as_tensor(e, a, g);
  const Value y = as_tensor(e, b, g);
  const Value square = e.square(x);
  const Value length = e.add(square, e.square(y));
  return e.mul(g, e.div(y, length));
}

Value gradient::erfinv(Emitter& e, Value g, Value y) {
  const Value bell = e.exp(e.square(y));
  return e.mul(g, e.mul(bell, 0.5 / std::numbers::inv_sqrtpi));
}

Value gradient::between(Emitter& e, Value g, Value a, Value low, Value high) {
  const Value above = e.gt(a, low);
  const Value below = e.lt(a, high);
  return e.where(e.logical_and(above, below), g, 0.0);
}
Value gradient::between(Emitter& e, Value g, Value a, double low, double high) {
  const Value l = e.number(low);
  const Value h = e.number(high);
  return between(e, g, a, l, h);
}

Value gradient::leaky_relu(Emitter& e, Value g, Value a, Value slope) {
  const Value scaled = e.mul(g, slope);
  return e.where(e.gt(a, 0.0), g, scaled);
}

Value gradient::hardswish(Emitter& e, Value g, Value a) {
  const Value slope = e.add(e.div(a, 3.0), 0.5);
  const Value bent = e.mul(g, slope);
  const Value right = e.where(e.lt(a, 3.0), bent, g);
  return e.where(e.le(a, -3.0), 0.0, right);
}

// The exponential of what is positive is never taken: 0 times infinity would come back in the next order.
Value gradient::elu(Emitter& e, Value g, Value a, Value alpha, Value width) {
  const Value low = e.minimum(a, 0.0);
  const Value slope = e.mul(e.exp(e.div(low, width)), alpha);
  const Value bent = e.mul(g, slope);
  return e.where(e.gt(a, 0.0), g, bent);
}

// t + a * sigmoid(a) * (1 - t^2) with t = tanh(softplus(a))
Value gradient::mish(Emitter& e, Value g, Value a) {
  const Value t = e.tanh(e.neg(e.logsigmoid(e.neg(a))));
  const Value gate = e.mul(a, e.sigmoid(a));
  const Value bend = e.mul(gate, e.sub(1.0, e.square(t)));
  return e.mul(g, e.add(t, bend));
}

Value gradient::chosen(Emitter& e, Value g, Value first, Value b) {
  return e.where(e.logical_or(first, e.isnan(as_tensor(e, b, g))), g, 0.0);
}
Value gradient::not_chosen(Emitter& e, Value g, Value first, Value b) {
  return e.where(e.logical_or(first, e.isnan(as_tensor(e, b, g))), 0.0, g);
}

void gradient::add_scaled(Gradient& r) {
  if (r.needs(0)) r.set(0, r.grad());
  if (r.needs(1)) r.set(1, r.e.mul(r.grad(), r.number(0)));
}

void gradient::addcmul(Gradient& r) {
  Emitter& e = r.e;
  if (r.needs(0)) r.set(0, r.grad());
  if (r.needs(1)) r.set(1, e.mul(e.mul(r.grad(), r.number(0)), r.in(2)));
  if (r.needs(2)) r.set(2, e.mul(e.mul(r.grad(), r.number(0)), r.in(1)));
}

void gradient::addcdiv(Gradient& r) {
  Emitter& e = r.e;
  if (r.needs(0)) r.set(0, r.grad());
  const Value scaled = e.mul(r.grad(), r.number(0));
  if (r.needs(1)) r.set(1, e.div(scaled, r.in(2)));
  if (r.needs(2)) {
    const Value quotient = e.div(r.in(1), r.in(2));
    r.set(2, e.neg(e.div(e.mul(scaled, quotient), r.in(2))));
  }
}

void gradient::prelu(Gradient& r) {
  Emitter& e = r.e;
  const Value positive = e.gt(r.in(0), 0.0);
  if (r.needs(0)) r.set(0, e.where(positive, r.grad(), e.mul(r.grad(), r.in(1))));
  if (r.needs(1)) r.set(1, e.where(positive, 0.0, e.mul(r.grad(), r.in(0))));
}

void gradient::nan_to_num(Gradient& r) { r.set(0, r.e.where(r.e.isfinite(r.in(0)), r.grad(), 0.0)); }

}  // namespace tandem::ops
