// A frozen call. Guards first: the arguments against the signature, the captured tensors by one counter that
// moves when any of them changes (only then are they looked at), gradients, modes. Then memory, and all that
// can fail. Then what the body would do before its ops run, the plan, and what it would do after.
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

namespace {

std::string place_text(Location where) {
  return where.known() ? std::string(where.file) + ":" + std::to_string(where.line) : "";
}

std::string argument_number(const void*, size_t i) { return "argument " + std::to_string(i); }

std::string slot_text(const FrozenSlot& s) {
  return "captured tensor \"" + s.name + "\" (" + name(s.dtype) + to_string(s.sizes) +
         (s.where.known() ? ", used at " + place_text(s.where) : "") + ")";
}

}  // namespace

FrozenCore::~FrozenCore() { unwatch(this); }

void FrozenCore::slot_event(TensorImpl* t, bool dying) noexcept {
  changes.fetch_add(1, std::memory_order_relaxed);
  if (!dying && t->storage) t->storage->slot = true;
  if (!dying) return;
  for (TensorImpl*& b : bound)
    if (b == t) b = nullptr;
}

uint32_t FrozenCore::bind(FrozenSlot slot, TensorImpl* t) {
  const auto known = std::find(bound.begin(), bound.end(), t);
  if (known != bound.end()) return static_cast<uint32_t>(known - bound.begin());
  const auto taken = [&](const FrozenSlot& s) { return s.name == slot.name; };
  while (std::any_of(slots.begin(), slots.end(), taken)) slot.name += "_";
  for (size_t i = 0; i < bound.size() && slot.shares < 0; ++i)
    if (bound[i] && bound[i]->storage == t->storage) slot.shares = static_cast<int32_t>(i);
  slot.contiguous = is_contiguous(slot.sizes, slot.strides);
  const auto index = static_cast<uint32_t>(slots.size());
  slots.push_back(std::move(slot));
  bound.push_back(t);
  watch_slot(this, t);
  ++changes;
  return index;
}

void FrozenCore::drop_slots(size_t n) {
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

void FrozenCore::refuse(const std::string& message) const { fail(name + " (frozen): " + message, made_at); }

// --- Guards ---

const FrozenSignature* FrozenCore::find(std::span<const Tensor> arguments, const uint64_t* structure) {
  const uint64_t modes_now = modes_word(modes());
  for (const auto& s : signatures) {
    if (s->key.size() != arguments.size() || s->modes != modes_now ||
        (structure && s->structure != *structure))
      continue;
    bool fits = true;
    for (size_t i = 0; fits && i < arguments.size(); ++i) fits = argument_matches(s->key[i], arguments, i);
    if (fits) return s.get();
  }
  return nullptr;
}

void FrozenCore::refuse_arguments(std::span<const Tensor> arguments, const uint64_t* structure) {
  Signature now{.modes = modes_word(modes())};
  for (size_t i = 0; i < arguments.size(); ++i) now.key.push_back(argument_type(arguments, i));
  std::string text = "the lengths of vectors, or which tensors are defined";
  size_t fewest = SIZE_MAX;
  for (const auto& s : signatures) {
    const auto [n, what] = compare_signatures({s->key, s->modes}, now, {argument_number, nullptr}, fewest);
    if (n < fewest && n > 0) fewest = n, text = what;
    if (n == 0 && structure && s->structure != *structure) break;
  }
  std::string recorded;
  for (const auto& s : signatures) {
    recorded += recorded.empty() ? "(" : ", (";
    for (size_t i = 0; i < s->key.size(); ++i)
      recorded += (i ? ", " : "") + std::string(tandem::name(s->key[i].dtype)) + to_string(s->key[i].sizes);
    recorded += ")";
  }
  refuse("the arguments are not as they were frozen: " + text + "; frozen for " + recorded +
         "; call the traced function with these and freeze it again");
}

void FrozenCore::check_slots() {
  // The history of a view follows its base's, and is brought up to date when somebody looks.
  for (const uint32_t v : views_)
    if (bound[v]) eager::refresh(bound[v]);
  if (changes.load(std::memory_order_relaxed) != checked_) [[unlikely]]
    scan();
}

void FrozenCore::refuse_slot(const FrozenSlot& s, const TensorImpl& t) const {
  const auto was = [&](const std::string& what, const std::string& before, const std::string& found) {
    refuse(slot_text(s) + " has changed: " + what + " " + before + " before, " + found + " now");
  };
  if (t.dtype != s.dtype) was("dtype", tandem::name(s.dtype), tandem::name(t.dtype));
  if (!(t.sizes == s.sizes)) was("sizes", to_string(s.sizes), to_string(t.sizes));
  if (!(t.strides == s.strides)) was("strides", to_string(s.strides), to_string(t.strides));
  if (t.grad_fn) was("history", "none", "the result of an op");
  was("requires_grad", s.requires_grad ? "true" : "false", s.requires_grad ? "false" : "true");
  internal_error("a captured tensor that has not changed is refused");
}

void FrozenCore::scan() {
  ++scans;
  const uint64_t now = changes.load(std::memory_order_relaxed);
  const size_t n = slots.size();
  data_.resize(n);
  moved_ |= storages_.size() != n;
  storages_.resize(n);
  views_.clear();
  for (size_t i = 0; i < n; ++i) {
    const FrozenSlot& s = slots[i];
    TensorImpl* t = bound[i];
    if (!t) refuse(slot_text(s) + " is gone; what it belonged to has died or was replaced");
    if (t->has(core::kView)) {
      eager::refresh(t);
      views_.push_back(static_cast<uint32_t>(i));
    }
    // Strides follow from the sizes where both are contiguous.
    const bool same = t->dtype == s.dtype && t->has(kRequiresGrad) == s.requires_grad && !t->grad_fn &&
                      t->sizes == s.sizes &&
                      ((s.contiguous && t->has(core::kContiguous)) || t->strides == s.strides);
    if (!same) [[unlikely]]
      refuse_slot(s, *t);
    data_[i] = t->data;
    if (storages_[i] != t->storage.get()) {
      moved_ = true;
      storages_[i] = t->storage.get();
      t->storage->slot = true;
    }
  }
  for (size_t i = 0; moved_ && i < n; ++i) {
    const auto first =
        static_cast<int32_t>(std::find(storages_.begin(), storages_.end(), storages_[i]) - storages_.begin());
    const int32_t shares = first == static_cast<int32_t>(i) ? -1 : first;
    if (shares == slots[i].shares) continue;
    refuse(slot_text(slots[i]) +
           (shares >= 0 ? " now shares memory with " : " no longer shares memory with ") +
           slot_text(slots[static_cast<size_t>(shares >= 0 ? shares : slots[i].shares)]));
  }
  moved_ = false;
  checked_ = now;
}

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

void FrozenCore::check_grads(const FrozenSignature& s, std::span<Tensor> arguments) {
  for (const GradWrite& w : s.grads) {
    const TensorImpl* leaf = at(w.leaf, arguments);
    const eager::AutogradState* state = eager::autograd_state(leaf);
    const auto who = [&] {
      return w.leaf.kind == Place::Kind::slot ? slot_text(slots[w.leaf.index])
                                              : "argument " + std::to_string(w.leaf.index);
    };
    const TensorImpl* grad = state ? state->grad.get() : nullptr;
    if (state && !state->hooks.empty()) refuse(who() + " has a hook now, which a frozen backward cannot run");
    if (w.before == GradWrite::Before::none && grad)
      refuse(who() +
             " has a gradient already, and had none when the function was frozen; call zero_grad "
             "before, or in the body");
    if (w.before == GradWrite::Before::present && !grad)
      refuse(who() + " has no gradient, and had one when the function was frozen");
    if (w.before == GradWrite::Before::slot && grad != bound[w.before_slot])
      refuse(who() + " had another gradient when the function was frozen, which the call adds to");
  }
}

// --- A call ---

void FrozenCore::fill_numbers(const FrozenSignature& s) {
  // Corrections are nearly always those of one step; computed once for numbers in a row.
  struct Known {
    double beta = -1;
    int64_t step = -1, bits = 0;
  } known[2];
  scratch_.numbers.resize(s.numbers.size());
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
        *out++ = static_cast<int64_t>(g.offset()) + n.bits;
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
  t->numel = numel(m.sizes);
  t->set(core::kContiguous, is_contiguous(m.sizes, m.strides));
  t->set(kRequiresGrad, m.requires_grad);
  TensorImpl* base = m.output < 0 ? at(m.base, arguments) : nullptr;
  t->offset = m.offset + (base ? base->offset : 0);
  t->storage = base ? base->storage : std::move(scratch_.storages[static_cast<size_t>(m.output)]);
  if (!base) {
    t->storage->version = m.version;
    t->storage->changed_at = m.changed_at;
  }
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

void FrozenCore::call(std::span<Tensor> arguments, const uint64_t* structure, Arguments& results,
                      const Prototype** prototype) {
  const core::ProfileSpan span("call", name, {});
  const std::lock_guard lock(mutex);
  for (const Tensor& a : arguments) {
    TensorImpl& t = a.checked(made_at);
    if (t.has(core::kPending)) refuse("an argument is a pending tensor of a traced call");
    eager::refresh(&t);
  }
  const FrozenSignature* found = find(arguments, structure);
  if (!found) refuse_arguments(arguments, structure);
  const FrozenSignature& s = *found;
  check_slots();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const core::Storage* m = arguments[i].impl()->storage.get();
    if (!m->slot) continue;
    const auto slot = std::find(storages_.begin(), storages_.end(), m);
    if (slot != storages_.end())
      refuse("argument " + std::to_string(i) + " shares memory with " +
             slot_text(slots[static_cast<size_t>(slot - storages_.begin())]));
  }
  check_grads(s, arguments);
  const struct Clean {  // nothing is held between calls, whatever happens
    FrozenCore& core;
    ~Clean() {
      core.scratch_.made.clear();
      core.scratch_.counts.clear();
      core.scratch_.storages.clear();
    }
  } clean{*this};
  for (const Counter& c : counters) {
    scratch_.counts.push_back(c.counts.lock());
    if (!scratch_.counts.back()) refuse("the optimizer whose steps it makes is gone");
  }
  scratch_.outputs.clear();
  for (const int64_t nbytes : s.nbytes) {
    scratch_.storages.push_back(core::make_storage(nbytes));
    scratch_.outputs.push_back(scratch_.storages.back()->data);
  }
  scratch_.inputs.resize(s.inputs.size());
  void** input = scratch_.inputs.data();
  for (const Place p : s.inputs)
    *input++ = p.kind == Place::Kind::slot ? data_[p.index] : arguments[p.index].impl()->data;
  fill_numbers(s);

  if (s.drawn) generator().advance(static_cast<uint64_t>(s.drawn));
  for (const VersionMove& m : s.moves) {
    core::Storage& storage = *at(m.memory, arguments)->storage;
    storage.version += m.count;
    storage.changed_at = m.where;
  }
  const int failed =
      s.executable->run(scratch_.inputs.data(), scratch_.numbers.data(), scratch_.outputs.data());
  if (failed) {
    const Location where = s.executable->entry_where(failed - 1);
    fail(s.name_at(where, s.executable->entry_name(failed - 1)) + ": index out of range", where);
  }

  for (const auto& [counter, moves] : s.steps)
    scratch_.counts[counter]->count[counters[counter].index] += moves;
  for (const MadeTensor& m : s.made) scratch_.made.push_back(make(m, arguments));
  for (const GradWrite& w : s.grads) {
    TensorImpl* leaf = at(w.leaf, arguments);
    if (w.after == GradWrite::After::made)
      eager::make_autograd_state(leaf).grad = scratch_.made[w.made];
    else if (eager::AutogradState* state = eager::autograd_state(leaf);
             state && w.after == GradWrite::After::none)
      state->grad.reset();
  }
  for (const Place p : s.results) results.add(Tensor(Ref<TensorImpl>(at(p, arguments))));
  if (prototype) *prototype = &s.prototype;
  ++calls;
}

// What the user called on a line where the plan's op `inner` failed: that op, or the composite it is part of.
std::string FrozenSignature::name_at(Location at, std::string inner) const {
  std::string composite;
  for (const auto& [where, id] : calls) {
    if (where.line != at.line || std::string_view(where.file) != at.file) continue;
    const ops::OpDef& op = ops::def(id);
    if (inner == op.name) return inner;
    if (op.kind == ops::OpKind::composite) composite = op.name;
  }
  return composite.empty() ? inner : composite;
}

void call_frozen(FrozenCore& core, std::span<Tensor> arguments, const uint64_t* structure, Arguments& results,
                 const Prototype** prototype) {
  core.call(arguments, structure, results, prototype);
}

const void* prototype_value(const Prototype& p, const void* type, const FrozenCore& core) {
  if (p.type != type)
    fail(core.name + " (frozen): called with other types of arguments than the calls that were frozen",
         core.made_at);
  return p.value.get();
}

void fail_frozen_arguments(const FrozenCore& core, size_t which) {
  fail(core.name + " (frozen): argument " + std::to_string(which) +
           " is not made of tensors alone; a frozen call cannot follow host values",
       core.made_at);
}

}  // namespace tracer

// --- The general form ---

std::vector<Tensor> FrozenFunction::operator()(std::span<const Tensor> arguments) const {
  std::vector<Tensor> in(arguments.begin(), arguments.end());
  // Inside a traced call this one is host code: what it reads and writes is made real, and it runs for
  // itself.
  if (eager::Interceptor* i = eager::interceptor()) {
    for (const Tensor& t : in) eager::materialize(&t.checked(core_->made_at), core_->made_at, true);
    for (core::TensorImpl* t : core_->bound)
      if (t && i->owes(t, true)) eager::materialize(t, core_->made_at, true);
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
  for (const auto& s : core_->signatures)
    out += s->executable->plan_text() + "\n" + s->executable->code() + "\n";
  return out;
}

std::vector<NamedTensor> FrozenFunction::state() const {
  const std::lock_guard lock(core_->mutex);
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < core_->slots.size(); ++i)
    if (core::TensorImpl* t = core_->bound[i])
      out.push_back({core_->slots[i].name, Tensor(Ref<core::TensorImpl>(t))});
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
  const auto line_of = [](const std::string& file, int line) {
    return line > 0 ? "  # " + file + ":" + std::to_string(line) : "";
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
