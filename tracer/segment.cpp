// A segment's end: what is alive there is found by looking at who holds the pending handles, a plan with at
// least these outputs is taken or built, and everything that can fail happens before the first kernel runs.
// Op by op is the other way: for branches taken for the first time, for exceptions, and for what is no graph.
#include <algorithm>
#include <bit>

#include "tandem/core/log.h"
#include "tandem/eager/views.h"
#include "tandem/tracer/explain.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/lowering.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/shadow.h"

namespace tandem::tracer {

using core::kPending;

eager::Call Frame::call_of(const Entry& e, Location where, std::vector<TensorImpl*>& operands) const {
  operands.clear();
  for (uint32_t i = 0; i < e.n_in; ++i) operands.push_back(r_.handles[r_.operand(e, i)]);
  return {.op = static_cast<ops::OpId>(e.op),
          .in_place = e.in_place,
          .numbers = e.numbers,
          .n_in = e.n_in,
          .n_words = e.n_words,
          .in = operands.data(),
          .words = r_.words.data() + e.words,
          .where = where};
}

Made Frame::made_of(uint32_t handle, int32_t output) const {
  const HandleInfo& info = r_.infos[handle];
  uint32_t root = handle;
  while (r_.infos[root].view) root = r_.infos[root].base;
  return {handle, info.cell, output, root, info.view != nullptr, info.moves};
}

namespace {
// Memory of its own. What the tape saved of the pending value was saved with the cell's version.
[[gnu::always_inline]] inline void give_memory(TensorImpl* t, uint32_t cell,
                                               std::span<const eager::Version> versions,
                                               Ref<core::Storage> storage) {
  if (cell < versions.size() && on(Mechanism::result_versions)) {
    storage->version = versions[cell].count;
    storage->changed_at = versions[cell].changed_at;
  }
  t->offset = 0;
  t->data = storage->data;
  t->storage = std::move(storage);
  t->set(kPending, false);
}
}  // namespace

void Frame::give_storage(const Made& m, Ref<core::Storage> storage) {
  TensorImpl* t = r_.handles[m.handle];
  if (!m.view) return give_memory(t, m.cell, versions_, std::move(storage));
  if (!on(Mechanism::result_aliasing)) storage = core::copy_storage(*storage);
  if (!m.moves) t->offset = r_.infos[m.handle].offset;
  t->data = static_cast<char*>(storage->data) + t->offset * itemsize(t->dtype);
  t->storage = std::move(storage);
  t->set(kPending, false);
}

void Frame::run_op_by_op(const SegmentEnd& segment) {
  ++counters_.op_by_op;
  ran_op_by_op_ = true;
  for (const uint32_t h : segment.results) lend_home(h);
  std::vector<TensorImpl*> operands;
  Ref<TensorImpl> results[ops::kMaxOutputs];
  try {
    for_path(segment_start_, [&](const Entry& e, Location where) {
      if (e.kind != EventKind::op) return;
      const eager::Call call = call_of(e, where, operands);
      for (const TensorImpl* t : operands)
        TANDEM_INTERNAL(!t || t->data || t->numel == 0,
                        std::string("an operand of ") + ops::def(call.op).name + " without memory: value " +
                            std::to_string(t->handle));
      eager::run_op(call, results);
      for (uint32_t j = 0; j < e.n_out; ++j) {
        give_storage(made_of(e.out + j), results[j]->storage);
        results[j].reset();
      }
    });
  } catch (...) {
    failed_ = true;
    throw;
  }
}

// A handle that stands for a value of this call: made if the value's tensor was given away in an earlier one.
void Frame::lend_home(uint32_t handle) {
  if (!r_.handles[handle]) lend(handle);
}

// Recording only. Results that save themselves for their gradient own the node that owns them; those whose
// history nobody can reach any more are let go, so that they do not count as alive. The others get a twin
// once they are real.
void Frame::prune_tape(const SegmentEnd& segment) {
  std::vector<char> shown(r_.handles.size(), 0);  // by a view that somebody holds, which asks for its history
  for (auto it = segment.results.rbegin(); it != segment.results.rend(); ++it) {
    TensorImpl* t = r_.handles[*it];
    if (!t) continue;
    if (r_.infos[*it].follows && (shown[*it] || t->refs.get() > 1)) shown[r_.infos[*it].base] = 1;
    if (!t->grad_fn || shown[*it]) continue;
    eager::Node& n = *eager::as_node(t->grad_fn.get());
    uint32_t own = 0;
    for (const eager::Node::Out& o : n.out) own += o.saved.value.get() == t;
    for (const eager::Node::In& in : n.in) own += in.saved.value.get() == t;
    if (n.refs.get() != 1 || n.out.size() != 1 || t->refs.get() != 1 + own) continue;
    if (n.consumed) {
      consumed_.resize(r_.handles.size(), 0);
      consumed_[*it] = 1;
    }
    t->grad_fn.reset();
  }
}

void Frame::end_segment(SegmentEnd& segment) {
  if (recording_) prune_tape(segment);
  ended_.push_back(static_cast<uint32_t>(&segment - r_.segments.data()));
  if (segment.results.empty() && linear() == segment_start_) return;
  if (shadow_ && shadow_->take_over(segment)) return;
  const bool first_time = !segment.taken && !segment.first && on(Mechanism::new_branch_waits);
  segment.taken = true;
  if (!segment.op_by_op.empty()) refuse_partial_capture(segment.op_by_op);
  if (!segment.op_by_op.empty() || first_time || !r_.op_by_op.empty()) {
    run_op_by_op(segment);
  } else {
    const Plan* plan = find_plan(segment);
    if (plan)
      run_plan(*plan);
    else
      run_op_by_op(segment);
  }
  if (shadow_) shadow_->compare(segment);
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

const Plan* Frame::find_plan(SegmentEnd& segment) {
  const auto covers = [&](const Plan& plan) {
    if (!on(Mechanism::live_outputs)) return true;
    for (const uint32_t h : segment.results) {
      const TensorImpl* t = r_.handles[h];
      if (t && t->refs.get() > 1 && t->has(kPending) && !plan.covered[h]) return false;
    }
    return true;
  };
  Plan* const plan = segment.plan.get();
  const bool enough = only_replayed() ? sweep(plan) || !on(Mechanism::live_outputs) : plan && covers(*plan);
  if (plan && !segment.stale && enough) return plan;
  // R10: the set of outputs only grows: later segments were recorded with them. What the tape saves counts: a
  // later difference may need it when this segment's values are gone.
  if (!recording_ && !tape_live_) {
    need_tape();
    prune_tape(segment);
  }
  std::vector<char> live(r_.cells.size(), 0), covered(r_.handles.size(), 0);
  if (segment.plan && on(Mechanism::outputs_grow)) {
    for (const uint32_t c : segment.plan->outputs) live[c] = 1;
    std::copy_n(segment.plan->covered.begin(), std::min(segment.plan->covered.size(), covered.size()),
                covered.begin());
  }
  for (const uint32_t h : segment.results) {
    const TensorImpl* t = r_.handles[h];
    if (t && t->refs.get() > 1 && t->has(kPending)) live[r_.infos[h].cell] = covered[h] = 1;
  }
  try {
    segment.plan = build_plan(segment, live);
    segment.stale = false;
    // What was not held now needs its memory, and what its gradient saves, to be outputs.
    for (const Made& m : segment.plan->made)
      if (!has_history(m.handle) || !on(Mechanism::held_history)) covered[m.handle] = 1;
    segment.plan->covered = std::move(covered);
  } catch (const NotAGraph& no) {
    segment.op_by_op = no.what();
    refuse_partial_capture(segment.op_by_op);
    core::log(core::LogArea::trace, core::LogLevel::info, "a segment runs op by op: " + segment.op_by_op);
    return nullptr;
  }
  ++counters_.plans;
  ++r_.plans_built;
  return segment.plan.get();
}

std::unique_ptr<Plan> Frame::build_plan(SegmentEnd& segment, const std::vector<char>& live_cells) {
  std::vector<char> made(r_.handles.size(), 0), made_cells(r_.cells.size(), 0);
  for (const uint32_t h : segment.results) {
    made[h] = 1;
    if (!r_.infos[h].view) made_cells[r_.infos[h].cell] = 1;
  }
  Lowering lowering(r_, std::move(made));
  auto plan = std::make_unique<Plan>();
  plan->device = device_of_segment();
  std::vector<TensorImpl*> operands;
  for_path(segment_start_, [&](const Entry& e, Location) { lowering.announce(e); });
  int32_t at = 0;
  bool in_backward = false, after_backward = false;
  for_path(0, [&](const Entry& e, Location where) {
    if (e.kind == EventKind::backward || e.kind == EventKind::end_backward)
      in_backward = e.kind == EventKind::backward, after_backward = !in_backward;
    if (at++ < segment_start_ || e.kind != EventKind::op) return;
    const bool grad = std::bit_cast<Modes>(r_.modes[e.modes]).grad;
    const auto phase = in_backward                               ? Origin::Phase::backward
                       : !grad && (e.in_place || after_backward) ? Origin::Phase::update
                                                                 : Origin::Phase::forward;
    plan->origins.push_back({phase, static_cast<ops::OpId>(e.op), where});
    lowering.op(e, call_of(e, where, operands), static_cast<int32_t>(plan->origins.size()) - 1);
  });
  std::vector<char> has_memory(r_.cells.size(), 0);
  for (uint32_t c = 1; c < r_.cells.size(); ++c) {
    // Views of memory from before the segment need no output: their memory exists.
    if (!made_cells[c]) has_memory[c] = 1;
    if (!made_cells[c] || !live_cells[c]) continue;
    has_memory[c] = 1;
    plan->outputs.push_back(c);
    const HandleInfo& root = r_.infos[r_.cells[c].root];
    plan->nbytes.push_back(tandem::numel(root.sizes) * itemsize(root.dtype));
  }
  lowering.finish(plan->outputs);
  int32_t output = 0;
  for (const uint32_t h : segment.results)
    if (has_memory[r_.infos[h].cell]) plan->made.push_back(made_of(h, r_.infos[h].view ? -1 : output++));
  plan->inputs = lowering.inputs();
  plan->numbers = lowering.numbers();
  for (const uint32_t w : plan->numbers) {
    auto& runs = plan->number_runs;
    if (!runs.empty() && runs.back().first + runs.back().second == w)
      ++runs.back().second;
    else
      runs.emplace_back(w, 1);
  }
  plan->graph = jit::to_string(lowering.graph());
  plan->executable = jit::Executable::make(lowering.graph(), {.compile = r_.compile, .device = plan->device});
  return plan;
}

// No memory for a result: names the op that makes it.
void Frame::fail_for(const Error& error, uint32_t result) {
  for_path(segment_start_, [&](const Entry& e, Location where) {
    if (e.kind == EventKind::op && result >= e.out && result < e.out + e.n_out)
      fail_again(error, ops::def(static_cast<ops::OpId>(e.op)).name, where);
  });
  throw error;
}

std::string Frame::name_at(Location at, std::string inner) {
  FailedCall call(at, std::move(inner));
  for_path(segment_start_, [&](const Entry& e, Location where) {
    if (e.kind == EventKind::op) call.see(where, static_cast<ops::OpId>(e.op));
  });
  return call.name();
}

// An input that is not yet real: a view of memory from outside whose position moves, or an empty tensor.
void* Frame::input_address(uint32_t handle, const Plan& plan) const {
  const TensorImpl* t = r_.handles[handle];
  if (t && t->numel == 0) return nullptr;
  uint32_t base = handle;
  while (r_.infos[base].view) base = r_.infos[base].base;
  const TensorImpl* memory = r_.handles[base];
  TANDEM_INTERNAL(t && r_.infos[handle].moves && memory && memory->storage,
                  "a plan's input without memory: value " + std::to_string(handle) + " in\n" + plan.graph);
  return static_cast<char*>(memory->storage->data) + t->offset * itemsize(t->dtype);
}

void Frame::run_plan(const Plan& plan) {
  scratch_.inputs.resize(plan.inputs.size());
  scratch_.numbers.resize(plan.numbers.size());
  scratch_.outputs.resize(plan.nbytes.size());
  scratch_.storages.resize(plan.nbytes.size());
  TensorImpl* const* const handles = r_.handles.data();
  void** input = scratch_.inputs.data();
  for (const uint32_t h : plan.inputs) {
    const TensorImpl* t = handles[h];
    *input++ = t && t->data ? t->data : input_address(h, plan);
  }
  int64_t* number = scratch_.numbers.data();
  for (const auto& [first, count] : plan.number_runs) {
    std::copy_n(r_.words.data() + first, count, number);
    number += count;
  }
  Ref<core::Storage>* const storages = scratch_.storages.data();
  try {
    core::make_storages(plan.nbytes, plan.device, storages);
  } catch (const Error& e) {
    const auto missing = std::find(scratch_.storages.begin(), scratch_.storages.end(), nullptr);
    const auto k = static_cast<size_t>(missing - scratch_.storages.begin());
    scratch_.storages.clear();
    fail_for(e, r_.cells[plan.outputs[k]].root);
  }
  void** output = scratch_.outputs.data();
  for (const Ref<core::Storage>& s : scratch_.storages) *output++ = s->data;
  int failed = 0;
  try {
    failed = plan.executable->run(scratch_.inputs.data(), scratch_.numbers.data(), scratch_.outputs.data());
  } catch (...) {
    // On the CPU no memory, and nothing ran. A device may have run a part, which must not happen twice.
    failed_ = plan.device.type != DeviceType::cpu;
    scratch_.storages.clear();
    throw;
  }
  if (failed) {
    failed_ = true;
    scratch_.storages.clear();
    const Location at = plan.executable->entry_where(failed - 1);
    fail(name_at(at, plan.executable->entry_name(failed - 1)) + ": index out of range", at);
  }
  const std::span<const eager::Version> versions(versions_);
  for (const Made& m : plan.made) {
    // Also what nobody holds now: a tape made again later in the call may need it.
    if (m.output < 0) {
      lend_home(m.handle);
      give_storage(m, handles[m.root]->storage);
    } else {
      TensorImpl* t = handles[m.handle];
      give_memory(t ? t : lend_fresh(m.handle), m.cell, versions, std::move(storages[m.output]));
    }
  }
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

// A read has run what is pending. An argument that the body gave up (moved in, and let go) is let go too,
// unless a backward still to come may need it, or a view of it was made.
void Frame::release_arguments() {
  if (!on(Mechanism::given_up_arguments)) return;
  for (size_t i = 0; i < arguments_.size(); ++i) {
    TensorImpl* t = arguments_[i].impl();
    if (!t || t->refs.get() != 1 || t->storage->refs.get() != 1) continue;
    const uint32_t handle = r_.arguments[i], cell = r_.infos[handle].cell;
    bool needed = false;
    for_path(0, [&](const Entry& e, Location) {
      if (e.kind != EventKind::op) return;
      for (uint32_t k = 0; e.tape && k < e.n_in; ++k)
        needed = needed || r_.infos[r_.operand(e, k)].cell == cell;
      for (uint32_t h = e.out; h < e.out + e.n_out; ++h) needed = needed || r_.infos[h].cell == cell;
    });
    if (needed) continue;
    r_.handles[handle] = nullptr;
    arguments_[i] = Tensor();
  }
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
  t->handle = -1;
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
