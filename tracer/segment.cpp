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
// Memory of its own.
[[gnu::always_inline]] inline void give_memory(TensorImpl* t, Ref<core::Storage> storage) {
  t->offset = 0;
  t->data = storage->data;
  t->storage = std::move(storage);
  t->set(kPending, false);
}
}  // namespace

// What the tape saved of the pending value was saved with the cell's version.
void Frame::give_version(core::Storage& s, uint32_t cell) const {
  if (!on(Mechanism::result_versions)) return;
  s.version = versions_[cell].count;
  s.changed_at = versions_[cell].changed_at;
}

void Frame::give_versions(const Plan& plan) const {
  if (plan.versioned_of != versioned_) {
    plan.versioned.clear();
    for (size_t k = 0; k < plan.outputs.size(); ++k)
      if (plan.outputs[k] < versions_.size() && versions_[plan.outputs[k]].count > 0)
        plan.versioned.push_back(static_cast<uint32_t>(k));
    plan.versioned_of = versioned_;
  }
  for (const uint32_t k : plan.versioned) give_version(*scratch_.storages[k], plan.outputs[k]);
}

void Frame::give_storage(const Made& m, Ref<core::Storage> storage) {
  TensorImpl* t = r_.handles[m.handle];
  if (!m.view) {
    if (m.cell < versions_.size()) give_version(*storage, m.cell);
    return give_memory(t, std::move(storage));
  }
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
    plan->roots.push_back(r_.cells[c].root);
    const HandleInfo& root = r_.infos[r_.cells[c].root];
    plan->nbytes.push_back(tandem::numel(root.sizes) * itemsize(root.dtype));
  }
  lowering.finish(plan->outputs);
  int32_t output = 0;
  for (const uint32_t h : segment.results)
    if (has_memory[r_.infos[h].cell]) plan->made.push_back(made_of(h, r_.infos[h].view ? -1 : output++));
  plan->inputs = lowering.inputs();
  plan->addresses.resize(plan->inputs.size());
  for (size_t i = 0; i < plan->inputs.size(); ++i)
    if (r_.infos[plan->inputs[i]].kind != HandleInfo::Kind::slot)
      plan->not_slots.push_back(static_cast<uint32_t>(i));
  plan->numbers = lowering.numbers();
  for (const uint32_t w : plan->numbers) {
    auto& runs = plan->number_runs;
    if (!runs.empty() && runs.back().first + runs.back().second == w)
      ++runs.back().second;
    else
      runs.emplace_back(w, 1);
  }
  plan->graph = std::move(lowering.graph());
  plan->executable = jit::Executable::make(plan->graph, {.compile = r_.compile, .device = plan->device});
  plan->keeper = PlanKeeper::of(*plan, r_);
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
                  "a plan's input without memory: value " + std::to_string(handle) + " in\n" +
                      jit::to_string(plan.graph));
  return static_cast<char*>(memory->storage->data) + t->offset * itemsize(t->dtype);
}

// A slot's memory is where it was as long as no slot is bound or forgotten: who moves it tells the record.
void Frame::gather_inputs(const Plan& plan) const {
  const auto gather = [&](size_t i) {
    const uint32_t h = plan.inputs[i];
    const TensorImpl* t = r_.handles[h];
    plan.addresses[i] = t && t->data ? t->data : input_address(h, plan);
  };
  if (plan.addresses_of == r_.bindings) {
    for (const uint32_t i : plan.not_slots) gather(i);
    return;
  }
  for (size_t i = 0; i < plan.inputs.size(); ++i) gather(i);
  plan.addresses_of = r_.bindings;
}

void Frame::run_plan(const Plan& plan) {
  gather_inputs(plan);
  if (const jit::Executable* rest = plan.keeper ? plan.keeper->follow(plan, r_) : nullptr) {
    try {
      return run_plan(plan, *rest);
    } catch (const OutOfMemory& e) {
      if (failed_ || throws_again_) throw;  // something ran
      plan.keeper->give_up(e.what());
    }
  }
  run_plan(plan, *plan.executable);
}

void Frame::run_plan(const Plan& plan, const jit::Executable& executable) {
  scratch_.numbers.resize(plan.numbers.size());
  scratch_.outputs.resize(plan.nbytes.size());
  scratch_.storages.resize(plan.nbytes.size());
  TensorImpl* const* const handles = r_.handles.data();
  int64_t* number = scratch_.numbers.data();
  for (const auto& [first, count] : plan.number_runs) {
    std::copy_n(r_.words.data() + first, count, number);
    number += count;
  }
  Ref<core::Storage>* const storages = scratch_.storages.data();
  for (size_t k = 0; k < plan.roots.size(); ++k) {
    const uint32_t h = plan.roots[k];
    const bool back =
        n_taken_back_ > 0 && h < spare_.size() && spare_[h] && spare_[h]->nbytes == plan.nbytes[k];
    storages[k] = back ? std::move(spare_[h]) : nullptr;
  }
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
  int failed = 0, reached = 0;
  try {
    failed =
        executable.run(plan.addresses.data(), scratch_.numbers.data(), scratch_.outputs.data(), {}, &reached);
  } catch (...) {
    // No memory, or an own kernel's twin threw. What was written must not be written twice; else, as where an
    // index is out of range, abandon() runs op by op what came before, until that op throws once more.
    failed_ = !executable.wrote_nothing(reached);
    throws_again_ = !failed_ && reached > 0;
    scratch_.storages.clear();
    if (reached == 0) throw;
    const Location at = executable.entry_where(reached - 1);
    try {
      throw;
    } catch (const Error& e) {
      fail_again(e, name_at(at, executable.entry_name(reached - 1)), at);
    }
  }
  if (failed) {
    throws_again_ = true;
    scratch_.storages.clear();
    const Location at = executable.entry_where(failed - 1);
    fail(name_at(at, executable.entry_name(failed - 1)) + ": index out of range", at);
  }
  give_versions(plan);
  for (const Made& m : plan.made) {
    // Also what nobody holds now: a tape made again later in the call may need it.
    if (m.output < 0) {
      lend_home(m.handle);
      give_storage(m, handles[m.root]->storage);
    } else {
      TensorImpl* t = handles[m.handle];
      give_memory(t ? t : lend_fresh(m.handle), std::move(storages[m.output]));
    }
  }
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

}  // namespace tandem::tracer
