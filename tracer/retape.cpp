// The tape of a replayed call. Replay makes none: a backward that is known is skipped as a block, and the
// tape is made again from the record when something needs it (a difference, a hook, autograd::grad, a history
// that leaves the call).
#include <algorithm>

#include "tandem/eager/views.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using eager::Node;

bool Frame::same_backward(const BackwardRecord& b, const eager::BackwardCall& call) const {
  if (!on(Mechanism::backward_key)) return true;
  if (b.retain_graph != call.retain_graph || b.create_graph != call.create_graph ||
      b.roots.size() != call.roots.size() || b.gradients.size() != call.gradients.size())
    return false;
  for (size_t i = 0; i < b.roots.size(); ++i)
    if (r_.handles[b.roots[i]] != call.roots[i]) return false;
  for (size_t i = 0; i < b.gradients.size(); ++i)
    if (r_.handles[b.gradients[i]] != call.gradients[i]) return false;
  return true;
}

// R4: which leaves have a gradient, and whose it is, must be as recorded; hooks are host code.
bool Frame::leaves_match(const BackwardRecord& b) {
  if (!on(Mechanism::leaf_gradients)) return true;
  bool bound = false;
  for (const LeafGrad& g : b.leaves) {
    const TensorImpl* leaf = r_.handles[g.leaf];
    if (!leaf) return false;
    const eager::AutogradState* s = eager::autograd_state(leaf);
    if (s && !s->hooks.empty() && b.skippable && on(Mechanism::host_code)) return false;
    TensorImpl* grad = s ? s->grad.get() : nullptr;
    if (!g.before || !grad) {
      if (g.before || grad) return false;
      continue;
    }
    if (r_.handles[g.before] == grad) continue;
    if (!bound) mark_used();
    bound = true;
    if (used_[g.before] || !bind_slot(g.before, grad)) return false;
  }
  // Two leaves may have been recorded with one gradient.
  return !bound || std::all_of(b.leaves.begin(), b.leaves.end(), [&](const LeafGrad& g) {
    const eager::AutogradState* s = eager::autograd_state(r_.handles[g.leaf]);
    return !g.before || r_.handles[g.before] == s->grad.get();
  });
}

void Frame::skip_block(const BackwardRecord& b) {
  TensorImpl* const* const handles = r_.handles.data();
  while (handed_room_ < handed_ + b.leaves.size()) grow_handed_out();
  uint32_t* const handed = handed_out_.data();
  for (const LeafGrad& g : b.leaves) {
    if (g.in_place) {
      eager::bump_version(handles[g.before], {});
      continue;
    }
    TensorImpl* t = handles[g.after];
    if (!t) t = lend_fresh(g.after);
    handed[handed_++] = g.after;
    eager::make_autograd_state(handles[g.leaf]).grad = lent(t);
  }
  if (on(Mechanism::follow_numbers))
    for (const FollowedWord& f : b.followed) r_.words[f.word] = f.source->bits(r_.words.data(), f.kind);
  jump(b.end_branch, b.end_position);
}

void Frame::need_tape() {
  if (!recording_ && !tape_live_ && !passthrough_ && on(Mechanism::tape_on_demand)) rebuild_tape();
}

void Frame::rebuild_tape() {
  tape_live_ = true;
  // In-place ops have moved versions already: what an earlier op saved was saved before the later moves.
  const auto written = [&](const Entry& e, auto&& f) {
    if (!e.in_place) return;
    for (const int w : ops::written(ops::def(static_cast<ops::OpId>(e.op))))
      f(r_.infos[r_.operand(e, static_cast<uint32_t>(w))].cell);
  };
  std::unordered_map<uint32_t, uint32_t> moves, moved;
  bool any = false;
  std::vector<uint32_t> asked;
  for_path(0, [&](const Entry& e, Location) {
    any |= e.tape || e.kind == EventKind::requires_grad;
    if (e.kind == EventKind::requires_grad && std::find(asked.begin(), asked.end(), e.in[0]) == asked.end()) {
      asked.push_back(e.in[0]);  // it was the other way before
      if (TensorImpl* t = r_.handles[e.in[0]]) t->set(core::kRequiresGrad, !e.numbers);
    }
    if (e.kind != EventKind::op) return;
    written(e, [&](uint32_t cell) { ++moves[cell]; });
    for (uint32_t j = 0; j < e.n_out; ++j)
      if (TensorImpl* t = r_.handles[e.out + j]) {
        t->set(core::kRequiresGrad, false);
        t->history = 0;
      }
  });
  if (!any) return;
  const auto set_version = [&](eager::Saved& saved, uint32_t handle) {
    const uint32_t cell = r_.infos[handle].cell;
    saved.version = eager::version_of(saved.value.get()) - (moves[cell] - moved[cell]);
  };
  std::vector<TensorImpl*> operands;
  Ref<TensorImpl> results[ops::kMaxOutputs];
  for_path(0, [&](const Entry& e, Location where) {
    if (e.kind == EventKind::backward) consume(r_.backwards[e.more]);
    if (e.kind == EventKind::requires_grad && r_.handles[e.in[0]])
      r_.handles[e.in[0]]->set(core::kRequiresGrad, e.numbers);
    if (e.kind != EventKind::op) return;
    if (e.n_out == 1 && r_.infos[e.out].view && r_.handles[e.out])
      r_.handles[e.out]->history = eager::base_of(r_.handles[e.out])->history;
    written(e, [&](uint32_t cell) { ++moved[cell]; });
    if (!e.tape) return;
    for (uint32_t j = 0; j < e.n_out; ++j) {
      lend_home(e.out + j);
      results[j] = Ref<TensorImpl>(r_.handles[e.out + j]);
    }
    for (uint32_t i = 0; i < e.n_in; ++i)
      if (const uint32_t h = r_.operand(e, i); h && r_.infos[h].kind == HandleInfo::Kind::result)
        lend_home(h);
    const eager::Call call = call_of(e, where, operands);
    const Ref<core::TapeNode> made = eager::note(call, results);
    Node& n = *eager::as_node(made.get());
    n.list(noted_);
    n.trace_words = e.words;
    if (!on(Mechanism::record_order)) {
      n.sequence = 0;
      for (const Node::In& in : n.in)
        if (in.edge.node) n.sequence = std::max(n.sequence, eager::as_node(in.edge.node.get())->sequence + 1);
    }
    for (uint32_t i = 0; i < e.n_in; ++i)
      if (n.in[i].saved.value) {
        set_version(n.in[i].saved, r_.operand(e, i));
        const ops::OpDef& op = ops::def(call.op);
        if (e.in_place && std::count(op.writes, op.writes + op.n_out, static_cast<int>(i)))
          --n.in[i].saved.version;
      }
    for (uint32_t j = 0; j < n.out.size(); ++j) {
      if (!n.out[j].saved.value) continue;
      set_version(n.out[j].saved,
                  e.in_place ? r_.operand(e, static_cast<uint32_t>(ops::def(call.op).writes[j])) : e.out + j);
    }
    for (Ref<TensorImpl>& r : results) r.reset();
  });
}

// A backward that this call skipped has used up its part of the tape.
void Frame::consume(const BackwardRecord& b) {
  if (b.retain_graph || !b.complete || !on(Mechanism::consumed_tape)) return;
  std::vector<Node*> stack;
  for (const uint32_t h : b.roots)
    if (const TensorImpl* t = r_.handles[h]; t && t->grad_fn)
      stack.push_back(eager::as_node(t->grad_fn.get()));
  while (!stack.empty()) {
    Node& n = *stack.back();
    stack.pop_back();
    if (n.consumed) continue;
    n.consumed = true;
    for (Node::In& in : n.in) {
      in.saved.value.reset();
      if (in.edge.node) stack.push_back(eager::as_node(in.edge.node.get()));
    }
    for (Node::Out& o : n.out) o.saved.value.reset();
  }
}

// While the call runs, the tape keeps values as themselves, since the ops of backward are compared by them.
// What is left of it gets handles of its own, so that no history owns itself.
void Frame::part_tape() {
  const auto part = [](eager::Saved& saved) {
    TensorImpl* t = saved.value.get();
    if (!t || (eager::is_grad_leaf(t) && !t->has(core::kPending))) return;
    saved.value = t->has(core::kPending) ? nullptr : eager::twin_of(t);
  };
  while (eager::Node* n = noted_) {
    for (eager::Node::In& in : n->in) part(in.saved);
    for (eager::Node::Out& o : n->out) part(o.saved);
    if (noted_ != n) continue;
    n->trace_words = -1;
    n->unlist();
  }
}

}  // namespace tandem::tracer
