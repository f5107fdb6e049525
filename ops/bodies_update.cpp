// Optimizers' updates of one parameter, with the order of operations of PyTorch's single-tensor
// implementations. What depends on numbers alone is computed in float64 by the host; halves are widened and
// rounded once.
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Result j in the type of the operand that it replaces.
void set_result(Body& b, int j, Value v) { b.set(b.e.cast(v, b.type(b.op.writes[j]).dtype), j); }

/// 1 - x
Value complement(Emitter& e, Value x) {
  const Value one = e.number(1);
  return e.number_op(ScalarOp::sub, one, x);
}

/// g + weight_decay * p
Value decayed(Emitter& e, Value g, Value p, Value weight_decay) { return e.add(g, e.mul(p, weight_decay)); }

/// p - lr * d
Value stepped(Emitter& e, Value p, Value d, Value lr) {
  const Value down = e.number_op(ScalarOp::neg, lr);
  return e.add(p, e.mul(d, down));
}

// Attributes of both Adams, as declared.
enum { kLr, kBeta1, kBeta2, kEps, kWeightDecay, kBias1, kBias2 };

// m += (g - m) * (1 - beta1);  v = v * beta2 + (1 - beta2) * g * g
// p += -lr / bias1 * m / (sqrt(v) / sqrt(bias2) + eps)
void adam_step(Body& b, Value p, Value g) {
  Emitter& e = b.e;
  const Value old_m = widen(e, b.in(2));
  const Value old_v = widen(e, b.in(3));
  const Value way = e.sub(g, old_m);
  const Value m = e.add(old_m, e.mul(way, complement(e, b.number(kBeta1))));
  const Value kept = e.mul(old_v, b.number(kBeta2));
  const Value scaled = e.mul(g, complement(e, b.number(kBeta2)));
  const Value v = e.add(kept, e.mul(scaled, g));
  const Value step = e.number_op(ScalarOp::div, b.number(kLr), b.number(kBias1));
  const Value down = e.number_op(ScalarOp::neg, step);
  const Value root = e.number_op(ScalarOp::sqrt, b.number(kBias2));
  const Value denominator = e.add(e.div(e.sqrt(v), root), b.number(kEps));
  const Value moved = e.mul(m, down);
  set_result(b, 0, e.add(p, e.div(moved, denominator)));
  set_result(b, 1, m);
  set_result(b, 2, v);
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
    const Value fresh = e.mul(d, complement(e, b.number(kDampening)));
    buffer = e.add(kept, fresh);
  }
  d = b.integer(kNesterov) ? e.add(d, e.mul(buffer, b.number(kMomentum))) : buffer;
  set_result(b, 0, stepped(e, p, d, b.number(kRate)));
  set_result(b, 1, buffer);
}

void body::adam_update(Body& b) {
  const Value p = widen(b.e, b.in(0));
  adam_step(b, p, decayed(b.e, widen(b.e, b.in(1)), p, b.number(kWeightDecay)));
}

void body::adamw_update(Body& b) {
  Emitter& e = b.e;
  const Value p = widen(e, b.in(0));
  const Value decay = e.number_op(ScalarOp::mul, b.number(kLr), b.number(kWeightDecay));
  const Value shrunk = e.mul(p, complement(e, decay));
  adam_step(b, shrunk, widen(e, b.in(1)));
}

}  // namespace tandem::ops
