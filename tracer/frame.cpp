// Comparing: each call of the body is one pointer step and a few compares. What differs is, in this order, a
// slot that is another tensor of the same kind (bound again), another branch taken before (followed), or
// something new (recorded).
#include "tandem/tracer/frame.h"

#include <algorithm>
#include <bit>

#include "tandem/core/log.h"
#include "tandem/eager/views.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/registry.h"

namespace tandem::tracer {

using core::kPending;
using core::kRequiresGrad;
using eager::Call;

#ifdef TANDEM_TEST_SWITCHES
uint64_t mechanisms_off = 0;
#endif

void Frame::begin(std::span<Tensor> arguments, ArgumentNames names) {
  ++counters_.calls;
  ++r_.calls;
  if (r_.branches.empty()) r_.branches.push_back(std::make_unique<Branch>());
  recording_ = tape_live_ = failed_ = passthrough_ = external_history_ = ran_op_by_op_ = false;
  backward_ = -1;
  segment_start_ = 0;
  ended_.clear();
  handed_ = 0;
  jump(0, 0);
  for (const uint32_t h : r_.view_slots) {
    TensorImpl* t = r_.handles[h];
    if (!t) continue;
    eager::refresh(t);
    if (t->has(kRequiresGrad) != r_.infos[h].requires_grad || (t->grad_fn == nullptr) != r_.infos[h].leaf)
      core::slot_changed(*t);
  }
  running_ = true;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const uint32_t handle = r_.arguments[i];
    r_.handles[handle] = arguments[i].impl();
    if (arguments[i].impl()->offset != r_.infos[handle].offset) rebase(handle, arguments[i].impl()->offset);
  }
  arguments_ = arguments;
  names_ = names;
}

void Frame::jump(int32_t branch, int32_t position) {
  branch_index_ = branch;
  branch_ = r_.branches[static_cast<size_t>(branch)].get();
  position_ = position;
}

bool Frame::matches(const Entry& e, const Call& call) {
  if (e.kind != EventKind::op || e.op != static_cast<uint16_t>(call.op) || e.n_in != call.n_in ||
      e.n_words != call.n_words || (e.in_place != call.in_place && on(Mechanism::compare_in_place)) ||
      e.numbers != call.numbers || (r_.modes[e.modes] != modes_word(modes()) && on(Mechanism::compare_modes)))
    return false;
  TensorImpl* const* handles = r_.handles.data();
  const uint32_t direct = std::min<uint32_t>(call.n_in, 3);
  // Null is also the handle of a tensor that died: an absent operand is handle 0.
  const auto other = [&](uint32_t h, const TensorImpl* t) { return handles[h] != t || (!t && h); };
  for (uint32_t i = 0; i < direct; ++i)
    if (other(e.in[i], call.in[i]) && on(Mechanism::compare_operands)) return false;
  for (uint32_t i = 3; i < call.n_in; ++i)
    if (other(r_.more[e.more + i - 3], call.in[i]) && on(Mechanism::compare_operands)) return false;
  if (e.more_to_fit && !fits(e, call)) return false;
  int64_t* words = r_.words.data() + e.words;
  if (e.only_run_time && on(Mechanism::store_scalars)) {
    for (uint32_t w = 0; w < call.n_words; ++w) {
      if (words[w] == call.words[w]) continue;
      words[w] = call.words[w];
      e.changed |= 1u << w;
    }
    return true;
  }
  uint32_t moved = 0;
  for (uint32_t w = 0; w < call.n_words; ++w) {
    if (words[w] == call.words[w]) continue;
    moved |= 1u << (w & 31);
    if (!(w < 64 && ((e.run_time >> w) & 1)) && on(Mechanism::compare_attributes)) return false;
  }
  if (moved && on(Mechanism::store_scalars)) {
    e.changed |= moved;
    for (uint32_t w = 0; w < call.n_words; ++w) words[w] = call.words[w];
  }
  return true;
}

TensorImpl* Frame::lend(uint32_t handle) {
  TensorImpl* t = r_.handles[handle];
  return t ? t : lend_fresh(handle);
}

// The last one was given away: a fresh one stands for this call's value.
TensorImpl* Frame::lend_fresh(uint32_t handle) {
  const HandleInfo& info = r_.infos[handle];
  TensorImpl* fresh = core::new_impl();
  fresh->dtype = info.dtype;
  fresh->device = info.device;
  fresh->sizes = info.sizes;
  fresh->strides = info.strides;
  fresh->numel = info.numel;
  fresh->offset = info.offset;
  const int view = !info.view ? 0 : info.follows ? core::kView : core::kBlindView;
  fresh->flags =
      static_cast<uint16_t>(kPending | core::kTraceOwned | (info.contiguous ? core::kContiguous : 0) |
                            (info.requires_grad ? kRequiresGrad : 0) | view);
  if (!on(Mechanism::result_layout)) core::set_contiguous_layout(*fresh, info.sizes);
  fresh->frame = this;
  fresh->handle = static_cast<int32_t>(handle);
  fresh->refs.set(1);
  r_.handles[handle] = fresh;
  return fresh;
}

[[gnu::noinline]] void Frame::grow_handed_out() {
  handed_out_.resize(std::max(r_.handles.size(), 2 * handed_out_.size()));
}

// At home nobody else holds a handle, so its count is set without a read-modify-write.
Ref<TensorImpl> Frame::hand_out(uint32_t handle) {
  TensorImpl* t = lend(handle);
  if (handed_ == handed_out_.size()) [[unlikely]]
    grow_handed_out();
  handed_out_[handed_++] = handle;
  if (!on(Mechanism::fresh_handles)) return Ref<TensorImpl>(t);
  t->refs.set(2);
  return Ref<TensorImpl>::adopt(t);
}

void Frame::take_results(const Entry& e, const Call& call, Ref<TensorImpl>* results) {
  ++position_;
  for (uint32_t j = 0; j < e.n_out; ++j) results[j] = hand_out(e.out + j);
  if (e.moves) [[unlikely]]
    set_moved_offset(call, *results[0]);
}

[[gnu::noinline]] void Frame::set_moved_offset(const Call& call, TensorImpl& view) {
  view.offset = eager::infer_view(call).offset;
}

void Frame::take_in_place(const Entry& e, const Call& call) {
  if (e.outside) need_tape();
  ++position_;
  const auto for_written = [&](auto&& f) {
    for (uint32_t left = e.written; left; left &= left - 1) f(call.in[std::countr_zero(left)]);
  };
  if (on(Mechanism::versions)) for_written([&](TensorImpl* t) { eager::bump_version(t, call.where); });
  if (e.tape && !tape_live_) for_written([](TensorImpl* t) { eager::spread_flags(t); });
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

bool Frame::op(const Call& call, Ref<TensorImpl>* results) {
  if (!recording_ && !at_end() && matches(cursor(), call)) [[likely]] {
    take(cursor(), call, results);
    return tape_live_;
  }
  return op_slow(call, results);
}

bool Frame::bind_slot(uint32_t handle, TensorImpl* t) {
  const HandleInfo& info = r_.infos[handle];
  eager::refresh(t);
  if (info.kind != HandleInfo::Kind::slot || t->has(kPending) || t->frame == this) return false;
  if (on(Mechanism::slot_types))
    if (t->dtype != info.dtype || !(t->device == info.device) || !(t->sizes == info.sizes) ||
        !(t->strides == info.strides) || t->has(kRequiresGrad) != info.requires_grad ||
        (t->grad_fn == nullptr) != info.leaf)
      return false;
  if (r_.cells[info.cell].members != 1) return false;
  if (on(Mechanism::slot_once)) {
    if (r_.slots.contains(t)) return false;
    for (const uint32_t a : r_.arguments)
      if (r_.handles[a] && r_.handles[a]->storage == t->storage) return false;
    const auto cell = r_.slot_cells.find(t->storage.get());
    if (cell != r_.slot_cells.end() && cell->second != info.cell) return false;
  }
  TensorImpl*& bound = r_.handles[handle];
  if (bound) {
    r_.slots.erase(bound);
    r_.slot_cells.erase(bound->storage.get());
  }
  bound = t;
  if (t->offset != info.offset) rebase(handle, t->offset);
  enter_slot(handle, t);
  ++counters_.slots_bound;
  return true;
}

void Frame::enter_slot(uint32_t handle, TensorImpl* t) {
  r_.slots[t] = handle;
  auto& views = r_.view_slots;
  if (t->has(core::kView) && std::find(views.begin(), views.end(), handle) == views.end())
    views.push_back(handle);
  r_.slot_cells[t->storage.get()] = r_.infos[handle].cell;
  watch_slot(&r_, t);
  r_.infos[handle].bound_in = r_.calls;
}

uint32_t Frame::argument_handle(const TensorImpl* t) const {
  for (const uint32_t a : r_.arguments)
    if (r_.handles[a] == t) return a;
  return 0;
}

// Whether operand i of the entry at the cursor is a slot that nothing before it on the path uses.
bool Frame::first_use(const Entry& e, uint32_t i) {
  if (i < 32) return (e.first_use >> i) & 1;
  const uint32_t h = r_.operand(e, i);
  for (uint32_t k = 0; k < i; ++k)
    if (r_.operand(e, k) == h) return false;
  mark_used();
  return !used_[h];
}

bool Frame::rebind(const Entry& e, const Call& call) {
  if (!on(Mechanism::slot_rebinding) || e.kind != EventKind::op || e.op != static_cast<uint16_t>(call.op) ||
      e.n_in != call.n_in)
    return false;
  bool any = false;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    const uint32_t h = r_.operand(e, i);
    if (r_.handles[h] == call.in[i] && (call.in[i] || !h)) continue;
    if (!call.in[i] || !first_use(e, i) || !bind_slot(h, call.in[i])) return false;
    any = true;
  }
  return any;
}

bool Frame::op_slow(const Call& call, Ref<TensorImpl>* results) {
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (call.in[i] && call.in[i]->has(kPending) && call.in[i]->frame != this && on(Mechanism::thread_check))
      fail(std::string(ops::def(call.op).name) + ": operand " + std::to_string(i) +
               " is a pending tensor of another traced call or thread",
           call.where);
  if (call.in_place) eager::check_in_place(call);  // a call that matches has the recorded layouts, and passed
  if (!recording_ && !passthrough_) {
    // One at a time: a branch of a branch starts where its parent does.
    if (find_event([&](const Entry& e) {
          return matches(e, call) || ((rebind(e, call) || move_view(e, call)) && matches(e, call));
        })) {
      take(cursor(), call, results);
      return tape_live_;
    }
    if (!on(Mechanism::differences) && !at_end() && cursor().kind == EventKind::op &&
        cursor().in_place == call.in_place) {
      take(cursor(), call, results);
      return tape_live_;
    }
    eager::check_operands_of_trace(call);
    eager::infer_call(call);  // a mistake throws here, and nothing is recorded
    start_recording({.kind = EventKind::op, .where = call.where, .call = &call});
  }
  if (passthrough_) {
    eager::check_operands(call);
    eager::run_op(call, results);
    if (call.in_place)
      for (const int w : ops::written(ops::def(call.op))) eager::bump_version(call.in[w], call.where);
    return true;
  }
  record_op(call, results);
  return true;
}

bool Frame::backward(const eager::BackwardCall& call) {
  if (passthrough_) return false;
  if (!recording_) {
    const auto accept = [&](const Entry& e) {
      if (e.kind != EventKind::backward || r_.modes[e.modes] != modes_word(modes())) return false;
      const BackwardRecord& b = r_.backwards[e.more];
      return same_backward(b, call) && leaves_match(b);
    };
    if (find_event(accept)) {
      const uint32_t index = cursor().more;
      const BackwardRecord& b = r_.backwards[index];
      if (b.complete && b.skippable && !tape_live_) {
        skip_block(b);
        ++counters_.backward_skipped;
        return true;
      }
      need_tape();  // of what came before this event
      ++position_;
      backward_ = static_cast<int32_t>(index);
      backward_recording_ = false;
      ++counters_.backward_walked;
      return false;
    }
    start_recording({.kind = EventKind::backward, .where = call.where, .backward = &call});
    if (passthrough_) return false;
  }
  BackwardRecord b;
  for (TensorImpl* t : call.roots) b.roots.push_back(resolve(t));
  for (TensorImpl* t : call.gradients) b.gradients.push_back(t ? resolve(t) : 0);
  b.retain_graph = call.retain_graph;
  b.create_graph = call.create_graph;
  b.skippable = !external_history_ || !on(Mechanism::outside_history);
  Entry& e = append(EventKind::backward, call.where);
  e.more = static_cast<uint32_t>(r_.backwards.size());
  backward_ = static_cast<int32_t>(e.more);
  backward_recording_ = true;
  r_.backwards.push_back(std::move(b));
  ++counters_.backward_walked;
  return false;
}

void Frame::end_backward() {
  if (passthrough_) return;
  if (!recording_) {
    if (find_event([](const Entry& e) { return e.kind == EventKind::end_backward; })) {
      ++position_;
      backward_ = -1;
      return;
    }
    start_recording({.kind = EventKind::end_backward});
    if (passthrough_) return;
  }
  append(EventKind::end_backward, {});
  if (backward_ >= 0 && backward_recording_) {
    BackwardRecord& b = r_.backwards[static_cast<size_t>(backward_)];
    b.complete = true;
    b.end_branch = branch_index_;
    b.end_position = position_;
  }
  backward_ = -1;
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

void Frame::end() {
  const auto is_end = [](const Entry& e) { return e.kind == EventKind::end; };
  bool known = recording_ || passthrough_;
  if (!known) {
    if (!on(Mechanism::end_event))
      while (!at_end() && !is_end(cursor())) ++position_;
    known = find_event(is_end);
  }
  // R5: a history that goes on after this call is made real before the live set is taken, since it holds what
  // it saved.
  if (!recording_ && !tape_live_ && !passthrough_ && on(Mechanism::leaving_history)) {
    const auto leaves = [&](const SegmentEnd& s) {
      return std::any_of(s.open_tape.begin(), s.open_tape.end(),
                         [&](uint32_t h) { return r_.handles[h] && r_.handles[h]->refs.get() > 1; });
    };
    bool open = known && leaves(r_.segments[cursor().more]);
    for (const uint32_t s : ended_) open = open || leaves(r_.segments[s]);
    if (open) need_tape();
  }
  if (!passthrough_) {
    if (!known) start_recording({});
    if (!passthrough_) {
      if (recording_)
        record_segment(append(EventKind::end, {}));
      else
        ++position_;
      const Entry& e = branch_->entries[static_cast<size_t>(position_ - 1)];
      --position_;
      end_segment(r_.segments[e.more]);
    }
  }
  clean_up();
  recording_ = false;
}

void Frame::abandon() noexcept {
  observe_nothing();
  SegmentEnd pending = pending_segment();
  if (!failed_ && !passthrough_ && on(Mechanism::abandon)) {
    try {
      const auto kept = [&](const SegmentEnd& s) {
        return std::any_of(s.results.begin(), s.results.end(), [&](uint32_t h) {
          return r_.handles[h] && r_.handles[h]->refs.get() > 1 && has_history(h);
        });
      };
      bool open = kept(pending);
      for (const uint32_t s : ended_) open = open || kept(r_.segments[s]);
      if (open) need_tape();
      run_op_by_op(pending);
    } catch (const std::exception& error) {
      core::log(core::LogArea::trace, core::LogLevel::error,
                std::string("while running what came before an exception: ") + error.what());
    }
  }
  extra_results_.insert(extra_results_.end(), pending.results.begin(), pending.results.end());
  clean_up();
  if (on(Mechanism::drop_recording)) drop_recording();
}

}  // namespace tandem::tracer
