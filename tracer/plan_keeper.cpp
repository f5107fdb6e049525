#include "tandem/tracer/plan_keeper.h"

#include <algorithm>

#include "tandem/tracer/description.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/record.h"
#include "tandem/tracer/trace.h"

namespace tandem::tracer {

namespace {
constexpr int64_t kMostIdle = 64;
}

std::unique_ptr<PlanKeeper> PlanKeeper::of(const Plan& plan, const Record& r) {
  const jit::Graph& g = plan.graph;
  const auto is_written = [&](uint32_t handle) {
    return std::any_of(g.writes.begin(), g.writes.end(), [&](const jit::Write& w) {
      return r.infos[plan.inputs[static_cast<size_t>(w.input)]].cell == r.infos[handle].cell;
    });
  };
  std::unique_ptr<PlanKeeper> keeper(new PlanKeeper);
  int64_t bytes = 0;
  for (uint32_t i = 0; i < plan.inputs.size(); ++i) {
    const uint32_t handle = plan.inputs[i];
    const HandleInfo& info = r.infos[handle];
    if (info.kind != HandleInfo::Kind::slot || info.numel == 0 || is_written(handle) ||
        repeats_elements(info.sizes, info.strides, info.dtype))
      continue;
    bytes += info.numel * itemsize(info.dtype);
    keeper->candidates_.push_back({.input = i, .slot = handle});
  }
  // What is kept is not much larger than what it is made of (jit/kept.h), and not small beside what is moved.
  constexpr int64_t kShare = 128;
  if (bytes * kShare < plan.executable->stats().bytes_moved || bytes == 0 || r.options->max_kept_bytes <= 0)
    return nullptr;
  keeper->next_choice_ = runs_to_keep;
  return keeper;
}

const jit::Executable* PlanKeeper::follow(const Plan& plan, Record& r) {
  if (!kept_) {
    if (next_choice_ < 0) return nullptr;
    look(r);
    if (runs_++ == next_choice_) choose(plan, r);
    if (!kept_) return nullptr;
  }
  plan.addresses.resize(plan.inputs.size());
  const bool held = kept_->holds();
  const jit::Executable* rest = kept_->follow(r.slot_memory, binding(r), plan.addresses);
  r.keeps_anew |= rest && !held;
  idle_ = rest ? 0 : idle_ + 1;
  if (idle_ == kMostIdle) start_over();
  return rest;
}

void PlanKeeper::look(const Record& r) {
  for (Candidate& c : candidates_) {
    const core::Storage* s = r.slot_memory[c.slot];
    const uint64_t bound = r.infos[c.slot].binding;
    if (s && !s->exposed && s->version == c.version && bound == c.binding) continue;
    if (s) c.version = s->version;
    c.binding = bound;
    c.since = runs_;
  }
}

// Looks at the graph of such candidates as last; if nothing is worth it, again when twice as many runs were.
void PlanKeeper::choose(const Plan& plan, const Record& r) {
  next_choice_ *= 2;
  std::vector<int32_t> slots(plan.inputs.size(), -1);
  size_t lasting = 0;
  for (const Candidate& c : candidates_) {
    if (runs_ - c.since <= runs_to_keep) continue;
    slots[c.input] = static_cast<int32_t>(c.slot);
    ++lasting;
  }
  if (lasting == 0) return;
  try {
    kept_ = KeptValues::of({.graph = plan.graph,
                            .slots = std::move(slots),
                            .known = std::vector<std::optional<int64_t>>(plan.numbers.size()),
                            .device = plan.device,
                            .compile = r.compile,
                            .bytes_moved = plan.executable->stats().bytes_moved,
                            .max_bytes = r.options->max_kept_bytes,
                            .patience = runs_to_keep});
    if (!kept_ && lasting == candidates_.size()) next_choice_ = -1;
  } catch (const OutOfMemory& e) {  // for the second plan; the first one goes on
    warn_nothing_kept(e.what());
  }
}

// Some tensor that lasted once does no more; others may.
void PlanKeeper::start_over() {
  kept_.reset();
  idle_ = 0;
  next_choice_ = std::max(next_choice_, 2 * runs_);
}

// A binding has a larger number than all before it, so the largest one moves with every new one.
uint64_t PlanKeeper::binding(const Record& r) {
  if (binding_as_of_ != r.bindings) {
    binding_as_of_ = r.bindings;
    binding_ = 0;
    for (const uint32_t slot : kept_->slots()) binding_ = std::max(binding_, r.infos[slot].binding);
  }
  return binding_;
}

void PlanKeeper::let_go(std::vector<Ref<core::Storage>>& out, uint32_t slot) {
  if (!kept_) return;
  const std::span<const uint32_t> slots = kept_->slots();
  if (slot != 0 && (!kept_->holds() || std::find(slots.begin(), slots.end(), slot) == slots.end())) return;
  for (Ref<core::Storage>& k : kept_->let_go()) out.push_back(std::move(k));
}

void PlanKeeper::give_up(const std::string& why) { kept_->give_up(why); }

void let_go_of_kept(Record& r, std::vector<Ref<core::Storage>>& out, uint32_t slot) {
  for (const SegmentEnd& s : r.segments)
    if (s.plan && s.plan->keeper) s.plan->keeper->let_go(out, slot);
}

}  // namespace tandem::tracer
