// Which tensors show whose memory, and what that means for histories: the history of a memory belongs to its
// base; an in-place op on a view gives the base a history that goes through the view; other views follow when
// they are used next. Real views own a node that names parent, base and view op; views of a running traced
// call are known to the interceptor. Used by the thread that may write the tensors; `refresh` by all that
// read them.
#pragma once

#include "tandem/eager/tape.h"

namespace tandem::eager {

/// What a real view owns: on the tape it is no node. Its words follow it in one block of the allocator.
struct ViewNode : core::TapeNode {
  Ref<TensorImpl> parent, base;  // base: null if it is the parent
  Location where;
  ops::OpId op;
  uint32_t n_words;

  ViewNode(const ViewOf& of, TensorImpl* root)
      : parent(of.parent),
        base(root == of.parent ? nullptr : root),
        where(of.where),
        op(of.op),
        n_words(static_cast<uint32_t>(of.words.size())) {}

  const int64_t* words() const { return reinterpret_cast<const int64_t*>(this + 1); }
};

/// True, and what `t` shows, if it is a view that follows its parent's history.
bool view_of(const TensorImpl* t, ViewOf& out);
/// From `t`, which comes first, up to its base.
std::vector<TensorImpl*> lineage(TensorImpl* t);
/// The tensor at the end of the chain of views: `t` itself if it is no view.
TensorImpl* base_of_view(TensorImpl* t);
inline TensorImpl* base_of(TensorImpl* t) { return t->has(core::kView) ? base_of_view(t) : t; }

/// Marks the result of a view op, or of a view op under NoGrad.
void mark_view(const Call& call, TensorImpl* view, bool grad);
/// What the view will own.
Ref<core::TapeNode> view_node(const ViewOf& of);

/// Brings grad_fn and kRequiresGrad of a view up to date with its base. Cheap for what is no view.
void refresh_view(TensorImpl* t);
inline void refresh(TensorImpl* t) {
  if (t->has(core::kView)) [[unlikely]]
    refresh_view(t);
}

/// `t` has a new grad_fn because an in-place op was noted: its bases get theirs.
void spread_history(TensorImpl* t, Location where);
/// The same without a tape, for calls that are compared only: flags and counters.
void spread_flags(TensorImpl* t);

/// Gradients of what spread_history notes: `out[0]` of the parent as of before, `out[1]` of the view.
void spread_gradient(const Node& n, const Ref<TensorImpl>& grad, std::vector<Ref<TensorImpl>>& out);

}  // namespace tandem::eager
