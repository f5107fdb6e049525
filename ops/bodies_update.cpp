// Optimizers' updates of one parameter, with the order of operations of PyTorch's single-tensor
// implementations. What depends on numbers alone is computed in float64 by the host; halves are widened and
// rounded once.
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

Value guard(const Body& b) { return b.in(b.op.n_in - 1); }

/// Element i of the guard in the type that the update computes in.
Value guard_element(Body& b, int i) {
  const Value one = b.e.slice(guard(b), 0, i, i + 1);
  const bool wide = b.type(0).dtype == DType::float64;
  return b.e.cast(b.e.reshape(one, {}), wide ? DType::float64 : DType::float32);
}

/// Result j in the type of the operand that it replaces; that operand itself where the guard says so.
void set_result(Body& b, int j, Value v) {
  const Value before = b.in(b.op.writes[j]);
  v = b.e.cast(v, b.e.type(before).dtype);
  if (guard(b)) {
    const Value skipped = b.e.ge(guard_element(b, 0), 1.0);
    v = b.e.where(skipped, before, v);
  }
  b.set(v, j);
}

/// The k-th number that depends on the step count: an attribute, or of the guard.
Value step_number(Body& b, int k, int attr) { return guard(b) ? guard_element(b, 1 + k) : b.number(attr); }

/// Of two numbers by the host, else by the device.
Value arithmetic(Emitter& e, ScalarOp number_op, OpId op, Value x, Value y) {
  if (e.type(x).number && e.type(y).number) return e.number_op(number_op, x, y);
  return e.call(op, {x, y});
}
Value negative(Emitter& e, Value x) { return e.type(x).number ? e.number_op(ScalarOp::neg, x) : e.neg(x); }
Value root_of(Emitter& e, Value x) { return e.type(x).number ? e.number_op(ScalarOp::sqrt, x) : e.sqrt(x); }
Value quotient(Emitter& e, Value x, Value y) { return arithmetic(e, ScalarOp::div, OpId::div, x, y); }

/// 1 - x
Value complement(Emitter& e, Value x) {
  const Value one = e.number(1);
  return arithmetic(e, ScalarOp::sub, OpId::sub, one, x);
}

/// g + weight_decay * p
Value decayed(Emitter& e, Value g, Value p, Value weight_decay) { return e.add(g, e.mul(p, weight_decay)); }

/// p - lr * d
Value stepped(Emitter& e, Value p, Value d, Value lr) {
  const Value down = negative(e, lr);
  return e.add(p, e.mul(d, down));
}

/// m + (g - m) * (1 - beta)
Value moved_towards(Emitter& e, Value m, Value g, Value beta) {
  const Value way = e.sub(g, m);
  return e.add(m, e.mul(way, complement(e, beta)));
}

/// v * beta + (1 - beta) * g * g
Value squares(Emitter& e, Value v, Value g, Value beta) {
  const Value kept = e.mul(v, beta);
  const Value scaled = e.mul(g, complement(e, beta));
  return e.add(kept, e.mul(scaled, g));
}

}  // namespace

int step_numbers(OpId update) {
  switch (update) {
    case OpId::sgd_momentum_update:  // dampening
    case OpId::adamax_update:        // bias1
    case OpId::adagrad_update:       // lr
      return 1;
    case OpId::adam_update:  // bias1, bias2
    case OpId::adamw_update:
    case OpId::adam_amsgrad_update:
    case OpId::adamw_amsgrad_update:
    case OpId::radam_update:  // rate, rectified (1 or 0)
      return 2;
    case OpId::nadam_update:  // gradient_rate, moment_rate, bias2
      return 3;
    default:
      return 0;
  }
}

namespace {

// Attributes of Adam, AdamW and, as far as it has them, Adamax, as declared.
enum { kLr, kBeta1, kBeta2, kEps, kWeightDecay, kBias1, kBias2 };

// m += (g - m) * (1 - beta1);  v = v * beta2 + (1 - beta2) * g * g
// p += -lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps), with the largest v so far if `amsgrad`
void adam_step(Body& b, Value p, Value g, bool amsgrad) {
  Emitter& e = b.e;
  const Value old_m = widen(e, b.in(2));
  const Value old_v = widen(e, b.in(3));
  const Value m = moved_towards(e, old_m, g, b.number(kBeta1));
  const Value v = squares(e, old_v, g, b.number(kBeta2));
  const Value largest = amsgrad ? e.maximum(widen(e, b.in(4)), v) : v;
  const Value down = negative(e, quotient(e, b.number(kLr), step_number(b, 0, kBias1)));
  const Value root = root_of(e, step_number(b, 1, kBias2));
  const Value denominator = e.add(e.div(e.sqrt(largest), root), b.number(kEps));
  const Value moved = e.mul(m, down);
  set_result(b, 0, e.add(p, e.div(moved, denominator)));
  set_result(b, 1, m);
  set_result(b, 2, v);
  if (amsgrad) set_result(b, 3, largest);
}

void adam(Body& b, bool amsgrad) {
  const Value p = widen(b.e, b.in(0));
  adam_step(b, p, decayed(b.e, widen(b.e, b.in(1)), p, b.number(kWeightDecay)), amsgrad);
}
void adamw(Body& b, bool amsgrad) {
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value decay = e.number_op(ScalarOp::mul, b.number(kLr), b.number(kWeightDecay));
  const Value shrunk = e.mul(p, complement(e, decay));
  adam_step(b, shrunk, widen(e, b.in(1)), amsgrad);
}

}  // namespace

void body::sgd_update(Body& b) {
  const Value p = widen(b.e, b.in(0));
  const Value d = decayed(b.e, widen(b.e, b.in(1)), p, b.number(1));
  set_result(b, 0, stepped(b.e, p, d, b.number(0)));
}

void body::sgd_momentum_update(Body& b) {
  enum { kRate, kMomentum, kDampening, kDecay, kNesterov, kFirst };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  Value d = decayed(e, widen(e, b.in(1)), p, b.number(kDecay));
  Value buffer = d;
  if (!b.integer(kFirst)) {
    const Value kept = e.mul(widen(e, b.in(2)), b.number(kMomentum));
    const Value fresh = e.mul(d, complement(e, step_number(b, 0, kDampening)));
    buffer = e.add(kept, fresh);
  }
  d = b.integer(kNesterov) ? e.add(d, e.mul(buffer, b.number(kMomentum))) : buffer;
  set_result(b, 0, stepped(e, p, d, b.number(kRate)));
  set_result(b, 1, buffer);
}

void body::adam_update(Body& b) { adam(b, false); }
void body::adamw_update(Body& b) { adamw(b, false); }
void body::adam_amsgrad_update(Body& b) { adam(b, true); }
void body::adamw_amsgrad_update(Body& b) { adamw(b, true); }

void body::adamax_update(Body& b) {
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = decayed(e, widen(e, b.in(1)), p, b.number(kWeightDecay));
  const Value m = moved_towards(e, widen(e, b.in(2)), g, b.number(kBeta1));
  const Value kept = e.mul(widen(e, b.in(3)), b.number(kBeta2));
  const Value size = e.add(e.abs(g), b.number(kEps));
  const Value largest = e.maximum(kept, size);
  const Value rate = quotient(e, b.number(kLr), step_number(b, 0, kBias1));
  set_result(b, 0, stepped(e, p, e.div(m, largest), rate));
  set_result(b, 1, m);
  set_result(b, 2, largest);
}

void body::nadam_update(Body& b) {
  enum { kGradientRate, kMomentRate, kFirst, kSecond, kSmall, kDecay, kCorrection };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = decayed(e, widen(e, b.in(1)), p, b.number(kDecay));
  const Value m = moved_towards(e, widen(e, b.in(2)), g, b.number(kFirst));
  const Value v = squares(e, widen(e, b.in(3)), g, b.number(kSecond));
  const Value correction = step_number(b, 2, kCorrection);
  const Value denominator = e.add(e.sqrt(e.div(v, correction)), b.number(kSmall));
  const Value gradient_rate = step_number(b, 0, kGradientRate);
  const Value by_gradient = stepped(e, p, e.div(g, denominator), gradient_rate);
  const Value moment_rate = step_number(b, 1, kMomentRate);
  set_result(b, 0, stepped(e, by_gradient, e.div(m, denominator), moment_rate));
  set_result(b, 1, m);
  set_result(b, 2, v);
}

void body::radam_update(Body& b) {
  enum { kRate, kFirst, kSecond, kSmall, kDecay, kRectified };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = decayed(e, widen(e, b.in(1)), p, b.number(kDecay));
  const Value m = moved_towards(e, widen(e, b.in(2)), g, b.number(kFirst));
  const Value v = squares(e, widen(e, b.in(3)), g, b.number(kSecond));
  Value way = m;
  if (guard(b) || b.integer(kRectified)) way = e.div(m, e.add(e.sqrt(v), b.number(kSmall)));
  if (guard(b)) way = e.where(e.ge(guard_element(b, 2), 1.0), way, m);
  const Value rate = step_number(b, 0, kRate);
  set_result(b, 0, stepped(e, p, way, rate));
  set_result(b, 1, m);
  set_result(b, 2, v);
}

void body::adagrad_update(Body& b) {
  enum { kRate, kSmall, kDecay };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = decayed(e, widen(e, b.in(1)), p, b.number(kDecay));
  const Value sum = e.add(widen(e, b.in(2)), e.mul(g, g));
  const Value rate = step_number(b, 0, kRate);
  set_result(b, 0, stepped(e, p, e.div(g, e.add(e.sqrt(sum), b.number(kSmall))), rate));
  set_result(b, 1, sum);
}

// p' = p * (1 - lr * weight_decay) - lr * sign(beta1 * m + (1 - beta1) * g);  m += (g - m) * (1 - beta2)
void body::lion_update(Body& b) {
  enum { kRate, kFirst, kSecond, kDecay };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = widen(e, b.in(1));
  const Value m = widen(e, b.in(2));
  const Value decay = e.number_op(ScalarOp::mul, b.number(kRate), b.number(kDecay));
  const Value shrunk = e.mul(p, complement(e, decay));
  const Value way = e.sign(moved_towards(e, m, g, b.number(kFirst)));
  set_result(b, 0, stepped(e, shrunk, way, b.number(kRate)));
  set_result(b, 1, moved_towards(e, m, g, b.number(kSecond)));
}

namespace {

// s = alpha * s + (1 - alpha) * g * g;  way = g / (sqrt(s - mean * mean) + eps);  buffer = momentum * buffer
// + way
void rmsprop(Body& b, bool centered, bool momentum) {
  enum { kRate, kAlpha, kSmall, kDecay, kMomentum };
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value g = decayed(e, widen(e, b.in(1)), p, b.number(kDecay));
  const Value s = squares(e, widen(e, b.in(2)), g, b.number(kAlpha));
  int result = 1, operand = 3;
  set_result(b, result++, s);
  Value spread = s;
  if (centered) {
    const Value mean = moved_towards(e, widen(e, b.in(operand++)), g, b.number(kAlpha));
    set_result(b, result++, mean);
    spread = e.sub(s, e.mul(mean, mean));
  }
  Value way = e.div(g, e.add(e.sqrt(spread), b.number(kSmall)));
  if (momentum) {
    way = e.add(e.mul(widen(e, b.in(operand)), b.number(kMomentum)), way);
    set_result(b, result, way);
  }
  set_result(b, 0, stepped(e, p, way, b.number(kRate)));
}

}  // namespace

void body::rmsprop_update(Body& b) { rmsprop(b, false, false); }
void body::rmsprop_centered_update(Body& b) { rmsprop(b, true, false); }
void body::rmsprop_momentum_update(Body& b) { rmsprop(b, false, true); }
void body::rmsprop_centered_momentum_update(Body& b) { rmsprop(b, true, true); }

}  // namespace tandem::ops
