// An in-place op on view v of parent p notes its own node for v, and for p a node `written` with two
// operands: p as of before, and v. Its gradient cuts v's part out of the gradient for the first and hands
// that part to the second. The base counts such changes; a view that has seen fewer notes its view op again
// before it is used.
#include "tandem/eager/views.h"

#include <algorithm>
#include <mutex>
#include <new>

#include "tandem/core/free_lists.h"
#include "tandem/eager/emitter.h"

namespace tandem::eager {

namespace {

ViewNode& own_view(const TensorImpl* t) { return *static_cast<ViewNode*>(t->view.get()); }

int64_t view_bytes(uint32_t n_words) {
  return static_cast<int64_t>(sizeof(ViewNode) + n_words * sizeof(int64_t));
}

// The parent, if this was its last handle, and what it shows die in a loop (core/tensor_impl.cpp).
void destroy_view(core::TapeNode* node) {
  auto* n = static_cast<ViewNode*>(node);
  const int64_t nbytes = view_bytes(n->n_words);
  n->~ViewNode();
  core::push_block(n, nbytes);
}

[[gnu::always_inline]] inline ViewNode* make_view_node(const ViewOf& of, TensorImpl* base) {
  const auto n_words = static_cast<uint32_t>(of.words.size());
  auto* n = new (core::pop_block(view_bytes(n_words))) ViewNode(of, base);
  n->refs.set(1);
  n->destroy = destroy_view;
  copy_words(reinterpret_cast<int64_t*>(n + 1), of.words.data(), n_words);
  return n;
}

// Reading a view may change it (refresh_view), and threads may read one at the same time.
constinit std::mutex refreshing;

/// Gives the view the history of its parent, which is up to date. True if it has a node of the tape for that.
bool follow(TensorImpl* view, TensorImpl* parent) {
  if (!parent->has(core::kRequiresGrad)) return false;
  if (!view->view && interceptor_ && !interceptor_->has_tape()) {
    view->set(core::kRequiresGrad, true);
    return false;
  }
  ViewOf v;
  view_of(view, v);
  Ref<TensorImpl> result(view);
  note({.op = v.op,
        .n_in = 1,
        .n_words = static_cast<uint32_t>(v.words.size()),
        .in = &parent,
        .words = v.words.data(),
        .where = v.where},
       &result);
  return true;
}

}  // namespace

bool view_of(const TensorImpl* t, ViewOf& out) {
  if (!t->has(core::kView)) return false;
  if (!t->view) return interceptor_ && interceptor_->view(t, out);
  const ViewNode& n = own_view(t);
  out = {n.parent.get(), n.op, {n.words(), n.n_words}, n.where};
  return true;
}

std::vector<TensorImpl*> lineage(TensorImpl* t) {
  std::vector<TensorImpl*> out{t};
  ViewOf v;
  while (view_of(out.back(), v)) out.push_back(v.parent);
  return out;
}

TensorImpl* base_of_view(TensorImpl* t) {
  for (ViewOf v; t->has(core::kView);) {
    if (t->view) {
      const ViewNode& n = own_view(t);
      return n.base ? n.base.get() : n.parent.get();
    }
    if (!view_of(t, v)) break;
    t = v.parent;
  }
  return t;
}

Ref<core::TapeNode> view_node(const ViewOf& of) {
  return Ref<core::TapeNode>::adopt(make_view_node(of, base_of(of.parent)));
}

void mark_view(const Call& call, TensorImpl* view, bool grad) {
  if (!is_floating(view->dtype)) return;
  if (!grad) return view->set(core::kBlindView, true);
  TensorImpl* base = base_of(call.in[0]);
  view->history = base->history;
  view->set(core::kView, true);
  view->view = Ref<core::TapeNode>::adopt(
      make_view_node({call.in[0], call.op, {call.words, call.n_words}, call.where}, base));
}

void refresh_view(TensorImpl* t) {
  if (t->history == base_of(t)->history) return;
  const std::vector<TensorImpl*> chain = lineage(t);
  const uint32_t now = chain.back()->history;
  std::vector<Ref<core::TapeNode>> before;  // dies without the lock, with what programs gave it
  std::vector<TensorImpl*> changed;
  {
    const std::lock_guard lock(refreshing);
    for (size_t i = chain.size() - 1; i-- > 0;) {
      TensorImpl* view = chain[i];
      if (view->history == now) continue;
      before.push_back(view->grad_fn);
      if (follow(view, chain[i + 1])) changed.push_back(view);
      view->history = now;  // others look at the rest only when they see this
    }
  }
  if (interceptor_) return;
  for (TensorImpl* view : changed) core::slot_changed(*view);
}

void spread_history(TensorImpl* t, Location where) {
  const std::vector<TensorImpl*> chain = lineage(t);
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    TensorImpl* view = chain[i];
    TensorImpl* parent = chain[i + 1];
    ViewOf v;
    view_of(view, v);
    Ref<core::TapeNode> ref = new_node(2, 1, static_cast<uint32_t>(v.words.size()));
    Node& n = *as_node(ref.get());
    n.op = v.op;
    n.written_view = true;
    n.where = where;
    std::copy(v.words.begin(), v.words.end(), n.words.begin());
    n.in[0].type = n.out[0].type = {parent->dtype, parent->device, false, parent->sizes};
    n.in[1].type = {view->dtype, view->device, false, view->sizes};
    n.in[0].edge = edge_of(parent);
    n.in[1].edge = edge_of(view);
    n.sequence = next_sequence(n);
    parent->grad_fn = std::move(ref);
    parent->output_index = 0;
    parent->set(core::kRequiresGrad, true);
  }
  const uint32_t history = chain.back()->history + 1;
  for (TensorImpl* c : chain) {
    c->history = history;
    if (!interceptor_) core::slot_changed(*c);
  }
}

void spread_flags(TensorImpl* t) {
  const std::vector<TensorImpl*> chain = lineage(t);
  const uint32_t history = chain.back()->history + 1;
  for (TensorImpl* c : chain) {
    c->history = history;
    c->set(core::kRequiresGrad, true);
  }
}

void spread_gradient(const Node& n, const Ref<TensorImpl>& grad, std::vector<Ref<TensorImpl>>& out) {
  EagerEmitter e(n.where);
  const ops::OpDef& op = ops::def(n.op);
  const ops::SplitWords split = ops::split_words(op, {n.words.data(), n.words.size()}, 0);
  const ops::Value g = e.add(grad);
  if (n.in[1].edge) {
    ops::Value part;
    e.emit(n.op, {&g, 1}, split.structural, &part);
    out[1] = e.tensor(part);
  }
  if (!n.in[0].edge || numel(n.in[1].type.sizes) == numel(n.in[0].type.sizes)) return;
  const ops::Value ones = e.full(n.in[1].type.sizes, grad->dtype, 1.0);
  const ops::Value operand{}, result{};
  const bool needed = true;
  ops::Value mask;
  ops::Gradient rule{.e = e,
                     .op = op,
                     .operands = {&operand, 1},
                     .operand_types = {&n.in[0].type, 1},
                     .outputs = {&result, 1},
                     .grads = {&ones, 1},
                     .words = split.structural,
                     .needed = {&needed, 1},
                     .results = &mask};
  ops::emit_gradient(rule);
  out[0] = e.tensor(e.where(e.gt(mask, 0.0), 0.0, g));
}

}  // namespace tandem::eager
