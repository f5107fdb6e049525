// Registration works through a thread-local pointer: child() sets it, and the base constructor of the module
// under construction takes it, which is at its final address already, since a returned prvalue is built in
// place. Parent and child know each other, and whichever dies first tells the other.
#include "tandem/eager/nn/module.h"

#include <algorithm>
#include <unordered_set>

#include "tandem/eager/interceptor.h"
#include "tandem/eager/tape.h"

namespace tandem::nn {

using core::Ref;
using core::TensorImpl;

constinit thread_local Module::Registration* Module::pending_ = nullptr;

namespace {

/// Lets `t`, which its holders keep, show the values of `fresh`. What the tape saved of it is outdated by
/// this.
void replace_values(TensorImpl& t, const TensorImpl& fresh, Location where) {
  const uint32_t version = t.storage->version + 1;
  t.dtype = fresh.dtype;
  t.device = fresh.device;
  core::set_layout(t, fresh.sizes, fresh.strides);
  core::set_storage(t, fresh.storage, fresh.offset);
  t.storage->version = version;
  t.storage->changed_at = where;
}

}  // namespace

Module::Registration::Registration(Module& parent, const Name& name)
    : parent_(parent), name_(name), outer_(pending_) {
  pending_ = this;
}
Module::Registration::~Registration() { pending_ = outer_; }

Module::Module() {
  const Registration* r = std::exchange(pending_, nullptr);
  if (!r) return;
  made_at_ = r->name_.where;
  r->parent_.check_name(r->name_.text, made_at_);
  r->parent_.children_.push_back({r->name_.text, this});
  parent_ = &r->parent_;
}

Module::~Module() {
  if (parent_) std::erase_if(parent_->children_, [this](const Child& c) { return c.module == this; });
  for (const Child& c : children_) c.module->parent_ = nullptr;
}

void Module::check_name(const std::string& name, Location where) const {
  if (name.empty() || name.find('.') != std::string::npos)
    fail("Module: the name \"" + name + "\" is empty or contains a dot, which separates the names of modules",
         where);
  bool taken = false;
  for (const Item& i : items_) taken |= i.name == name;
  for (const Child& c : children_) taken |= c.name == name;
  if (taken)
    fail(
        "Module: the name \"" + name + "\" is taken; parameters, buffers and children share one set of names",
        where);
}

Tensor Module::parameter(const std::string& name, Tensor initial, Location where) {
  check_name(name, where);
  if (initial.checked(where).grad_fn)
    fail("Module: parameter \"" + name + "\" is the result of an op with history; detach() it first", where);
  initial.requires_grad_(true, where);
  items_.push_back({name, initial, true, true});
  return initial;
}

Tensor Module::buffer(const std::string& name, Tensor initial, bool persistent, Location where) {
  check_name(name, where);
  if (initial.checked(where).has(core::kRequiresGrad))
    fail("Module: buffer \"" + name + "\" requires grad; what is trained is a parameter", where);
  items_.push_back({name, initial, false, persistent});
  return initial;
}

void Module::collect(const std::string& prefix, std::vector<NamedModule>& out) const {
  out.push_back({prefix, const_cast<Module*>(this)});
  for (const Child& c : children_) c.module->collect(prefix.empty() ? c.name : prefix + '.' + c.name, out);
}

std::vector<NamedModule> Module::all() const {
  std::vector<NamedModule> out;
  collect("", out);
  return out;
}
std::vector<NamedModule> Module::named_modules() { return all(); }

template <class Keep>
std::vector<NamedTensor> Module::named(Keep keep) const {
  std::vector<NamedTensor> out;
  for (const NamedModule& m : all()) {
    // A module's parameters precede its buffers, whatever the order of registration.
    for (const bool parameters : {true, false})
      for (const Item& i : m.module->items_)
        if (i.is_parameter == parameters && keep(i))
          out.push_back({m.name.empty() ? i.name : m.name + '.' + i.name, i.tensor});
  }
  return out;
}

std::vector<NamedTensor> Module::named_parameters() const {
  std::unordered_set<const TensorImpl*> seen;
  return named([&](const Item& i) { return i.is_parameter && seen.insert(i.tensor.impl()).second; });
}
std::vector<NamedTensor> Module::named_buffers() const {
  return named([](const Item& i) { return !i.is_parameter; });
}
std::vector<NamedTensor> Module::state() const {
  return named([](const Item& i) { return i.persistent; });
}
std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> out;
  for (NamedTensor& p : named_parameters()) out.push_back(std::move(p.tensor));
  return out;
}

void Module::check_state(const std::vector<NamedTensor>& state, bool strict, Location where) const {
  eager::match_names(this->state(), state, strict, "Module", where);
}

void Module::load_state(const std::vector<NamedTensor>& state, bool strict, Location where) {
  const std::vector<NamedTensor> mine = this->state();
  const std::vector<int64_t> found = eager::match_names(mine, state, strict, "Module", where);
  const NoGrad no_grad;
  for (size_t i = 0; i < mine.size(); ++i)
    if (found[i] >= 0) mine[i].tensor.copy_(state[static_cast<size_t>(found[i])].tensor, where);
}

void Module::train(bool on) {
  apply([on](Module& m) { m.training_ = on; });
}

template <class Convert>
void Module::convert(Convert convert, const char* who, Location where) {
  struct Change {
    Tensor old, fresh, grad;
  };
  std::vector<Change> changes;
  const NoGrad no_grad;
  std::unordered_set<const TensorImpl*> seen;
  for (const NamedTensor& n : named([&](const Item& i) { return seen.insert(i.tensor.impl()).second; })) {
    Tensor fresh = convert(n.tensor);
    if (fresh.impl() == n.tensor.impl()) continue;
    if (eager::interceptor())
      fail(std::string(who) + ": \"" + n.name + "\" would change inside of a traced call; call it before",
           where);
    changes.push_back(
        {n.tensor, std::move(fresh), n.tensor.grad().defined() ? convert(n.tensor.grad()) : Tensor()});
  }
  for (Change& c : changes) {
    c.old.set_grad({}, where);
    replace_values(*c.old.impl(), *c.fresh.impl(), where);
    if (c.grad.defined()) c.old.set_grad(c.grad, where);
  }
}

void Module::to(Device device, Location where) {
  convert([&](const Tensor& t) { return t.to(device, where); }, "Module::to", where);
}

void Module::to(DType dtype, Location where) {
  if (!is_floating(dtype))
    fail(std::string("Module::to: a floating type is needed, found ") + name(dtype), where);
  convert([&](const Tensor& t) { return is_floating(t.dtype()) ? t.to(dtype, where) : t; }, "Module::to",
          where);
}

void Module::zero_grad() {
  for (Tensor& p : parameters()) p.zero_grad();
}
void Module::requires_grad_(bool on, Location where) {
  for (Tensor& p : parameters()) p.requires_grad_(on, where);
}
int64_t Module::num_parameters() const {
  int64_t n = 0;
  for (const Tensor& p : parameters()) n += p.numel();
  return n;
}

void fill_clone(const Module& from, Module& to) {
  const auto everything = [](const Module::Item&) { return true; };
  const std::vector<NamedTensor> source = from.named(everything), target = to.named(everything);
  const NoGrad no_grad;
  for (size_t i = 0; i < std::min(source.size(), target.size()); ++i) {
    const Tensor &s = source[i].tensor, &t = target[i].tensor;
    if ((s.dtype() != t.dtype() || s.device() != t.device()) && s.sizes() == t.sizes())
      replace_values(*t.impl(), *empty_like(s).impl(), {});
  }
  const std::vector<int64_t> found = eager::match_names(target, source, true, "clone: another structure", {});
  for (size_t i = 0; i < target.size(); ++i) {
    const Tensor& s = source[static_cast<size_t>(found[i])].tensor;
    target[i].tensor.copy_(s);
    Tensor(target[i].tensor).requires_grad_(s.requires_grad());
  }
  const std::vector<NamedModule> sources = from.all(), targets = to.all();
  for (size_t i = 0; i < std::min(sources.size(), targets.size()); ++i)
    targets[i].module->training_ = sources[i].module->training_;
}

}  // namespace tandem::nn
