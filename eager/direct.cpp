#include "tandem/eager/direct.h"

#include <array>

#include "tandem/core/profile.h"
#include "tandem/core/storage.h"
#include "tandem/jit/evaluator_direct.h"

namespace tandem::eager {

namespace {

struct DirectRow {
  void (*unary)(void*, const void*, int64_t) = nullptr;
  void (*binary)(void*, const void*, const void*, int64_t) = nullptr;
};

/// A row for every op whose formula on float32 is a single node over its operands in order.
std::array<DirectRow, ops::kOpCount> make_rows() {
  std::array<DirectRow, ops::kOpCount> rows;
  for (int id = 0; id < ops::kOpCount; ++id) {
    const ops::OpDef& op = ops::def(static_cast<ops::OpId>(id));
    if (op.kind != ops::OpKind::pointwise || op.n_out != 1 || op.n_attrs != 0 || op.n_in > 2) continue;
    if (op.types != ops::TypeRule::same && op.types != ops::TypeRule::floating) continue;
    ops::ScalarGraph g;
    ops::S in[2], out[1];
    for (int i = 0; i < op.n_in; ++i) in[i] = g.node(ops::ScalarOp::load, DType::float32, {}, {}, {}, i);
    op.formula(g, in, out);
    const ops::ScalarNode& n = g[out[0].id];
    if (g.size() != op.n_in + 1 || out[0].id != op.n_in || n.type != DType::float32) continue;
    if (n.in[0] != 0 || (op.n_in == 2 && n.in[1] != 1)) continue;
    if (op.n_in == 1) rows[static_cast<size_t>(id)].unary = jit::direct_unary(n.op, DType::float32);
    if (op.n_in == 2) rows[static_cast<size_t>(id)].binary = jit::direct_binary(n.op, DType::float32);
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

template <bool timed>
bool run_direct(const Call& call, Ref<TensorImpl>* results) {
  if (call.in_place || call.n_words || call.n_in > 2 || call.n_in == 0 || !plain<timed>(call.in[0]))
    return false;
  if (ops::is_user(call.op)) [[unlikely]]
    return false;
  if (core::host_copies.load(std::memory_order_relaxed) != 0) [[unlikely]]
    return false;  // an operand may be one that has to be waited for
  const TensorImpl* a = call.in[0];
  const DirectRow& r = row(call.op);
  if (call.n_in == 2) {
    const TensorImpl* b = call.in[1];
    if (!r.binary || !plain<timed>(b) || !(a->sizes == b->sizes)) return false;
    results[0] = core::make_tensor(a->sizes, DType::float32);
    r.binary(results[0]->data, a->data, b->data, a->numel);
    return true;
  }
  if (!r.unary) return false;
  results[0] = core::make_tensor(a->sizes, DType::float32);
  r.unary(results[0]->data, a->data, a->numel);
  return true;
}

}  // namespace

bool direct(const Call& call, Ref<TensorImpl>* results) { return run_direct<false>(call, results); }
[[gnu::cold]] bool direct_timed(const Call& call, Ref<TensorImpl>* results) {
  return run_direct<true>(call, results);
}

}  // namespace tandem::eager
