// A frozen call. Guards first: the arguments and the modes against the signature, the captured tensors by one
// counter that moves when any of them changes (only then are they looked at), gradients. Then memory. Then
// the random numbers are drawn and the plan runs; where it has no memory, that is taken back. Then what the
// body did besides.
#include "tandem/tracer/frozen.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <ostream>

#include "tandem/core/profile.h"
#include "tandem/eager/optim/optimizers.h"
#include "tandem/eager/views.h"
#include "tandem/tracer/explain.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/registry.h"

namespace tandem {

namespace tracer {

using core::kRequiresGrad;

FrozenCore::~FrozenCore() { unwatch(this); }

bool FrozenCore::slot_event(TensorImpl* t, bool dying) noexcept {
  changes.fetch_add(1, std::memory_order_relaxed);
  if (!dying && t->storage) t->storage->slot = true;
  if (!dying) return false;
  if (is_running_elsewhere(*this)) {
    foreign.emplace_back(t);
    told = true;
    return true;
  }
  for (TensorImpl*& b : bound)
    if (b == t) b = nullptr;
  return false;
}

/// While one lives, this thread's call uses what is bound.
class FrozenCore::Running {
 public:
  Running(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped) : core_(core), dropped_(dropped) {
    start_running(core_, dropped_);
  }
  ~Running() { stop_running(core_, dropped_); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  FrozenCore& core_;
  std::vector<Ref<TensorImpl>>& dropped_;
};

Ref<TensorImpl> FrozenCore::hold(size_t i) const {
  const std::lock_guard lock(registry_mutex);
  return Ref<TensorImpl>(bound[i]);
}

uint32_t FrozenCore::bind(FrozenSlot slot, TensorImpl* t) {
  const std::lock_guard lock(registry_mutex);
  const auto known = std::find(bound.begin(), bound.end(), t);
  if (known != bound.end()) return static_cast<uint32_t>(known - bound.begin());
  const auto taken = [&](const FrozenSlot& s) { return s.name == slot.name; };
  while (std::any_of(slots.begin(), slots.end(), taken)) slot.name += "_";
  for (size_t i = 0; i < bound.size() && slot.shares < 0; ++i)
    if (bound[i] && bound[i]->storage == t->storage)
      slot.shares = slots[i].shares >= 0 ? slots[i].shares : static_cast<int32_t>(i);
  slot.contiguous = is_contiguous(slot.sizes, slot.strides);
  if (slot.contiguous)
    slot.flags = static_cast<uint16_t>(core::kContiguous | (slot.requires_grad ? kRequiresGrad : 0));
  const auto index = static_cast<uint32_t>(slots.size());
  slots.push_back(std::move(slot));
  bound.push_back(t);
  watch_locked(this, t);
  ++changes;
  return index;
}

void FrozenCore::drop_slots(size_t n) {
  const std::lock_guard lock(registry_mutex);
  for (size_t i = n; i < bound.size(); ++i)
    if (bound[i]) unwatch_locked(this, bound[i]);
  slots.resize(n);
  bound.resize(n);
  ++changes;
}

uint32_t FrozenCore::counter(const std::shared_ptr<eager::StepCounts>& counts, size_t index) {
  for (size_t i = 0; i < counters.size(); ++i)
    if (counters[i].index == index && counters[i].counts.lock() == counts) return static_cast<uint32_t>(i);
  counters.push_back({counts, index});
  return static_cast<uint32_t>(counters.size()) - 1;
}

const char* FrozenCore::keep(const std::string& file) {
  for (const std::string& f : files_)
    if (f == file) return f.c_str();
  return files_.emplace_back(file).c_str();
}

void FrozenSignature::list_uses() {
  const auto use = [&](Place p) {
    if (p.kind == Place::Kind::slot) slots.push_back(p.index);
  };
  for (const Place p : inputs) use(p);
  argument_inputs.clear();
  for (uint32_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].kind == Place::Kind::argument) argument_inputs.push_back(i);
  for (const Place p : results) use(p);
  for (MadeTensor& m : made) {
    if (m.output < 0) use(m.base);
    m.numel = numel(m.sizes);
    m.contiguous = is_contiguous(m.sizes, m.strides);
  }
  for (const VersionMove& m : moves) use(m.memory);
  for (const GradWrite& w : grads) {
    use(w.leaf);
    if (w.before == GradWrite::Before::slot) use({Place::Kind::slot, w.before_slot});
  }
  for (const auto& [counter, by] : steps) counters.push_back(counter);
  for (const NumberRule& n : numbers)
    if (n.kind == NumberRule::Kind::correction) counters.push_back(n.counter);
  for (std::vector<uint32_t>* list : {&slots, &counters}) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
}

// --- A call ---

TensorImpl* FrozenCore::at(Place p, std::span<Tensor> arguments) const {
  switch (p.kind) {
    case Place::Kind::argument:
      return arguments[p.index].impl();
    case Place::Kind::slot:
      return bound[p.index];
    case Place::Kind::made:
      break;
  }
  return scratch_.made[p.index].get();
}

void FrozenCore::fill_numbers(const FrozenSignature& s, uint64_t first) {
  // Corrections are nearly always those of one step; computed once for numbers in a row.
  struct Known {
    double beta = -1;
    int64_t step = -1, bits = 0;
  } known[2];
  scratch_.numbers.resize(s.numbers.size());
  if (s.numbers.empty()) return;
  int64_t* out = scratch_.numbers.data();
  const Generator& g = generator();
  for (const NumberRule& n : s.numbers) {
    switch (n.kind) {
      case NumberRule::Kind::constant:
        *out++ = n.bits;
        break;
      case NumberRule::Kind::seed:
        *out++ = static_cast<int64_t>(g.seed());
        break;
      case NumberRule::Kind::offset:
        *out++ = static_cast<int64_t>(first) + n.bits;
        break;
      case NumberRule::Kind::correction: {
        const int64_t step = scratch_.counts[n.counter]->count[counters[n.counter].index] + n.ahead;
        Known* k = known[0].beta == n.beta ? &known[0] : &known[1];
        if (k->beta != n.beta || k->step != step) {
          if (k == &known[1] && known[0].beta < 0) k = &known[0];
          *k = {n.beta, step, std::bit_cast<int64_t>(optim::bias_correction(n.beta, step))};
        }
        *out++ = k->bits;
        break;
      }
    }
  }
}

Ref<TensorImpl> FrozenCore::make(const MadeTensor& m, std::span<Tensor> arguments) {
  Ref<TensorImpl> t(core::new_impl());
  t->dtype = m.dtype;
  t->sizes = m.sizes;
  t->strides = m.strides;
  t->numel = m.numel;
  t->set(core::kContiguous, m.contiguous);
  t->set(kRequiresGrad, m.requires_grad);
  TensorImpl* base = m.output < 0 ? at(m.base, arguments) : nullptr;
  t->offset = m.offset + (base ? base->offset : 0);
  t->storage = base ? base->storage : std::move(scratch_.storages[static_cast<size_t>(m.output)]);
  if (!base) {
    t->storage->version = m.version;
    t->storage->changed_at = m.changed_at;
  }
  t->device = t->storage->device;
  t->data = static_cast<char*>(t->storage->data) + t->offset * itemsize(m.dtype);
  if (base && is_floating(m.dtype)) {
    t->set(m.follows ? core::kView : core::kBlindView, true);
    if (m.follows) {
      t->view = eager::view_node({base, m.op, m.words, m.where});
      t->history = eager::base_of(base)->history;
    }
  }
  if (m.freed) t->grad_fn = eager::freed_node(m.op, m.where);
  return t;
}

void FrozenCore::call(std::span<Tensor> arguments, const CallTypes* types, Arguments& results,
                      const Prototype** prototype) {
  const core::ProfileSpan span("call", name, {});
  std::vector<Ref<TensorImpl>> dropped;  // after the locks, as these are
  const std::lock_guard lock(mutex);
  const Running running(*this, dropped);
  for (const Tensor& a : arguments) {
    TensorImpl& t = a.checked(made_at);
    if (t.has(core::kPending)) refuse("an argument is a pending tensor of a traced call");
    eager::refresh(&t);
  }
  const FrozenSignature* found = find(arguments, types);
  if (!found) refuse_arguments(arguments, types);
  const FrozenSignature& s = *found;
  if (types && types->result != s.prototype.type)
    refuse("called for a result of another type than the calls that were frozen");
  check_slots(s);
  check_aliases(s, arguments);
  check_grads(s, arguments);
  const struct Clean {  // nothing is held between calls, whatever happens
    FrozenCore& core;
    ~Clean() {
      core.scratch_.made.clear();
      core.scratch_.counts.clear();
      core.scratch_.storages.clear();
    }
  } clean{*this};
  scratch_.counts.resize(counters.size());
  for (const uint32_t c : s.counters) {
    scratch_.counts[c] = counters[c].counts.lock();
    if (!scratch_.counts[c]) refuse("the optimizer whose steps it makes is gone");
  }
  scratch_.outputs.clear();
  for (const int64_t nbytes : s.nbytes) {
    scratch_.storages.push_back(core::make_storage(nbytes, s.device));
    scratch_.outputs.push_back(scratch_.storages.back()->data);
  }
  if (filled_for_ != &s || filled_at_ != moved_) {
    scratch_.inputs.resize(s.inputs.size());
    for (size_t i = 0; i < s.inputs.size(); ++i)
      if (s.inputs[i].kind == Place::Kind::slot) scratch_.inputs[i] = data_[s.inputs[i].index];
    filled_for_ = &s, filled_at_ = moved_;
  }
  for (const uint32_t i : s.argument_inputs) scratch_.inputs[i] = arguments[s.inputs[i].index].impl()->data;
  const jit::Executable* plan = nullptr;
  if (s.kept) {
    scratch_.inputs.resize(s.inputs.size());
    plan = s.kept->follow(storages_, checked_, scratch_.inputs);
  }
  if (!plan) plan = s.executable.get();
  const auto drawn = static_cast<uint64_t>(s.drawn);
  const uint64_t first = drawn ? generator().advance(drawn) : generator().offset();
  fill_numbers(s, first);

  const auto move_versions = [&] {
    for (const VersionMove& m : s.moves) {
      core::Storage& storage = *at(m.memory, arguments)->storage;
      storage.version += m.count;
      storage.changed_at = m.where;
    }
  };
  const auto take_draws_back = [&] {
    if (drawn && generator().offset() == first + drawn) generator().set_offset(first);
  };
  int failed = 0, reached = 0;
  try {
    failed =
        plan->run(scratch_.inputs.data(), scratch_.numbers.data(), scratch_.outputs.data(), {}, &reached);
  } catch (...) {  // no memory, or an own kernel's twin threw: then nothing was written
    if (plan->wrote_nothing(reached)) take_draws_back();
    if (reached == 0) throw;
    if (!plan->wrote_nothing(reached)) move_versions();
    const Location where = plan->entry_where(reached - 1);
    try {
      throw;
    } catch (const Error& e) {
      fail_again(e, s.name_at(where, plan->entry_name(reached - 1)), where);
    }
  }
  if (failed) {
    take_draws_back();
    const Location where = plan->entry_where(failed - 1);
    fail(s.name_at(where, plan->entry_name(failed - 1)) + ": index out of range", where);
  }
  move_versions();

  for (const auto& [counter, moves] : s.steps)
    scratch_.counts[counter]->count[counters[counter].index] += moves;
  for (const MadeTensor& m : s.made) scratch_.made.push_back(make(m, arguments));
  // Results first: a gradient that is let go may be one.
  for (const Place p : s.results) results.add(Tensor(Ref<TensorImpl>(at(p, arguments))));
  for (const GradWrite& w : s.grads) {
    if (w.after == GradWrite::After::kept) continue;
    TensorImpl* leaf = at(w.leaf, arguments);
    eager::AutogradState* state =
        w.after == GradWrite::After::made ? &eager::make_autograd_state(leaf) : eager::autograd_state(leaf);
    if (!state || (!state->grad && w.after == GradWrite::After::none)) continue;
    Ref<TensorImpl> grad = w.after == GradWrite::After::made ? scratch_.made[w.made] : Ref<TensorImpl>();
    std::swap(state->grad, grad);
    if (grad) scratch_.made.push_back(std::move(grad));  // let go when all is done
  }
  if (prototype) *prototype = &s.prototype;
  ++calls;
}

std::string FrozenSignature::name_at(Location at, std::string inner) const {
  FailedCall call(at, std::move(inner));
  for (const auto& [where, id] : calls) call.see(where, id);
  return call.name();
}

void fail_moved_from() { fail("a traced or frozen function was used after it was moved from"); }

void call_frozen(FrozenCore& core, std::span<Tensor> arguments, const CallTypes* types, Arguments& results,
                 const Prototype** prototype) {
  core.call(arguments, types, results, prototype);
}

void fail_frozen_arguments(const FrozenCore& core, size_t which) {
  fail(core.name + " (frozen): argument " + std::to_string(which) +
           " is not made of tensors alone; a frozen call cannot follow host values",
       core.made_at);
}

}  // namespace tracer

// --- The general form ---

std::vector<Tensor> FrozenFunction::operator()(TensorSpan arguments) const {
  std::vector<Tensor> in(arguments.begin(), arguments.end());
  // Inside a traced call this one is host code: what it reads and writes is made real, and it runs for
  // itself.
  if (eager::Interceptor* i = eager::interceptor()) {
    if (i->observes) i->real_read(core_->made_at);
    for (const Tensor& t : in) eager::materialize(&t.checked(core_->made_at), core_->made_at, true);
    for (const NamedTensor& n : state())
      if (i->owes(n.tensor.impl(), true)) eager::materialize(n.tensor.impl(), core_->made_at, true);
  }
  const eager::InterceptorGuard outside(nullptr);
  tracer::Arguments results;
  core_->call(in, nullptr, results, nullptr);
  const std::span<Tensor> out = results.list();
  return {std::make_move_iterator(out.begin()), std::make_move_iterator(out.end())};
}

FrozenReport FrozenFunction::report() const {
  const std::lock_guard lock(core_->mutex);
  FrozenReport r;
  r.name = core_->name;
  r.signatures = static_cast<int64_t>(core_->signatures.size());
  r.calls = core_->calls;
  r.scans = core_->scans;
  for (const auto& s : core_->signatures)
    r.constants.insert(r.constants.end(), s->constants.begin(), s->constants.end());
  for (const auto& s : core_->signatures)
    if (s->kept) r.kept_bytes += s->kept->nbytes();
  for (const tracer::FrozenSlot& s : core_->slots)
    r.tensors.push_back({s.name, s.dtype, s.sizes, s.requires_grad, s.written, s.where.file, s.where.line});
  return r;
}

std::string FrozenFunction::graph() const {
  std::string out;
  for (const auto& s : core_->signatures) out += s->graph + "\n";
  return out;
}

std::string FrozenFunction::code() const {
  std::string out;
  for (const auto& s : core_->signatures) {
    out += s->executable->plan_text() + "\n" + s->executable->code() + "\n";
    if (s->kept) out += s->kept->plan_text() + "\n" + s->kept->code() + "\n";
  }
  return out;
}

std::vector<NamedTensor> FrozenFunction::state() const {
  const std::lock_guard lock(core_->mutex);
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < core_->slots.size(); ++i)
    if (Ref<core::TensorImpl> t = core_->hold(i)) out.push_back({core_->slots[i].name, Tensor(std::move(t))});
  return out;
}

std::vector<NamedTensor> FrozenFunction::parameters() const {
  std::vector<NamedTensor> out = state();
  std::erase_if(out, [](const NamedTensor& n) { return !n.tensor.requires_grad(); });
  return out;
}

Generator& FrozenFunction::generator() const { return core_->generator(); }
std::string FrozenFunction::saved_kernels() const { return core_->kernels; }

std::string to_string(const FrozenReport& r) {
  std::string out = r.name + " (frozen)\n  calls       " + std::to_string(r.calls) + " of " +
                    std::to_string(r.signatures) + " signatures, captured tensors looked at in " +
                    std::to_string(r.scans) + "\n";
  if (r.kept_bytes > 0)
    out += "  kept        " + std::to_string(r.kept_bytes) + " bytes made of captured tensors\n";
  const auto line_of = [](const std::string& file, int line) {
    return line > 0 ? "  # " + to_string(Location{file.c_str(), line}) : "";
  };
  for (const FrozenConstant& c : r.constants) {
    char value[32];
    std::snprintf(value, sizeof value, "%.17g", c.value);
    out += "  constant    " + c.op + " " + c.attribute + " = " + value + line_of(c.file, c.line) + "\n";
  }
  for (const FrozenTensor& t : r.tensors)
    out += "  tensor      " + t.name + " " + name(t.dtype) + to_string(t.sizes) +
           (t.requires_grad ? ", requires grad" : "") + (t.written ? ", written" : "") +
           line_of(t.file, t.line) + "\n";
  return out;
}
std::ostream& operator<<(std::ostream& out, const FrozenReport& report) { return out << to_string(report); }

}  // namespace tandem
