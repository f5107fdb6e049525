// Comparing: each call of the body is one pointer step and a few compares. What differs is, in this order, a
// slot that is another tensor of the same kind (bound again), another branch taken before (followed), or
// something new (recorded).
#include "tandem/tracer/frame.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "tandem/core/impl_block.h"
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
int runs_to_keep = 4;
#endif

void Frame::begin(std::span<Tensor> arguments, ArgumentNames names) {
  ++counters_.calls;
  ++r_.calls;
  if (r_.branches.empty()) r_.branches.push_back(std::make_unique<Branch>());
  recording_ = tape_live_ = failed_ = throws_again_ = passthrough_ = external_history_ = ran_op_by_op_ =
      false;
  borrows = false;
  backward_ = -1;
  segment_start_ = 0;
  ended_.clear();
  handed_ = 0;
  swept_ = SIZE_MAX;
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
  entries_ = branch_->entries.data();
  comparable_ = recording_ || passthrough_ ? 0 : static_cast<int32_t>(branch_->entries.size());
}

[[gnu::always_inline]] inline bool Frame::same_operands(const Entry& e, const Call& call,
                                                        TensorImpl* const* in) const {
  TensorImpl* const* handles = r_.handles.data();
  // Null is also the handle of a tensor that died: an absent operand is handle 0.
  const auto other = [&](uint32_t h, const TensorImpl* t) {
    return (handles[h] != t || (!t && h)) && on(Mechanism::compare_operands);
  };
  const uint32_t n = call.n_in;
  if (n == 0) return true;
  if (other(e.in[0], in[0])) return false;
  if (n == 1) return true;
  if (other(e.in[1], in[1])) return false;
  if (n == 2) return true;
  if (other(e.in[2], in[2])) return false;
  if (n == 3) [[likely]]
    return true;
  const uint32_t* more = r_.more.data() + e.more;
  if (other(more[0], in[3])) return false;
  for (uint32_t i = 4; i < n; ++i)
    if (other(more[i - 3], in[i])) return false;
  return true;
}

// The words: run-time ones are stored, the others must be the recorded ones.
[[gnu::always_inline]] inline bool Frame::take_words(const Entry& e, const Call& call) {
  int64_t* words = r_.words.data() + e.words;
  const int64_t* given = call.words;
  if (e.only_run_time && on(Mechanism::store_scalars)) {
    for (uint32_t w = 0; w < call.n_words; ++w) {
      if (words[w] == given[w]) continue;
      words[w] = given[w];
      e.changed |= 1u << (w & 31);
    }
    return true;
  }
  uint32_t moved = 0;
  for (uint32_t w = 0; w < call.n_words; ++w) {
    if (words[w] == given[w]) [[likely]]
      continue;
    moved |= 1u << (w & 31);
    if (!(w < 64 && ((e.run_time >> w) & 1)) && on(Mechanism::compare_attributes)) return false;
  }
  if (moved && on(Mechanism::store_scalars)) [[unlikely]] {
    e.changed |= moved;
    for (uint32_t w = 0; w < call.n_words; ++w) words[w] = given[w];
  }
  return true;
}

[[gnu::always_inline]] inline bool Frame::same_header(const Entry& e, const Call& call) const {
  return e.kind == EventKind::op && e.op == static_cast<uint16_t>(call.op) && e.n_in == call.n_in &&
         e.n_words == call.n_words && (e.in_place == call.in_place || !on(Mechanism::compare_in_place)) &&
         e.numbers == call.numbers &&
         (r_.modes[e.modes] == modes_word(modes()) || !on(Mechanism::compare_modes));
}

[[gnu::always_inline]] inline bool Frame::matches(const Entry& e, const Call& call) {
  if (!same_header(e, call)) return false;
  if (!same_operands(e, call, call.in)) return false;
  if (e.more_to_fit && !fits(e, call)) [[unlikely]]
    return false;
  return call.n_words == 0 || take_words(e, call);
}

[[gnu::noinline]] void Frame::grow_handed_out() {
  handed_room_ = std::max(r_.handles.size(), 2 * handed_room_);
  handed_out_.resize(handed_room_ + kAhead);
}

[[gnu::noinline]] void Frame::take_results(const Entry& e, const Call& call, Ref<TensorImpl>* results) {
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

// Nearly every call makes one result whose handle is at home: this path calls nothing.
bool Frame::op(const Call& call, Ref<TensorImpl>* results) {
  const int32_t at = position_;
  if (at >= comparable_) [[unlikely]]
    return op_slow(call, results);
  const Entry& e = entries_[at];
  if (!e.plain || !on(Mechanism::fresh_handles)) [[unlikely]]
    return op_other(call, results);
  if (!same_header(e, call) || !same_operands(e, call, call.in)) [[unlikely]]
    return op_slow(call, results);
  const int64_t* const words = r_.words.data() + e.words;
  for (uint32_t w = 0; w < call.n_words; ++w)
    if (words[w] != call.words[w]) [[unlikely]]
      return op_other(call, results);
  TensorImpl* t = r_.handles[e.out];
  if (!t || handed_ == handed_room_ || results[0]) [[unlikely]]
    return op_other(call, results);
  position_ = at + 1;
  uint32_t* const handed = handed_out_.data() + handed_++;
  __builtin_prefetch(r_.handles[handed[kAhead]]);
  prefetch_entry(e);
  *handed = e.out;
  t->refs.set(2);
  std::construct_at(results, Ref<TensorImpl>::adopt(t));
  return tape_live_;
}

[[gnu::noinline]] bool Frame::op_other(const Call& call, Ref<TensorImpl>* results) {
  if (!matches(cursor(), call)) return op_slow(call, results);
  take(cursor(), call, results);
  return tape_live_;
}

// What `op` does for each, but loop by loop: the headers are compared with the first one's, which is compared
// in full; the words of all calls are the same, and mostly those of their entries were.
size_t Frame::op_run(const Call& call, size_t n) {
  if (position_ >= comparable_ || tape_live_ || modes().grad || borrows || !all_on()) return 0;
  const Entry* const first = entries_ + position_;
  if (!call.in_place || first->n_out != 0 || first->outside || first->tape || first->more_to_fit ||
      !first->only_run_time || !same_header(*first, call))
    return 0;
  constexpr size_t kMost = 32, kWritten = 8;
  const size_t most = std::min({n, static_cast<size_t>(comparable_ - position_), kMost}), n_in = call.n_in;
  uint32_t written[kWritten];
  size_t n_written = 0;
  for (uint32_t left = first->written; left; left &= left - 1)
    written[n_written++] = static_cast<uint32_t>(std::countr_zero(left));
  // The memory whose version moves is on its way while the next calls are compared.
  core::Storage* memory[kMost * kWritten];
  core::Storage** end = memory;
  core::Storage* const* const slots = r_.slot_memory.data();
  size_t same = 0;
  bool all_slots = true;
  for (TensorImpl* const* in = call.in; same < most; ++same, in += n_in) {
    const Entry& e = first[same];
    if (!e.same_kind(*first) || !same_operands(e, call, in)) break;
    prefetch_entry(e);
    const uint32_t* const more = r_.more.data() + e.more;
    for (size_t w = 0; w < n_written; ++w) {
      const uint32_t i = written[w];
      core::Storage* s = slots[i < 3 ? e.in[i] : more[i - 3]];
      __builtin_prefetch(s);
      all_slots &= s != nullptr;
      *end++ = s;
    }
  }
  if (same == 0) return 0;
  store_words({first, same}, call);
  position_ += static_cast<int32_t>(same);
  if (all_slots) [[likely]] {
    for (core::Storage* const* s = memory; s != end; ++s) eager::bump_version(**s, call.where);
    return same;
  }
  for (size_t k = 0; k < same; ++k)
    for (size_t w = 0; w < n_written; ++w) eager::bump_version(call.in[k * n_in + written[w]], call.where);
  return same;
}

// Of entries in a row whose words are all run-time and as many: they lie one after the other.
void Frame::store_words(std::span<const Entry> entries, const Call& call) {
  const size_t n = call.n_words;
  int64_t* const words = r_.words.data() + entries[0].words;
  const bool in_a_row = entries.back().words - entries[0].words == (entries.size() - 1) * n;
  if (!in_a_row || std::memcmp(words, words + n, (entries.size() - 1) * n * sizeof(int64_t)) != 0) {
    for (const Entry& e : entries) take_words(e, call);
    return;
  }
  for (size_t w = 0; w < n; ++w) {
    const int64_t given = call.words[w];
    if (words[w] == given) continue;
    int64_t* word = words + w;
    for (const Entry& e : entries) {
      *word = given;
      word += n;
      e.changed |= 1u << (w & 31);
    }
  }
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
  r_.slot_memory[handle] = t->storage.get();
  ++r_.bindings;
  auto& views = r_.view_slots;
  if (t->has(core::kView) && std::find(views.begin(), views.end(), handle) == views.end())
    views.push_back(handle);
  r_.slot_cells[t->storage.get()] = r_.infos[handle].cell;
  watch_slot(&r_, t);
  r_.infos[handle].bound_in = r_.calls;
  r_.infos[handle].binding = r_.bindings;
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
  const auto tell = [&](const char* what) {
    if (!throws_again_)
      core::log(core::LogArea::trace, core::LogLevel::error,
                std::string("while running what came before an exception: ") + what);
  };
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
      tell(error.what());
    } catch (...) {  // an own kernel's twin may throw anything
      tell("what is no std::exception was thrown");
    }
  }
  extra_results_.insert(extra_results_.end(), pending.results.begin(), pending.results.end());
  clean_up();
  if (on(Mechanism::drop_recording)) drop_recording();
}

}  // namespace tandem::tracer
