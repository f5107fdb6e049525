// Checks, bodies and gradients of recurrent.def. Halves are widened to float32 first and rounded once at the
// end.
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Part `k` of the last axis, whose parts are as wide as a state.
Value gate(Emitter& e, Value gates, int64_t k, int64_t width) {
  return e.slice(gates, -1, k * width, (k + 1) * width);
}

/// Two sums of gates (..., n * H) of one type and size, and a state (..., H).
void need_gates(const InferCall& call, int64_t n) {
  for (int i = 0; i < 3; ++i) need_floating(call, i);
  const TensorType &a = operand(call, 0), &b = operand(call, 1), &state = operand(call, 2);
  if (a.dtype != b.dtype || a.dtype != state.dtype)
    fail_call(call, "operands have different types: " + operand_text(call) + "; cast one of them");
  Dims wanted = state.sizes;
  if (!wanted.empty()) wanted[wanted.rank() - 1] = checked_mul(wanted.back(), n, "size of the gates");
  if (wanted.empty() || a.sizes != wanted || b.sizes != wanted)
    fail_call(call, "two sums of gates (..., " + std::to_string(n) +
                        " H) and a state (..., H) are needed, found " + operand_text(call));
}

struct Lstm {
  Value i, f, g, o, c, tanh_c;
};
Lstm lstm(Emitter& e, Value a, Value b, Value state) {
  const int64_t width = e.type(state).sizes.back();
  const Value x = widen(e, a);
  const Value h = widen(e, b);
  const auto sum = [&](int64_t k) {  // of slices: slices of a sum would have it stored
    const Value first = gate(e, x, k, width);
    return e.add(first, gate(e, h, k, width));
  };
  Lstm s;
  s.i = e.sigmoid(sum(0));
  s.f = e.sigmoid(sum(1));
  s.g = e.tanh(sum(2));
  s.o = e.sigmoid(sum(3));
  const Value kept = e.mul(s.f, widen(e, state));
  s.c = e.add(kept, e.mul(s.i, s.g));
  s.tanh_c = e.tanh(s.c);
  return s;
}

struct Gru {
  Value r, z, n, rest;  // rest: what r multiplies
};
Gru gru(Emitter& e, Value a, Value b, int64_t width) {
  const Value x = widen(e, a);
  const Value h = widen(e, b);
  const auto sum = [&](int64_t k) {
    const Value first = gate(e, x, k, width);
    return e.add(first, gate(e, h, k, width));
  };
  Gru s;
  s.r = e.sigmoid(sum(0));
  s.z = e.sigmoid(sum(1));
  s.rest = gate(e, h, 2, width);
  const Value first = gate(e, x, 2, width);
  s.n = e.tanh(e.add(first, e.mul(s.r, s.rest)));
  return s;
}

/// g * y * (1 - y) and g * (1 - y^2)
Value through_sigmoid(Emitter& e, Value g, Value y) { return e.mul(g, e.mul(y, e.sub(1.0, y))); }
Value through_tanh(Emitter& e, Value g, Value y) { return e.mul(g, e.sub(1.0, e.square(y))); }

Value joined(Emitter& e, std::initializer_list<Value> gates, DType type) {
  Value out;
  const int64_t axis = -1;
  e.emit(OpId::cat, {gates.begin(), gates.size()}, {&axis, 1}, &out);
  return e.cast(out, type);
}

}  // namespace

void check::lstm_gates(const InferCall& call, std::vector<TensorType>& out) {
  need_gates(call, 4);
  out.push_back(operand(call, 2));
  out.push_back(operand(call, 2));
}

void body::lstm_gates(Body& b) {
  const Lstm s = lstm(b.e, b.in(0), b.in(1), b.in(2));
  b.set(b.e.cast(b.e.mul(s.o, s.tanh_c), b.type(2).dtype));
  b.set(b.e.cast(s.c, b.type(2).dtype), 1);
}

void gradient::lstm_gates(Gradient& r) {
  Emitter& e = r.e;
  const DType type = r.in_type(2).dtype;
  const Lstm s = lstm(e, r.in(0), r.in(1), r.in(2));
  Value gh, gc, to_o;
  if (r.grad(0)) {
    gh = widen(e, r.grad(0));
    to_o = through_sigmoid(e, e.mul(gh, s.tanh_c), s.o);
    gc = through_tanh(e, e.mul(gh, s.o), s.tanh_c);
  } else {
    to_o = e.full_like(s.o, 0);
  }
  if (r.grad(1)) {
    const Value own = widen(e, r.grad(1));
    gc = gc ? e.add(own, gc) : own;
  }
  if (r.needs(2)) r.set(2, e.cast(e.mul(gc, s.f), type));
  if (!r.needs(0) && !r.needs(1)) return;
  const Value to_i = through_sigmoid(e, e.mul(gc, s.g), s.i);
  const Value to_f = through_sigmoid(e, e.mul(gc, widen(e, r.in(2))), s.f);
  const Value to_g = through_tanh(e, e.mul(gc, s.i), s.g);
  const Value gates = joined(e, {to_i, to_f, to_g, to_o}, type);
  for (int i = 0; i < 2; ++i)
    if (r.needs(i)) r.set(i, gates);
}

void check::gru_gates(const InferCall& call, std::vector<TensorType>& out) {
  need_gates(call, 3);
  out.push_back(operand(call, 2));
}

// (1 - z) * n + z * h as n + z * (h - n)
void body::gru_gates(Body& b) {
  Emitter& e = b.e;
  const Gru s = gru(e, b.in(0), b.in(1), b.type(2).sizes.back());
  const Value moved = e.mul(s.z, e.sub(widen(e, b.in(2)), s.n));
  b.set(e.cast(e.add(s.n, moved), b.type(2).dtype));
}

void gradient::gru_gates(Gradient& r) {
  Emitter& e = r.e;
  const DType type = r.in_type(2).dtype;
  const Value g = widen(e, r.grad());
  const Gru s = gru(e, r.in(0), r.in(1), r.in_type(2).sizes.back());
  if (r.needs(2)) r.set(2, e.cast(e.mul(g, s.z), type));
  if (!r.needs(0) && !r.needs(1)) return;
  const Value to_z = through_sigmoid(e, e.mul(g, e.sub(widen(e, r.in(2)), s.n)), s.z);
  const Value to_n = through_tanh(e, e.mul(g, e.sub(1.0, s.z)), s.n);
  const Value to_r = through_sigmoid(e, e.mul(to_n, s.rest), s.r);
  if (r.needs(0)) r.set(0, joined(e, {to_r, to_z, to_n}, type));
  if (r.needs(1)) r.set(1, joined(e, {to_r, to_z, e.mul(to_n, s.r)}, type));
}

}  // namespace tandem::ops
