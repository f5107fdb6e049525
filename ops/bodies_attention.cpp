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

namespace {

/// Checks q, k and v; the sizes of the result and of the scores.
std::pair<Dims, Dims> attention_sizes(const InferCall& call) {
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
  checked_numel(weights);
  return {result, weights};
}

}  // namespace

void check::attention(const InferCall& call, std::vector<TensorType>& out) {
  const auto [result, weights] = attention_sizes(call);
  if (call.present[3]) {
    const TensorType& mask = operand(call, 3);
    need_tensor(call, 3);
    if (mask.dtype != DType::bool_ && !is_floating(mask.dtype))
      fail_call(call, "the mask must be bool or floating, found " + operand_text(call));
    if (!broadcasts(mask.sizes, weights))
      fail_call(call,
                "the mask does not broadcast to " + to_string(weights) + ", found " + operand_text(call));
  }
  const DType type = operand(call, 0).dtype;
  out.push_back(result_like(call, 0, type, result));
  out.push_back(result_like(call, 0, type, weights));
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

// --- With a number a row kept instead of the probabilities (fused.def) ---

namespace {

enum : int { kWholeScale = 4 };  // the attributes before it are those of attention, and `whole`

/// The scaled scores, those that are not seen as -infinity.
Value scores(Emitter& e, Value q, Value k, const Heads& heads, Value scale, bool causal, bool tf32) {
  const Value wide_q = by_group(e, widen(e, q), heads);
  const Value wide_k = for_group(e, widen(e, k), heads);
  Value x = ungrouped(e, e.matmul(wide_q, transposed(e, wide_k), tf32), heads);
  x = e.mul(x, scale);
  if (!causal) return x;
  const Dims& sizes = e.type(x).sizes;
  const int rank = sizes.rank();
  return e.where(seen(e, sizes[rank - 2], sizes[rank - 1]), x, -kInfinity);
}

}  // namespace

void check::attention_forward(const InferCall& call, std::vector<TensorType>& out) {
  const auto [result, weights] = attention_sizes(call);
  const DType type = operand(call, 0).dtype;
  Dims rows = result;
  rows.erase(rows.rank() - 1);
  out.push_back(result_like(call, 0, type, result));
  out.push_back(result_like(call, 0, type == DType::float64 ? type : DType::float32, rows));
}

void check::attention_backward(const InferCall& call, std::vector<TensorType>& out) {
  const auto [result, weights] = attention_sizes(call);
  Dims rows = result;
  rows.erase(rows.rank() - 1);
  static constexpr const char* kNames[] = {"y", "stats", "the gradient of y", "the gradient of stats"};
  for (int i = 3; i < 7; ++i) {
    if (!call.present[static_cast<size_t>(i)]) continue;
    need_floating(call, i);
    const Dims& wanted = i == 3 || i == 5 ? result : rows;
    if (operand(call, i).sizes != wanted)
      fail_call(call, std::string(kNames[i - 3]) + " must have the sizes " + to_string(wanted) + ", found " +
                          operand_text(call));
  }
  for (int i = 0; i < 3; ++i) out.push_back(operand(call, i));
}

void body::attention_forward(Body& b) {
  Emitter& e = b.e;
  const bool tf32 = b.integer(kTf32) != 0;
  const DType type = b.type(0).dtype;
  const Heads heads = heads_of(b.type(0).sizes, b.type(1).sizes);
  const Value scale = scale_of(e, b.integer(kScaled) != 0, b.number(kWholeScale), b.in(0));
  const Value x = scores(e, b.in(0), b.in(1), heads, scale, b.integer(kCausal) != 0, tf32);
  const Value v = for_group(e, widen(e, b.in(2)), heads);
  const Dims axis{e.type(x).sizes.rank() - 1};
  Value p = x, stats;
  if (e.type(x).sizes.back() == 0) {
    Dims rows = e.type(x).sizes;
    rows.erase(rows.rank() - 1);
    stats = e.full(rows, e.type(x).dtype, -kInfinity);
  } else {
    const Value best = e.amax(x, axis, true);
    const Value powers = e.exp(e.sub(x, best));
    const Value total = e.sum(powers, axis, true);
    p = e.div(powers, total);
    const Value kept = e.add(best, e.log(total));
    Dims rows = e.type(kept).sizes;
    rows.erase(rows.rank() - 1);
    stats = e.reshape(kept, rows);
  }
  const Value y = e.matmul(by_group(e, p, heads), v, tf32);
  b.set(e.cast(ungrouped(e, y, heads), type));
  b.set(stats, 1);
}

void gradient::attention_forward(Gradient& r) {
  Emitter& e = r.e;
  const Value grad = r.grad(0) ? r.grad(0) : e.full_like(r.out(0), 0);
  const Value in[] = {r.in(0), r.in(1), r.in(2), r.out(0), r.out(1), grad, r.grad(1), r.number(kWholeScale)};
  const int64_t words[] = {r.integer(kCausal), r.integer(kScaled), r.integer(kTf32), 0};
  Value out[3];
  e.emit(OpId::attention_backward, in, words, out);
  for (int i = 0; i < 3; ++i)
    if (r.needs(i)) r.set(i, out[i]);
}

// With p = exp(scores - stats) and d = g v^T: ds = p (d - sum(g y) + what flowed to stats), for q scale ds k,
// for k scale ds^T q, for v p^T g.
void body::attention_backward(Body& b) {
  Emitter& e = b.e;
  const bool tf32 = b.integer(kTf32) != 0;
  const DType type = b.type(0).dtype;
  const Heads heads = heads_of(b.type(0).sizes, b.type(1).sizes);
  const Value scale = scale_of(e, b.integer(kScaled) != 0, b.number(kWholeScale), b.in(0));
  const Value x = scores(e, b.in(0), b.in(1), heads, scale, b.integer(kCausal) != 0, tf32);
  const DType wide = e.type(x).dtype;
  const int last = e.type(x).sizes.rank() - 1;
  const Value stats = e.unsqueeze(e.cast(b.in(4), wide), last);
  const Value p = e.exp(e.sub(x, stats));
  const Value g = e.cast(b.in(5), wide);
  const Value y = e.cast(b.in(3), wide);
  Value along = e.sum(e.mul(g, y), {last}, true);
  if (b.in(6)) along = e.sub(along, e.unsqueeze(e.cast(b.in(6), wide), last));
  const Value by_head = by_group(e, g, heads);
  const Value v = for_group(e, widen(e, b.in(2)), heads);
  const Value d = ungrouped(e, e.matmul(by_head, transposed(e, v), tf32), heads);
  const Value ds = e.mul(p, e.sub(d, along));
  const Value scaled = by_group(e, e.mul(ds, scale), heads);
  const Value k = for_group(e, widen(e, b.in(1)), heads);
  b.set(e.cast(ungrouped(e, e.matmul(scaled, k, tf32), heads), type));
  const Value q = by_group(e, widen(e, b.in(0)), heads);
  b.set(e.cast(of_shared(e, e.matmul(transposed(e, scaled), q, tf32), heads), type), 1);
  const Value seen_by = by_group(e, p, heads);
  b.set(e.cast(of_shared(e, e.matmul(transposed(e, seen_by), by_head, tf32), heads), type), 2);
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
