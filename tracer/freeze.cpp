// From a record to a signature of a frozen function. What the body did in ways that the record does not hold
// is refused with the line where it did; what remains is a plan and a list of what to do before and after it.
#include <algorithm>
#include <bit>

#include "tandem/tracer/description.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/freezer.h"

namespace tandem::tracer {

using ops::OpId;

std::unique_ptr<FrozenSignature> Freezer::run() {
  check_events();
  check_observed();
  out_->key = r_.key;
  out_->modes = r_.modes_at_entry;
  out_->structure = seen().types.structure;
  out_->types = seen().types.arguments;
  out_->graph = jit::to_string(plan_->graph);
  out_->executable = plan_->executable;
  out_->device = plan_->device;
  out_->nbytes = plan_->nbytes;
  out_->drawn = seen().drawn;
  out_->prototype = r_.observed->prototype;
  for (const uint32_t h : plan_->inputs) out_->inputs.push_back(place(h));
  count_steps();
  move_versions();
  for (const uint32_t h : seen().results) out_->results.push_back(place(h));
  write_grads();
  check_outputs();
  for (const uint32_t w : plan_->numbers) out_->numbers.push_back(number(w));
  out_->list_uses();
  out_->keep_values(core_, plan_->graph);
  return std::move(out_);
}

void FrozenSignature::keep_values(const FrozenCore& core, const jit::Graph& g) {
  const auto memory_of = [&](uint32_t slot) {
    const int32_t shares = core.slots[slot].shares;
    return shares >= 0 ? static_cast<uint32_t>(shares) : slot;
  };
  const auto is_written = [&](uint32_t slot) {
    return std::any_of(moves.begin(), moves.end(), [&](const VersionMove& m) {
      return m.memory.kind == Place::Kind::slot && memory_of(m.memory.index) == memory_of(slot);
    });
  };
  KeptValues::Source plan{.graph = g,
                          .slots = {},
                          .known = {},
                          .device = device,
                          .compile = core.compile,
                          .bytes_moved = executable->stats().bytes_moved,
                          .max_bytes = core.max_kept_bytes};
  const auto repeats = [&](const FrozenSlot& s) { return repeats_elements(s.sizes, s.strides, s.dtype); };
  for (const Place p : inputs) {
    const bool lasting = p.kind == Place::Kind::slot && !is_written(p.index) && !repeats(core.slots[p.index]);
    plan.slots.push_back(lasting ? static_cast<int32_t>(p.index) : -1);
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    const bool constant =
        numbers[i].kind == NumberRule::Kind::constant && g.number_types[i] == DType::float64;
    plan.known.push_back(constant ? std::optional(numbers[i].bits) : std::nullopt);
  }
  kept = KeptValues::of(plan);
}

Location Freezer::first_use(uint32_t handle) const {
  for (size_t i = 0; i < path().entries.size(); ++i) {
    const Entry& e = path().entries[i];
    if (e.kind != EventKind::op) continue;
    for (uint32_t k = 0; k < e.n_in; ++k)
      if (r_.operand(e, k) == handle) return path().where[i];
  }
  return {};
}

// Everything that the body did as host code, with its line.
void Freezer::check_events() {
  if (r_.branches.size() > 1) {
    const Branch& b = *r_.branches[1];
    const Branch& from = *r_.branches[static_cast<size_t>(std::max(0, b.parent))];
    Location at = b.where.empty() ? Location{} : b.where[0];
    if (!at.known() && b.parent_position < static_cast<int32_t>(from.where.size()))
      at = from.where[static_cast<size_t>(b.parent_position)];
    refuse("a branch: calls with the same arguments went on in " + std::to_string(r_.branches.size()) +
               " ways; the body decides which, and does not run in a frozen call",
           at);
  }
  TANDEM_INTERNAL(!r_.branches.empty(), "a record without a path is frozen");
  for (size_t i = 0; i < path().entries.size(); ++i) check(path().entries[i], path().where[i]);
  if (!r_.op_by_op.empty()) refuse(r_.op_by_op, {});
  for (const SegmentEnd& s : r_.segments) {
    if (!s.op_by_op.empty()) refuse("the call runs op by op: " + s.op_by_op, {});
    if (s.plan) plan_ = s.plan.get();
    open_tape_ = s.open_tape;
  }
}

void Freezer::check(const Entry& e, Location where) {
  switch (e.kind) {
    case EventKind::read:
      refuse("a read: what the program does with the value needs the body", where);
    case EventKind::host_code:
      refuse("host code in backward", where);
    case EventKind::requires_grad:
      refuse("requires_grad_ inside the body", where);
    case EventKind::backward: {
      const BackwardRecord& b = r_.backwards[e.more];
      if (!b.skippable || !b.complete)
        refuse(
            "backward ran host code (a hook, a custom function) or went into a history from before the "
            "call",
            where);
      for (const LeafGrad& g : b.leaves) {
        const TensorImpl* leaf = r_.handles[g.leaf];
        const eager::AutogradState* s = leaf ? eager::autograd_state(leaf) : nullptr;
        if (s && !s->hooks.empty()) refuse("backward reaches a tensor with a hook", where);
      }
      break;
    }
    case EventKind::op:
      if (static_cast<OpId>(e.op) == OpId::sgd_momentum_update && dampening(e) != 0)
        refuse(
            "sgd_momentum_update with dampening: the first step of a buffer is another one than those "
            "after "
            "it, and a frozen call cannot tell",
            where);
      if (e.moves)
        refuse(std::string(def(e).name) + ": a position that changes between calls follows the body", where);
      if (e.outside)
        refuse(std::string(def(e).name) + ": the in-place change gives a tensor from outside a history",
               where);
      break;
    case EventKind::end_backward:
    case EventKind::end:
      break;
  }
}

double Freezer::dampening(const Entry& e) const {  // after lr and momentum
  return std::bit_cast<double>(r_.words[e.first_attr() + 2]);
}

void Freezer::check_observed() {
  if (!r_.observed || r_.observed->times < Observation::kNeeded)
    refuse_now(
        "two calls in a row that did the same must be observed first (so that numbers that change are "
        "seen), found " +
            std::to_string(r_.observed ? r_.observed->times : 0) +
            " of this signature; calls under verify or debug do not count",
        {});
  if (!seen().refused.empty()) refuse(seen().refused, seen().refused_at);
  if (!plan_) refuse("the call runs no op", {});
}

Place Freezer::place(uint32_t h) {
  const HandleInfo& info = r_.infos[h];
  switch (info.kind) {
    case HandleInfo::Kind::argument:
      for (size_t a = 0; a < r_.arguments.size(); ++a)
        if (r_.arguments[a] == h) return {Place::Kind::argument, static_cast<uint32_t>(a)};
      break;
    case HandleInfo::Kind::slot:
      return {Place::Kind::slot, slot(h)};
    case HandleInfo::Kind::result:
      return {Place::Kind::made, made(h)};
    case HandleInfo::Kind::none:
      break;
  }
  internal_error("a value that is neither given nor made is frozen");
}

uint32_t Freezer::slot(uint32_t h) {
  const HandleInfo& info = r_.infos[h];
  TensorImpl* t = r_.handles[h];
  const Location at = first_use(h);
  if (!t)
    refuse_now(
        "a captured tensor " + type_text(info) +
            " is gone: it was made in the body (from host data), or dropped since; make it once, outside",
        at);
  if (info.bound_in > r_.observed->seen_in)
    refuse_now("a captured tensor " + type_text(info) +
                   " is another one than in the calls that were observed; call the function twice more first",
               at);
  if (!info.leaf || t->grad_fn)
    refuse("a captured tensor " + type_text(info) + " has a history; detach() it first", at);
  return core_.bind({.dtype = info.dtype,
                     .device = info.device,
                     .sizes = info.sizes,
                     .strides = info.strides,
                     .requires_grad = info.requires_grad,
                     .name = "slot" + std::to_string(h),  // as in the graph
                     .where = at},
                    t);
}

uint32_t Freezer::made(uint32_t h) {
  const auto known = made_.find(h);
  if (known != made_.end()) return known->second;
  const HandleInfo& info = r_.infos[h];
  if (std::find(open_tape_.begin(), open_tape_.end(), h) != open_tape_.end())
    refuse(std::string(ops::def(info.op).name) +
               ": the result keeps its history, so that a backward outside could go through the call; put "
               "NoGrad around the body, or detach() the result",
           info.where);
  if (info.history)
    refuse(std::string(ops::def(info.op).name) + ": a result that was changed in place has a history",
           info.where);
  MadeTensor m;
  m.dtype = info.dtype;
  m.sizes = info.sizes;
  m.strides = info.strides;
  m.offset = info.offset;
  m.requires_grad = info.requires_grad;
  m.freed = info.requires_grad;
  m.op = info.op;
  m.where = info.where;
  if (info.view) {
    m.base = place(info.base);
    m.offset -= r_.infos[info.base].offset;
    m.follows = info.follows;
    m.op = static_cast<OpId>(info.view->op);
    const int64_t* words = r_.words.data() + info.view->words;
    m.words.assign(words, words + info.view->n_words);
  } else {
    const auto output = std::find(plan_->outputs.begin(), plan_->outputs.end(), info.cell);
    TANDEM_INTERNAL(output != plan_->outputs.end(), "a result without memory is frozen");
    m.output = static_cast<int32_t>(output - plan_->outputs.begin());
    handed_out_.push_back(info.cell);
    if (const auto v = versions_.find(info.cell); v != versions_.end()) {
      m.version = v->second.first;
      m.changed_at = v->second.second;
    }
  }
  const auto index = static_cast<uint32_t>(out_->made.size());
  out_->made.push_back(std::move(m));
  made_[h] = index;
  return index;
}

void Freezer::move_versions() {
  bool in_backward = false;
  const auto move = [&](uint32_t h, Location where) {
    while (r_.infos[h].view) h = r_.infos[h].base;
    const HandleInfo& info = r_.infos[h];
    if (info.kind == HandleInfo::Kind::result) {
      auto& [count, at] = versions_[info.cell];
      ++count, at = where;
      return;
    }
    const Place p = place(h);
    for (VersionMove& m : out_->moves)
      if (m.memory.kind == p.kind && m.memory.index == p.index) {
        ++m.count, m.where = where;
        return;
      }
    out_->moves.push_back({p, 1, where});
  };
  for (size_t i = 0; i < path().entries.size(); ++i) {
    const Entry& e = path().entries[i];
    if (e.kind == EventKind::op) out_->calls.emplace_back(path().where[i], static_cast<OpId>(e.op));
    if (e.kind == EventKind::end_backward) in_backward = false;
    if (e.kind == EventKind::backward) {
      in_backward = true;
      for (const LeafGrad& g : r_.backwards[e.more].leaves)
        if (g.in_place) move(g.before, {});
    }
    if (e.kind == EventKind::op && e.in_place && !in_backward)
      for (const int w : ops::written(def(e))) move(r_.operand(e, static_cast<uint32_t>(w)), path().where[i]);
  }
}

void Freezer::write_grads() {
  std::vector<uint32_t> leaves;  // handles
  const auto write_of = [&](uint32_t leaf) -> GradWrite* {
    const auto known = std::find(leaves.begin(), leaves.end(), leaf);
    if (known != leaves.end()) return &out_->grads[static_cast<size_t>(known - leaves.begin())];
    leaves.push_back(leaf);
    out_->grads.push_back({.leaf = place(leaf), .before = GradWrite::Before::cleared});
    return nullptr;
  };
  for (size_t i = 0; i < path().entries.size(); ++i) {
    if (path().entries[i].kind != EventKind::backward) continue;
    for (const LeafGrad& g : r_.backwards[path().entries[i].more].leaves) {
      if (r_.infos[g.leaf].kind == HandleInfo::Kind::result)
        refuse("a gradient goes to a leaf that the body makes", path().where[i]);
      if (write_of(g.leaf)) continue;
      GradWrite& w = out_->grads.back();
      if (!g.before) {
        if (!touched(g.leaf, static_cast<int32_t>(i))) w.before = GradWrite::Before::none;
      } else if (r_.infos[g.before].kind == HandleInfo::Kind::slot) {
        w.before = GradWrite::Before::slot;
        w.before_slot = slot(g.before);
      } else if (r_.infos[g.before].kind == HandleInfo::Kind::argument) {
        refuse("an argument is the gradient of a captured tensor", path().where[i]);
      }
    }
  }
  for (const auto& [leaf, grad] : seen().grads) {
    GradWrite* known = write_of(leaf);
    GradWrite& w = known ? *known : out_->grads.back();
    const HandleInfo& info = r_.infos[grad];
    if (info.kind == HandleInfo::Kind::result) {
      w.after = GradWrite::After::made;
      w.made = made(grad);
      continue;
    }
    if (!known) w.before = GradWrite::Before::slot;
    const bool same = info.kind == HandleInfo::Kind::slot && (!known || w.before == GradWrite::Before::slot);
    const uint32_t s = same ? slot(grad) : 0;
    if (!same || (known && s != w.before_slot))
      refuse("a gradient becomes a tensor that the call did not make", first_use(leaf));
    w.before_slot = s;
    w.after = GradWrite::After::kept;
  }
  use_grads(leaves);
}

// What the body did with gradients besides backward: dropped, set, or looked for.
void Freezer::use_grads(std::vector<uint32_t>& leaves) {
  using Use = Observation::Call::GradUse;
  for (const Use& u : seen().uses) {
    const auto known = u.stranger ? leaves.end() : std::find(leaves.begin(), leaves.end(), u.leaf);
    const bool fresh = known == leaves.end();
    if (fresh) {
      const std::optional<Place> leaf = u.stranger ? stranger(u.leaf) : place(u.leaf);
      if (!leaf) continue;
      out_->grads.push_back(
          {.leaf = *leaf, .before = GradWrite::Before::cleared, .after = GradWrite::After::kept});
      leaves.push_back(u.stranger ? 0 : u.leaf);
    }
    GradWrite& w = fresh ? out_->grads.back() : out_->grads[static_cast<size_t>(known - leaves.begin())];
    if (w.before == GradWrite::Before::cleared && u.kind != Use::set)
      w.before = u.kind == Use::found_none ? GradWrite::Before::none : GradWrite::Before::present;
    if (u.found && w.before == GradWrite::Before::present) found_gradient(w, u.found);
    if (u.kind != Use::set || (!fresh && w.after != GradWrite::After::kept)) continue;
    if (!u.left) {
      w.after = GradWrite::After::none;
    } else if (u.after && r_.infos[u.after].kind == HandleInfo::Kind::result) {
      w.after = GradWrite::After::made;
      w.made = made(u.after);
    } else {
      refuse("the body sets a gradient to a tensor that the call did not make",
             u.stranger ? Location{} : first_use(u.leaf));
    }
  }
}

// The call's ops use this very tensor, whatever the leaf's gradient is then.
void Freezer::found_gradient(GradWrite& w, uint32_t h) {
  if (r_.infos[h].kind == HandleInfo::Kind::argument)
    refuse("an argument is the gradient of a captured tensor, and the body uses it as such", first_use(h));
  if (r_.infos[h].kind != HandleInfo::Kind::slot) return;
  w.before = GradWrite::Before::slot;
  w.before_slot = slot(h);
}

std::optional<Place> Freezer::stranger(uint32_t index) {
  const Ref<TensorImpl> t = r_.observed->strangers->hold(index);
  if (!t) return {};
  const FrozenSlot as{.dtype = t->dtype,
                      .device = t->device,
                      .sizes = t->sizes,
                      .strides = t->strides,
                      .requires_grad = t->has(core::kRequiresGrad),
                      .name = "slot"};
  return Place{Place::Kind::slot, core_.bind(as, t.get())};
}

bool Freezer::touched(uint32_t h, int32_t i) const {
  using Use = Observation::Call::GradUse;
  return std::any_of(seen().uses.begin(), seen().uses.end(), [&](const Use& u) {
    return !u.stranger && u.leaf == h && u.kind == Use::set && u.position <= i;
  });
}

// What the plan makes must be what the call hands out.
void Freezer::check_outputs() {
  for (const uint32_t cell : plan_->outputs) {
    if (std::find(handed_out_.begin(), handed_out_.end(), cell) != handed_out_.end()) continue;
    const HandleInfo& root = r_.infos[r_.cells[cell].root];
    refuse(std::string(ops::def(root.op).name) + ": the value " + type_text(root) +
               " lives on after the call, but not as a result or a gradient; return it, write it into a "
               "captured tensor in place, or let it go",
           root.where);
  }
}

void FrozenCore::add(const Record& r, bool* again) {
  const std::lock_guard lock(mutex);
  const size_t n_slots = slots.size(), n_counters = counters.size();
  try {
    signatures.push_back(Freezer(*this, r, again).run());
  } catch (...) {
    drop_slots(n_slots);
    counters.resize(n_counters);
    throw;
  }
  for (const VersionMove& m : signatures.back()->moves)
    if (m.memory.kind == Place::Kind::slot) slots[m.memory.index].written = true;
}

}  // namespace tandem::tracer
