#include "tandem/eager/direct.h"

#include <algorithm>
#include <array>
#include <bit>

#include "tandem/core/impl_block.h"
#include "tandem/core/profile.h"
#include "tandem/core/storage.h"
#include "tandem/eager/direct_rows.h"
#include "tandem/eager/views.h"

namespace tandem::eager {

namespace {

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

DirectRows make_rows() {
  DirectRows rows;
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
    } else if (op.id == ops::OpId::permute) {
      row.way = Way::permute;
    } else if (op.id == ops::OpId::slice) {
      row.way = Way::slice;
    } else if (op.id == ops::OpId::select) {
      row.way = Way::select;
    }
  }
  return rows;
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
  if (!f || !directly<timed>(t) || (call.in_place && !writable(t, nullptr))) return false;
  const float number = as_float(call.words);
  void* out = result_like(t, call.in_place, results);
  if (first)
    f(out, &number, t->data, t->numel);
  else
    f(out, t->data, &number, t->numel);
  return true;
}

/// Another tensor over the memory of `a`, its sizes and strides still to be set.
[[gnu::always_inline]] inline TensorImpl* shown(const TensorImpl* a, Ref<TensorImpl>* results) {
  TensorImpl* t = core::pop_impl();
  t->refs.set(1);
  results[0] = Ref<TensorImpl>::adopt(t);
  t->dtype = a->dtype;
  t->device = a->device;
  t->data = a->data;
  t->offset = a->offset;
  t->storage = a->storage;
  return t;
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
  TensorImpl* t = shown(a, results);
  t->numel = a->numel;
  core::lay_out(*t, sizes, rank);
  mark_view(call, t, modes().grad);
  return true;
}

void set_axis(TensorImpl* t, int i, int64_t size, int64_t stride) {
  t->sizes[i] = size;
  t->strides[i] = stride;
}

void finish_view(const Call& call, TensorImpl* t, int64_t skipped) {
  t->offset += skipped;
  t->data = static_cast<char*>(t->data) + skipped * itemsize(t->dtype);
  t->numel = numel(t->sizes);
  t->set(core::kContiguous, is_contiguous(t->sizes, t->strides));
  mark_view(call, t, modes().grad);
}

/// Axes in another order, and parts along an axis, with axes and positions that lie in the tensor and are not
/// counted from its end.
[[gnu::noinline]] bool other_view(Way way, const Call& call, Ref<TensorImpl>* results) {
  const TensorImpl* a = call.in[0];
  if (!a || a->has(core::kPending) || a->numel == 0) return false;
  const int rank = a->sizes.rank();
  const int64_t* const w = call.words;
  if (way == Way::permute) {
    if (w[0] != rank) return false;
    uint32_t seen = 0;
    for (int i = 0; i < rank; ++i) {
      if (w[1 + i] < 0 || w[1 + i] >= rank) return false;
      seen |= 1u << w[1 + i];
    }
    if (seen != (1u << rank) - 1) return false;
    TensorImpl* t = shown(a, results);
    t->sizes.resize(rank);
    t->strides.resize(rank);
    for (int i = 0; i < rank; ++i) {
      const auto from = static_cast<int>(w[1 + i]);
      set_axis(t, i, a->sizes[from], a->strides[from]);
    }
    finish_view(call, t, 0);
    return true;
  }
  if (w[0] < 0 || w[0] >= rank) return false;
  const auto axis = static_cast<int>(w[0]);
  const int64_t first = w[1], size = a->sizes[axis], stride = a->strides[axis];
  if (first < 0 || first >= size) return false;
  const bool one = way == Way::select;
  if (!one && (w[2] <= first || w[2] > size || w[3] <= 0)) return false;
  TensorImpl* t = shown(a, results);
  t->sizes.resize(rank - one);
  t->strides.resize(rank - one);
  for (int i = 0; i < axis; ++i) set_axis(t, i, a->sizes[i], a->strides[i]);
  if (!one) {
    const int64_t length = (w[2] - first - 1) / w[3] + 1;
    set_axis(t, axis, length, length > 1 ? stride * w[3] : stride);
  }
  for (int i = axis + 1; i < rank; ++i) set_axis(t, i - one, a->sizes[i], a->strides[i]);
  finish_view(call, t, first * stride);
  return true;
}

template <bool timed>
[[gnu::noinline]] bool compute(const DirectRow& r, const Call& call, Ref<TensorImpl>* results) {
  if (core::host_copies.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return false;  // an operand may be one that has to be waited for
  if (call.in_place && !r.in_place) return false;
  const TensorImpl* a = call.in[0];
  if (r.way == Way::binary && call.numbers != 0) return with_number<timed>(r, call, results);
  if (!directly<timed>(a)) return false;
  switch (r.way) {
    case Way::binary: {
      const TensorImpl* b = call.in[1];
      if (!directly<timed>(b) || !(a->sizes == b->sizes) || (call.in_place && !writable(a, b))) return false;
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
    case Way::permute:
    case Way::slice:
    case Way::select:
    case Way::none:
      break;
  }
  return false;
}

template <bool timed>
[[gnu::always_inline]] inline bool run_direct(const Call& call, Ref<TensorImpl>* results) {
  if (call.n_in > 2 || call.n_in == 0 || ops::is_user(call.op)) [[unlikely]]
    return false;
  const DirectRow& r = direct_rows()[static_cast<size_t>(call.op)];
  if (r.way == Way::none) return false;
  if (r.way >= Way::reshape)
    return (timed || !core::profiling()) &&
           (r.way == Way::reshape ? reshape(call, results) : other_view(r.way, call, results));
  return compute<timed>(r, call, results);
}

}  // namespace

const DirectRows& direct_rows() {
  static const DirectRows rows = make_rows();
  return rows;
}

bool direct(const Call& call, Ref<TensorImpl>* results) { return run_direct<false>(call, results); }
[[gnu::cold]] bool direct_timed(const Call& call, Ref<TensorImpl>* results) {
  return run_direct<true>(call, results);
}

}  // namespace tandem::eager
