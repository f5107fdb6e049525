// Handles: a result's tensor is lent to the body and comes home when nobody holds it any more. What somebody
// holds at the end of a call becomes an ordinary tensor; a gradient comes back when the program drops it.
#include <algorithm>
#include <atomic>

#include "tandem/core/impl_block.h"
#include "tandem/eager/views.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using core::kPending;
using core::kRequiresGrad;

namespace {
// Most results that leave a call are gradients of vectors and matrices.
inline void copy_dims(Dims& to, const Dims& from) {
  const int rank = from.rank();
  if (rank > 2) {
    to = from;
    return;
  }
  to.resize(rank);
  to[0] = from[0];
  to[1] = from[1];
}
}  // namespace

[[gnu::always_inline]] inline TensorImpl* Frame::settle(TensorImpl* fresh, uint32_t handle) {
  const HandleInfo& info = r_.infos[handle];
  fresh->dtype = info.dtype;
  fresh->device = info.device;
  copy_dims(fresh->sizes, info.sizes);
  copy_dims(fresh->strides, info.strides);
  fresh->numel = info.numel;
  fresh->offset = info.offset;
  const int view = !info.view                ? 0
                   : info.follows            ? core::kView
                   : is_floating(info.dtype) ? core::kBlindView
                                             : 0;  // nothing of integers has a history
  fresh->flags =
      static_cast<uint16_t>(kPending | core::kTraceOwned | (info.contiguous ? core::kContiguous : 0) |
                            (info.requires_grad ? kRequiresGrad : 0) | view);
  if (!on(Mechanism::result_layout)) core::set_contiguous_layout(*fresh, info.sizes);
  fresh->frame = this;
  fresh->handle = static_cast<int32_t>(handle);
  fresh->home = info.view || info.requires_grad ? 0 : home_;
  fresh->refs.set(1);
  r_.handles[handle] = fresh;
  return fresh;
}

[[gnu::noinline]] TensorImpl* Frame::lend_from_system(uint32_t handle) {
  return settle(core::new_impl(), handle);
}

// The last one was given away: a fresh one stands for this call's value.
TensorImpl* Frame::lend_fresh(uint32_t handle) {
  TensorImpl* fresh = core::try_pop_impl();
  return fresh ? settle(fresh, handle) : lend_from_system(handle);
}

namespace {
/// A value that nobody holds and that never got memory or history: home already.
bool untouched(const TensorImpl& t) {
  const auto bits = [](const auto* p) { return reinterpret_cast<uintptr_t>(p); };
  return ((t.refs.get() ^ 1) | t.history | bits(t.storage.get()) | bits(t.grad_fn.get()) |
          bits(t.view.get()) | bits(t.leaf.get())) == 0;
}
}  // namespace

// Nobody can take hold of a value that nobody holds, so what is home at the end of the call's last segment is
// home at the end of the call, but for what the segment's plan makes.
bool Frame::sweep(const Plan* plan) {
  if (busy_.size() < handed_) busy_.resize(handed_out_.size());
  const uint32_t *h = handed_out_.data(), *const end = h + handed_;
  TensorImpl* const* const handles = r_.handles.data();
  uint32_t* out = busy_.data();
  uint32_t flags = 0;
  bool covered = plan != nullptr;
  for (; h != end; ++h) {
    const TensorImpl* t = handles[*h];
    if (!t || untouched(*t)) continue;
    flags |= t->flags;
    *out++ = *h;
    if (covered && t->has(kPending) && !plan->covered[*h] && t->refs.get() > 1) covered = false;
  }
  n_busy_ = static_cast<size_t>(out - busy_.data());
  swept_ = shadow_ || (flags & core::kView) ? SIZE_MAX : handed_;
  return covered;
}

// A view that leaves the call takes what it shows with it: an in-place change of one must reach the others.
void Frame::release_view(uint32_t handle) {
  TensorImpl* t = r_.handles[handle];
  if (!t || !t->has(core::kView) || t->refs.get() == 1 || t->view || !on(Mechanism::fresh_handles) ||
      !on(Mechanism::leaving_views))
    return;
  eager::ViewOf of;
  if (!r_.handles[r_.infos[handle].base] || !view(t, of)) return;
  t->view = eager::view_node(of);
  // A history that the call has used up: the base has it before the view asks for it.
  uint32_t root = r_.infos[handle].base;
  while (r_.infos[root].view) root = r_.infos[root].base;
  TensorImpl* base = r_.handles[root];
  if (base && r_.infos[root].kind == HandleInfo::Kind::result && base->has(core::kRequiresGrad) &&
      !base->grad_fn && has_history(root))
    base->grad_fn = freed_history(r_.infos[root]);
}

const Ref<core::TapeNode>& Frame::freed_history(HandleInfo& info) {
  if (!info.freed || info.freed->refs.get() > 1 || eager::as_node(info.freed.get())->extras)
    info.freed = eager::freed_node(info.op, info.where);
  else
    eager::refresh_sequence(*eager::as_node(info.freed.get()));
  return info.freed;
}

// Somebody holds it: an ordinary tensor from now on.
[[gnu::always_inline]] inline void Frame::give_away(uint32_t handle, TensorImpl* t) {
  eager::refresh(t);
  if (t->has(core::kRequiresGrad) && !t->grad_fn && has_history(handle))
    t->grad_fn = freed_history(r_.infos[handle]);
  t->frame = nullptr;
  t->set(core::kTraceOwned, false);
  r_.handles[handle] = nullptr;
  if (t->refs.drop()) destroy(t);
}

// The call is over: what somebody holds becomes an ordinary tensor, the rest goes home empty.
void Frame::clean_up() {
  if (only_replayed() && extra_results_.empty()) {
    const bool swept = swept_ == handed_;
    const std::span<const uint32_t> results = swept ? busy() : handed_out();
    for (auto h = results.rbegin(); h != results.rend(); ++h) {
      TensorImpl* t = r_.handles[*h];
      if (!t || (!swept && untouched(*t))) continue;
      if (t->has(core::kView)) release_view(*h);
      if (t->refs.get() > 1 && on(Mechanism::fresh_handles))
        give_away(*h, t);
      else
        send_home(*h);
    }
    for (const uint32_t s : ended_)
      if (const Plan* plan = r_.segments[s].plan.get())
        for (const Made& m : plan->made)
          if (const TensorImpl* t = r_.handles[m.handle]; t && t->storage) send_home(m.handle);
  } else {
    send_all_home();
  }
  running_ = false;
  arguments_ = {};
  for (const uint32_t a : r_.arguments) r_.handles[a] = nullptr;  // they may die unseen from now on
  for (const Ref<TensorImpl>& t : touched_) {
    changing_ = nullptr;
    if (on(Mechanism::touched_slots)) core::slot_changed(*t);
  }
  touched_.clear();
  kept_.clear();
  for (size_t i = 0; i < n_taken_back_; ++i) spare_[taken_back_[i]].reset();
  n_taken_back_ = 0;
  if (recording_) home_ = next_home();  // what is known of the handles grew
}

// A gradient that the program drops before its backward makes it anew, as nearly every step does: the tensor
// goes home as it is, and its memory waits for the plan that fills it.
void Frame::take_back(std::span<Ref<TensorImpl>* const> held) {
  if (!only_replayed() || !all_on() || core::kBypassCaches) return;
  if (spare_.size() < r_.handles.size()) spare_.resize(r_.handles.size());
  if (taken_back_.size() < n_taken_back_ + held.size()) taken_back_.resize(2 * (n_taken_back_ + held.size()));
  uint32_t* taken = taken_back_.data() + n_taken_back_;
  for (const Ref<TensorImpl>* t : held) {
    __builtin_prefetch(&(*t)->handle);
    __builtin_prefetch((*t)->storage.get());
  }
  for (Ref<TensorImpl>* ref : held) {
    TensorImpl* t = ref->get();
    core::Storage* s = t->storage.get();
    const auto handle = static_cast<uint32_t>(t->handle);
    if (t->home != home_ || t->refs.get() != 1 || t->slot || (t->flags & ~core::kContiguous) || t->grad_fn ||
        t->leaf || r_.handles[handle] || !s || s->refs.get() != 1 || s->slot || s->release ||
        s->device.type != DeviceType::cpu)
      continue;
    spare_[handle] = std::move(t->storage);
    *taken++ = handle;
    t->data = nullptr;
    t->flags = static_cast<uint16_t>(t->flags | kPending | core::kTraceOwned);
    t->history = 0;
    t->output_index = 0;
    t->frame = this;
    r_.handles[handle] = ref->release();
  }
  n_taken_back_ = static_cast<size_t>(taken - taken_back_.data());
}

uint64_t Frame::next_home() {
  static std::atomic<uint64_t> latest{0};
  return ++latest;
}

void Frame::send_all_home() {
  std::vector<std::span<const uint32_t>> all;
  for (const uint32_t s : ended_) all.emplace_back(r_.segments[s].results);
  all.emplace_back(extra_results_);
  const bool tape = recording_ || tape_live_ || passthrough_;
  if (recording_ && !failed_)
    for (const uint32_t s : ended_) note_open_tape(r_.segments[s]);
  if (tape) part_tape();
  for (auto results = all.rbegin(); results != all.rend(); ++results)
    for (auto h = results->rbegin(); h != results->rend(); ++h) release_view(*h);
  if (tape) {
    // Histories that nobody can reach go first, latest first: they hold results.
    for (auto results = all.rbegin(); results != all.rend(); ++results)
      for (auto h = results->rbegin(); h != results->rend(); ++h)
        if (TensorImpl* t = r_.handles[*h]; t && t->refs.get() == 1) t->grad_fn.reset();
  }
  for (const auto& results : all)
    for (const uint32_t h : results) send_home(h);
  extra_results_.clear();
  consumed_.clear();
}

void Frame::send_home(uint32_t handle) {
  TensorImpl* t = r_.handles[handle];
  if (!t) return;
  if (t->refs.get() > 1 && on(Mechanism::fresh_handles)) {
    give_away(handle, t);
    return;
  }
  if (t->storage) {
    core::slot_changed(*t);
    t->storage.reset();
    t->data = nullptr;
    t->offset = r_.infos[handle].offset;
    t->set(kPending, true);
  }
  t->set(core::kRequiresGrad, r_.infos[handle].requires_grad);
  t->history = 0;
  if (t->leaf) t->leaf.reset();
  if (t->view) t->view.reset();
  if (t->grad_fn) t->grad_fn.reset();
}

bool Frame::has_history(uint32_t handle) const {
  const HandleInfo& info = r_.infos[handle];
  return info.requires_grad || info.history || (info.follows && has_history(info.base));
}

void Frame::note_open_tape(SegmentEnd& segment) {
  segment.open_tape.clear();
  for (const uint32_t h : segment.results) {
    const TensorImpl* t = r_.handles[h];
    const bool consumed = (h < consumed_.size() && consumed_[h]) ||
                          (t && t->grad_fn && eager::as_node(t->grad_fn.get())->consumed);
    if (has_history(h) && !consumed) segment.open_tape.push_back(h);
  }
}

}  // namespace tandem::tracer
