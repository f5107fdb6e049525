// What a running call is told besides ops and backward: reads, flags that change, tensors that die, and what
// the memory of pending tensors is.
#include <algorithm>

#include "tandem/eager/views.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using core::kPending;

void Frame::host_code() {
  if (backward_ >= 0 && backward_recording_ && on(Mechanism::host_code))
    r_.backwards[static_cast<size_t>(backward_)].skippable = false;
}

void Frame::leaf_grad(TensorImpl* leaf, TensorImpl* before, TensorImpl* after) {
  if (!recording_ || backward_ < 0 || !backward_recording_) return;
  BackwardRecord& b = r_.backwards[static_cast<size_t>(backward_)];
  const uint32_t handle = resolve(leaf);
  const auto known =
      std::find_if(b.leaves.begin(), b.leaves.end(), [&](const LeafGrad& g) { return g.leaf == handle; });
  if (known != b.leaves.end()) {
    known->after = resolve(after);
    return;
  }
  b.leaves.push_back({handle, before ? resolve(before) : 0, resolve(after), before == after});
}

void Frame::read(TensorImpl* t, Location where) {
  const bool pending = t->has(kPending);
  if (pending && t->frame != this) fail("a pending tensor of another traced call or thread was read", where);
  if (pending && !on(Mechanism::reads_run))
    return give_storage(made_of(static_cast<uint32_t>(t->handle)),
                        core::make_storage(t->nbytes(), t->device));
  run_pending(where);
  TANDEM_INTERNAL(passthrough_ || !t->has(kPending), "a read left its tensor pending");
}

// What is read is real afterwards.
void Frame::run_pending(Location where) {
  if (!recording_) {
    if (!find_event([](const Entry& e) { return e.kind == EventKind::read; }))
      start_recording({.kind = EventKind::read, .where = where});
  }
  if (recording_) {
    Entry& e = append(EventKind::read, where);
    record_segment(e);
  } else if (!passthrough_) {
    ++position_;
  }
  if (passthrough_) return;
  const Entry& e = branch_->entries[static_cast<size_t>(position_ - 1)];
  --position_;  // the segment ends before the read
  end_segment(r_.segments[e.more]);
  ++position_;
  if (on(Mechanism::once)) segment_start_ = linear();
  release_arguments();
}

void Frame::op_over(const eager::Call& call) {
  if (passthrough_ || ops::def(call.op).kind == ops::OpKind::view) return;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    if (!call.in[i]) continue;
    const core::Storage* s = call.in[i]->storage ? call.in[i]->storage.get() : memory(call.in[i]);
    if (s && s->release) return run_pending(call.where);
  }
}

void Frame::backward_over(Location where) {
  if (!passthrough_) run_pending(where);
}

bool Frame::owes(const TensorImpl* t, bool pointer) {
  if (passthrough_ || !t->storage || !tracer::on(pointer ? Mechanism::owed_pointers : Mechanism::owed_reads))
    return false;
  bool owed = false;
  for_path(segment_start_, [&](const Entry& e, Location) {
    if (e.kind != EventKind::op || (!e.in_place && !pointer)) return;
    const std::span<const int> written = ops::written(ops::def(static_cast<ops::OpId>(e.op)));
    for (uint32_t i = 0; i < e.n_in && !owed; ++i) {
      if (!pointer && std::find(written.begin(), written.end(), static_cast<int>(i)) == written.end())
        continue;
      uint32_t h = r_.operand(e, i);
      const auto shows = [&](const TensorImpl* used) { return used && used->storage == t->storage; };
      while (r_.infos[h].view && !shows(r_.handles[h])) h = r_.infos[h].base;
      owed = shows(r_.handles[h]);
    }
  });
  return owed;
}

void Frame::requires_grad(TensorImpl* t, bool on, Location where) {
  if (t->has(kPending)) read(t, where);
  if (passthrough_ || !tracer::on(Mechanism::grad_requests)) return;
  uint32_t handle = t->frame == this ? static_cast<uint32_t>(t->handle) : argument_handle(t);
  // What this call has not used yet is another slot from now on: the record is told by core::slot_event. What
  // it has used stays bound until its end.
  const bool used_slot = !handle && (handle = used_slot_of(t));
  if (!handle) return;
  if (!recording_) {
    const auto accept = [&](const Entry& e) {
      return e.kind == EventKind::requires_grad && e.in[0] == handle && e.numbers == on;
    };
    if (find_event(accept)) {
      ++position_;
      if (used_slot) keep_until_end(t);
      return;
    }
    start_recording({.kind = EventKind::requires_grad, .where = where, .requires_grad = on});
    if (passthrough_) return;
  }
  Entry& e = append(EventKind::requires_grad, where);
  e.in[0] = handle;
  e.numbers = on;
  if (used_slot) keep_until_end(t);
}

void Frame::keep_until_end(TensorImpl* t) {
  touched_.emplace_back(t);
  changing_ = t;
}

// The slot that `t` is, if an op of this call had it as an operand; else 0.
uint32_t Frame::used_slot_of(const TensorImpl* t) {
  const auto slot = r_.slots.find(const_cast<TensorImpl*>(t));
  if (slot == r_.slots.end()) return 0;
  if (!recording_) mark_used();
  return used_[slot->second] ? slot->second : 0;
}

void Frame::mark_used() {
  used_.assign(r_.handles.size(), 0);
  for_path(0, [&](const Entry& e, Location) {
    for (uint32_t i = 0; e.kind == EventKind::op && i < e.n_in; ++i) used_[r_.operand(e, i)] = 1;
  });
}

core::Storage* Frame::memory(const TensorImpl* t) {
  if (t->frame != this || t->handle < 0) return nullptr;
  for (auto h = static_cast<uint32_t>(t->handle); r_.infos[h].view;) {
    h = r_.infos[h].base;
    if (const TensorImpl* base = r_.handles[h]; base && base->storage) return base->storage.get();
  }
  return nullptr;
}

bool Frame::view(const TensorImpl* t, eager::ViewOf& out) {
  if (t->frame != this || t->handle < 0) return false;
  const HandleInfo& info = r_.infos[static_cast<size_t>(t->handle)];
  if (!info.view) return false;
  TensorImpl* parent = r_.handles[info.base];
  if (!parent)
    fail(std::string(ops::def(static_cast<ops::OpId>(info.view->op)).name) +
         ": the tensor that this view shows was replaced while the traced call ran; make the view again");
  out = {parent,
         static_cast<ops::OpId>(info.view->op),
         {r_.words.data() + info.view->words, info.view->n_words},
         info.where};
  return true;
}

eager::Version& Frame::version(TensorImpl* t) {
  const uint32_t cell =
      t->frame == this && t->handle >= 0 ? r_.infos[static_cast<size_t>(t->handle)].cell : 0;
  if (versions_.size() < r_.cells.size()) versions_.resize(r_.cells.size());
  if (versions_[cell].count == 0) ++versioned_;
  return versions_[cell];
}

bool Frame::keep_dying_slot(TensorImpl* t) noexcept {
  if (!running_ || !on(Mechanism::dying_slots)) return false;
  kept_.emplace_back(t);
  return true;
}

}  // namespace tandem::tracer
