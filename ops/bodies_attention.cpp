// Checks, bodies and gradients of attention.def. Halves are widened to float32 first and rounded once at the
// end.
#include <limits>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
enum : int { kCausal, kScaled, kTf32, kScale, kDropoutP, kSeed, kOffset };  // attributes
bool drops(const OpDef& op) { return op.n_attrs > kDropoutP; }

/// Heads of k for those of q: each serves q's / k's of them. Without an axis of heads both are 1.
struct Heads {
  int64_t q = 1, k = 1;
  bool grouped() const { return q != k; }
};
Heads heads_of(const Dims& q, const Dims& k) {
  const int axis = q.rank() - 3;
  return axis < 0 ? Heads{} : Heads{q[axis], k[axis]};
}

/// (..., Hq, L, E) as (..., Hk, Hq / Hk, L, E) where heads are grouped: a view.
Value by_group(Emitter& e, Value x, const Heads& h) {
  if (!h.grouped()) return x;
  Dims sizes = e.type(x).sizes;
  const int axis = sizes.rank() - 3;
  sizes[axis] = h.k;
  sizes.insert(axis + 1, h.q / h.k);
  return e.reshape(x, sizes);
}
/// (..., Hk, S, E) as (..., Hk, 1, S, E), likewise.
Value for_group(Emitter& e, Value x, const Heads& h) {
  return h.grouped() ? e.unsqueeze(x, e.type(x).sizes.rank() - 2) : x;
}
/// Back from by_group.
Value ungrouped(Emitter& e, Value x, const Heads& h) {
  if (!h.grouped()) return x;
  Dims sizes = e.type(x).sizes;
  const int axis = sizes.rank() - 4;
  sizes[axis] = h.q;
  sizes.erase(axis + 1);
  return e.reshape(x, sizes);
}
Value transposed(Emitter& e, Value x) {
  const int rank = e.type(x).sizes.rank();
  return e.transpose(x, rank - 2, rank - 1);
}

/// As given, or 1 / sqrt(E).
Value scale_of(Emitter& e, bool given, Value scale, Value q) {
  if (given) return scale;
  const Value width = e.count(q, {e.type(q).sizes.rank() - 1});
  const Value root = e.number_op(ScalarOp::sqrt, width);
  const Value one = e.number(1);
  return e.number_op(ScalarOp::div, one, root);
}

/// Where position i of q, from the first one on, may see position j of k: j <= i.
Value seen(Emitter& e, int64_t rows, int64_t columns) {
  const auto positions = [&](int64_t n) {
    const Value zero = e.number(0);
    const Value one = e.number(1);
    return e.call(OpId::arange, {zero, one}, {static_cast<int64_t>(DType::int64), n});
  };
  const Value i = e.reshape(positions(rows), {rows, 1});
  const Value j = positions(columns);
  return e.ge(i, j);
}

/// Softmax of the last axis. A row of which nothing is seen, all -infinity, becomes zeros.
Value probabilities(Emitter& e, Value x, bool maybe_none) {
  const Dims axis{e.type(x).sizes.rank() - 1};
  if (!maybe_none || e.type(x).sizes.back() == 0) {
    const Value powers = e.exp(below_max(e, x, axis));
    return e.div(powers, e.sum(powers, axis, true));
  }
  const Value best = e.amax(x, axis, true);
  const Value base = e.where(e.eq(best, -kInfinity), 0.0, best);
  const Value powers = e.exp(e.sub(x, base));
  const Value total = e.sum(powers, axis, true);
  return e.div(powers, e.maximum(total, 1.0));  // 0, or at least the 1 of the largest
}

/// v summed over the groups that share a head of k.
Value of_shared(Emitter& e, Value v, const Heads& h) {
  if (!h.grouped()) return v;
  return e.sum(v, {e.type(v).sizes.rank() - 3}, false);
}

/// Whether a tensor of sizes `from` broadcasts to `to` as it is.
bool broadcasts(const Dims& from, const Dims& to) {
  const int fresh = to.rank() - from.rank();
  bool fits = fresh >= 0;
  for (int i = 0; fits && i < from.rank(); ++i) fits = from[i] == 1 || from[i] == to[fresh + i];
  return fits;
}

}  // namespace

void check::attention(const InferCall& call, std::vector<TensorType>& out) {
  for (int i = 0; i < 3; ++i) need_floating(call, i);
  const TensorType& q = operand(call, 0);
  const Dims &qs = q.sizes, &ks = operand(call, 1).sizes, &vs = operand(call, 2).sizes;
  const int rank = qs.rank();
  if (q.dtype != operand(call, 1).dtype || q.dtype != operand(call, 2).dtype)
    fail_call(call, "operands have different types: " + operand_text(call) + "; cast one of them");
  if (rank < 2 || ks.rank() != rank || vs.rank() != rank)
    fail_call(call,
              "q (..., L, E), k (..., S, E) and v (..., S, Ev) are needed, found " + operand_text(call));
  if (ks.back() != qs.back())
    fail_call(call,
              "q and k have different widths: " + operand_text(call) + "; the last sizes must be equal");
  if (vs[rank - 2] != ks[rank - 2]) fail_call(call, "k and v have different lengths: " + operand_text(call));
  for (int i = 0; i + 2 < rank; ++i) {
    if (ks[i] != vs[i]) fail_call(call, "k and v have different batches or heads: " + operand_text(call));
    if (qs[i] == ks[i]) continue;
    if (i != rank - 3) fail_call(call, "q and k have different batches: " + operand_text(call));
    if (ks[i] == 0 || qs[i] % ks[i] != 0)
      fail_call(call, std::to_string(qs[i]) + " heads of q are no multiple of " + std::to_string(ks[i]) +
                          " of k and v: " + operand_text(call));
  }
  Dims result = qs, weights = qs;
  result[rank - 1] = vs.back();
  weights[rank - 1] = ks[rank - 2];
  if (call.present[3]) {
    const TensorType& mask = operand(call, 3);
    need_tensor(call, 3);
    if (mask.dtype != DType::bool_ && !is_floating(mask.dtype))
      fail_call(call, "the mask must be bool or floating, found " + operand_text(call));
    if (!broadcasts(mask.sizes, weights))
      fail_call(call,
                "the mask does not broadcast to " + to_string(weights) + ", found " + operand_text(call));
  }
  checked_numel(weights);
  out.push_back(result_like(call, 0, q.dtype, result));
  out.push_back(result_like(call, 0, q.dtype, weights));
}

void body::attention(Body& b) {
  Emitter& e = b.e;
  const bool tf32 = b.integer(kTf32) != 0, causal = b.integer(kCausal) != 0;
  const DType type = b.type(0).dtype;
  const Heads heads = heads_of(b.type(0).sizes, b.type(1).sizes);
  const Value q = by_group(e, widen(e, b.in(0)), heads);
  const Value k = for_group(e, widen(e, b.in(1)), heads);
  const Value v = for_group(e, widen(e, b.in(2)), heads);
  Value x = ungrouped(e, e.matmul(q, transposed(e, k), tf32), heads);
  x = e.mul(x, scale_of(e, b.integer(kScaled) != 0, b.number(kScale), b.in(0)));
  const Value mask = b.in(3);
  if (mask) {
    if (e.type(mask).dtype == DType::bool_)
      x = e.where(mask, x, -kInfinity);
    else
      x = e.add(x, e.cast(mask, e.type(x).dtype));
  }
  if (causal) {
    const Dims& sizes = e.type(x).sizes;
    const int rank = sizes.rank();
    x = e.where(seen(e, sizes[rank - 2], sizes[rank - 1]), x, -kInfinity);
  }
  const Value p = probabilities(e, x, static_cast<bool>(mask));
  const Value kept = drops(b.op) ? dropped(e, p, b.number(kDropoutP), b.number(kSeed), b.number(kOffset)) : p;
  const Value y = e.matmul(by_group(e, kept, heads), v, tf32);
  b.set(e.cast(ungrouped(e, y, heads), type));
  b.set(e.cast(p, type), 1);
}

// With d = g v^T (and dropout's zeros): ds = p * (d - sum(d * p)), for q scale * ds k, for k scale * ds^T q,
// for v p^T g. A lane that is not seen has p = 0 and gets nothing.
void gradient::attention(Gradient& r) {
  Emitter& e = r.e;
  const bool tf32 = r.integer(kTf32) != 0, dropout = drops(r.op);
  const Heads heads = heads_of(r.in_type(0).sizes, r.in_type(1).sizes);
  const DType type = r.in_type(0).dtype;
  const auto thinned = [&](Value x) {
    return dropout ? dropped(e, x, r.number(kDropoutP), r.number(kSeed), r.number(kOffset)) : x;
  };
  const Value p = widen(e, r.out(1));
  Value g;
  if (r.grad(0)) g = by_group(e, widen(e, r.grad(0)), heads);
  if (r.needs(2) && g) {
    const Value kept = by_group(e, thinned(p), heads);
    r.set(2, e.cast(of_shared(e, e.matmul(transposed(e, kept), g, tf32), heads), type));
  }
  const bool mask = r.needs(3) && is_floating(r.in_type(3).dtype);
  if (!r.needs(0) && !r.needs(1) && !mask) return;
  Value d;
  if (g) {
    const Value v = for_group(e, widen(e, r.in(2)), heads);
    d = thinned(ungrouped(e, e.matmul(g, transposed(e, v), tf32), heads));
  }
  if (r.grad(1)) {
    const Value own = widen(e, r.grad(1));
    d = d ? e.add(d, own) : own;
  }
  const Value along = e.sum(e.mul(d, p), {e.type(p).sizes.rank() - 1}, true);
  const Value ds = e.mul(p, e.sub(d, along));
  if (mask) r.set(3, e.cast(e.sum_to(ds, r.in_type(3).sizes), r.in_type(3).dtype));
  if (!r.needs(0) && !r.needs(1)) return;
  const Value scale = scale_of(e, r.integer(kScaled) != 0, r.number(kScale), r.needs(0) ? r.in(1) : r.in(0));
  const Value scaled = by_group(e, e.mul(ds, scale), heads);
  if (r.needs(0)) {
    const Value k = for_group(e, widen(e, r.in(1)), heads);
    r.set(0, e.cast(ungrouped(e, e.matmul(scaled, k, tf32), heads), type));
  }
  if (r.needs(1)) {
    const Value q = by_group(e, widen(e, r.in(0)), heads);
    r.set(1, e.cast(of_shared(e, e.matmul(transposed(e, scaled), q, tf32), heads), type));
  }
}

void check::parts(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  const int axis = axis_of(call, 0, x.sizes.rank());
  const Dims sizes = call.list(1);
  int64_t total = 0;
  for (const int64_t s : sizes) {
    if (s < 0) fail_call(call, "a part has a negative size: " + to_string(sizes));
    total = checked_add(total, s, "size of the parts");
  }
  if (sizes.rank() != call.op.n_out || x.sizes.empty() || total != x.sizes[axis])
    fail_call(call, "parts of sizes " + to_string(sizes) + " do not make up axis " + std::to_string(axis) +
                        " of " + to_string(x));
  for (const int64_t s : sizes) {
    out.push_back(x);
    out.back().sizes[axis] = s;
  }
}

void body::parts(Body& b) {
  int64_t start = 0;
  const Dims sizes = b.list(1);
  for (int i = 0; i < b.op.n_out; ++i) {
    b.set(b.e.slice(b.in(0), b.integer(0), start, start + sizes[i]), i);
    start += sizes[i];
  }
}

void gradient::parts(Gradient& r) {
  const Dims sizes = r.list(1);
  const int axis = normalize_axis(r.integer(0), r.in_type(0).sizes.rank(), r.op.name, r.e.location);
  std::vector<Value> grads;
  for (int i = 0; i < r.op.n_out; ++i) {
    Dims part = r.in_type(0).sizes;
    part[axis] = sizes[i];
    grads.push_back(r.grad(i) ? r.grad(i) : r.e.full(part, r.in_type(0).dtype, 0));
  }
  const int64_t word = axis;
  Value joined;
  r.e.emit(OpId::cat, grads, {&word, 1}, &joined);
  r.set(0, joined);
}

}  // namespace tandem::ops
