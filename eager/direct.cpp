#include "tandem/eager/direct.h"

#include <algorithm>
#include <array>
#include <bit>

#include "tandem/core/impl_block.h"
#include "tandem/core/profile.h"
#include "tandem/core/storage.h"
#include "tandem/eager/views.h"
#include "tandem/jit/evaluator_direct.h"

namespace tandem::eager {

namespace {

/// How an op is run, if it is a short one.
enum class Way : uint8_t {
  none,
  unary,      // f(a)
  binary,     // f(a, b); either may be a number
  constant,   // f(a, c) with a constant of the formula
  reduction,  // of all elements
  reshape,
};

struct DirectRow {
  Way way = Way::none;
  bool in_place = false;  // the in-place form changes operand 0
  float constant = 0;
  jit::DirectUnary unary = nullptr;
  // With `a` or `b` one element for all; null where there is no such loop.
  jit::DirectBinary binary = nullptr, first = nullptr, second = nullptr;
  jit::DirectReduction rows = nullptr;
};

/// For an op whose formula on float32 is a single node over its operands in order, or over one and a
/// constant.
DirectRow pointwise_row(const ops::OpDef& op) {
  DirectRow row;
  if (op.n_out != 1 || op.n_attrs != 0 || op.n_in < 1 || op.n_in > 2) return row;
  if (op.types != ops::TypeRule::same && op.types != ops::TypeRule::arithmetic &&
      op.types != ops::TypeRule::floating)
    return row;
  ops::ScalarGraph g;
  ops::S in[2], out[1];
  for (int i = 0; i < op.n_in; ++i) in[i] = g.node(ops::ScalarOp::load, DType::float32, {}, {}, {}, i);
  op.formula(g, in, out);
  const ops::ScalarNode& n = g[out[0].id];
  const bool constant = op.n_in == 1 && g.size() == 3 && g[1].op == ops::ScalarOp::constant &&
                        g[1].type == DType::float32 && ops::arity(n.op) == 2;
  const int leaves = constant ? 2 : op.n_in;
  if (g.size() != leaves + 1 || out[0].id != leaves || n.type != DType::float32) return row;
  if (n.in[0] != 0 || (leaves == 2 && n.in[1] != 1)) return row;
  row.in_place = op.writes[0] == 0;
  if (leaves == 1) {
    row.unary = jit::direct_unary(n.op, DType::float32);
    if (row.unary) row.way = Way::unary;
    return row;
  }
  row.binary = jit::direct_binary(n.op, DType::float32);
  row.first = jit::direct_binary_first(n.op, DType::float32);
  row.second = jit::direct_binary_second(n.op, DType::float32);
  if (constant) {
    row.constant = static_cast<float>(std::bit_cast<double>(g[1].bits));
    if (row.second) row.way = Way::constant;
  } else if (row.binary) {
    row.way = Way::binary;
  }
  return row;
}

std::array<DirectRow, ops::kOpCount> make_rows() {
  std::array<DirectRow, ops::kOpCount> rows;
  for (int id = 0; id < ops::kOpCount; ++id) {
    const ops::OpDef& op = ops::def(static_cast<ops::OpId>(id));
    DirectRow& row = rows[static_cast<size_t>(id)];
    if (op.kind == ops::OpKind::pointwise) {
      row = pointwise_row(op);
    } else if (op.kind == ops::OpKind::reduction && op.reduce != ops::ReduceOp::argmax &&
               op.reduce != ops::ReduceOp::argmin) {
      row.rows = jit::direct_reduction(op.reduce, DType::float32);
      if (row.rows) row.way = Way::reduction;
    } else if (op.id == ops::OpId::reshape) {
      row.way = Way::reshape;
    }
  }
  return rows;
}

[[gnu::always_inline]] inline const DirectRow& row(ops::OpId op) {
  static const std::array<DirectRow, ops::kOpCount> rows = make_rows();
  return rows[static_cast<size_t>(op)];
}

// Larger tensors take the general way, which uses all threads; while a profile runs, so do all, to be timed.
template <bool timed>
[[gnu::always_inline]] inline bool plain(const TensorImpl* t) {
  return t && t->dtype == DType::float32 && t->has(core::kContiguous) && !t->has(core::kPending) &&
         t->numel <=
             (timed ? core::kUntimedElements : core::untimed_elements.load(std::memory_order_relaxed)) &&
         t->device.type == DeviceType::cpu;
}

/// Whether an in-place call may write `t` while it reads `read`, without a look at histories and overlaps.
[[gnu::always_inline]] inline bool writable(const TensorImpl* t, const TensorImpl* read) {
  if (modes().grad && (t->flags & (core::kRequiresGrad | core::kView | core::kBlindView))) return false;
  return !read || read->data == t->data || !(read->storage == t->storage);
}

[[gnu::always_inline]] inline void* result_like(const TensorImpl* a, bool in_place,
                                                Ref<TensorImpl>* results) {
  if (in_place) return a->data;
  results[0] = core::make_tensor(a->sizes, DType::float32);
  return results[0]->data;
}

float as_float(const int64_t* words) {
  switch (static_cast<NumberKind>(words[0])) {
    case NumberKind::floating:
      return static_cast<float>(std::bit_cast<double>(words[1]));
    case NumberKind::integer:
      return static_cast<float>(words[1]);
    case NumberKind::bool_:
      return words[1] != 0 ? 1.0f : 0.0f;
  }
  return 0;
}

template <bool timed>
bool with_number(const DirectRow& r, const Call& call, Ref<TensorImpl>* results) {
  const bool first = call.numbers == 1;
  if ((!first && call.numbers != 2) || (first && call.in_place)) return false;
  const TensorImpl* t = call.in[first ? 1 : 0];
  const jit::DirectBinary f = first ? r.first : r.second;
  if (!f || !plain<timed>(t) || (call.in_place && !writable(t, nullptr))) return false;
  const float number = as_float(call.words);
  void* out = result_like(t, call.in_place, results);
  if (first)
    f(out, &number, t->data, t->numel);
  else
    f(out, t->data, &number, t->numel);
  return true;
}

/// A contiguous tensor of sizes that are right; what is to be refused takes the general way.
bool reshape(const Call& call, Ref<TensorImpl>* results) {
  const TensorImpl* a = call.in[0];
  if (!a || !a->has(core::kContiguous) || a->has(core::kPending) || a->numel == 0) return false;
  const auto rank = static_cast<int>(call.words[0]);
  const int64_t* sizes = call.words + 1;
  int64_t product = 1;
  int open = -1;
  for (int i = 0; i < rank; ++i) {
    if (sizes[i] == -1 && open < 0)
      open = i;
    else if (sizes[i] <= 0 || __builtin_mul_overflow(product, sizes[i], &product))
      return false;
  }
  int64_t filled[kMaxRank];
  if (open >= 0) {
    if (a->numel % product != 0) return false;
    std::copy(sizes, sizes + rank, filled);
    filled[open] = a->numel / product;
    sizes = filled;
  } else if (product != a->numel) {
    return false;
  }
  TensorImpl* t = core::pop_impl();
  t->refs.set(1);
  results[0] = Ref<TensorImpl>::adopt(t);
  t->dtype = a->dtype;
  t->device = a->device;
  t->data = a->data;
  t->numel = a->numel;
  t->offset = a->offset;
  t->storage = a->storage;
  core::lay_out(*t, sizes, rank);
  mark_view(call, t, modes().grad);
  return true;
}

template <bool timed>
[[gnu::noinline]] bool compute(const DirectRow& r, const Call& call, Ref<TensorImpl>* results) {
  if (core::host_copies.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return false;  // an operand may be one that has to be waited for
  if (call.in_place && !r.in_place) return false;
  const TensorImpl* a = call.in[0];
  if (r.way == Way::binary && call.numbers != 0) return with_number<timed>(r, call, results);
  if (!plain<timed>(a)) return false;
  switch (r.way) {
    case Way::binary: {
      const TensorImpl* b = call.in[1];
      if (!plain<timed>(b) || !(a->sizes == b->sizes) || (call.in_place && !writable(a, b))) return false;
      void* out = result_like(a, call.in_place, results);
      r.binary(out, a->data, b->data, a->numel);
      return true;
    }
    case Way::unary:
    case Way::constant: {
      if (call.in_place && !writable(a, nullptr)) return false;
      void* out = result_like(a, call.in_place, results);
      if (r.way == Way::unary)
        r.unary(out, a->data, a->numel);
      else
        r.second(out, a->data, &r.constant, a->numel);
      return true;
    }
    case Way::reduction:
      // Words: keepdim, then the axes; none are all.
      if (call.words[0] != 0 || call.words[1] != 0 || a->numel == 0) return false;
      results[0] = core::make_tensor({}, DType::float32);
      r.rows(results[0]->data, a->data, 1, a->numel);
      return true;
    case Way::reshape:
    case Way::none:
      break;
  }
  return false;
}

template <bool timed>
[[gnu::always_inline]] inline bool run_direct(const Call& call, Ref<TensorImpl>* results) {
  if (call.n_in > 2 || call.n_in == 0 || ops::is_user(call.op)) [[unlikely]]
    return false;
  const DirectRow& r = row(call.op);
  if (r.way == Way::none) return false;
  if (r.way == Way::reshape) return (timed || !core::profiling()) && reshape(call, results);
  return compute<timed>(r, call, results);
}

}  // namespace

bool direct(const Call& call, Ref<TensorImpl>* results) { return run_direct<false>(call, results); }
[[gnu::cold]] bool direct_timed(const Call& call, Ref<TensorImpl>* results) {
  return run_direct<true>(call, results);
}

}  // namespace tandem::eager
