// What a frozen call guards: its arguments, and of the captured tensors those that its signature uses.
#include <algorithm>

#include "tandem/eager/views.h"
#include "tandem/tracer/explain.h"
#include "tandem/tracer/frozen_core.h"

namespace tandem::tracer {

using core::kRequiresGrad;

namespace {

std::string argument_number(const void*, size_t i) { return "argument " + std::to_string(i); }

std::string slot_text(const FrozenSlot& s) {
  return "captured tensor \"" + s.name + "\" (" + name(s.dtype) + to_string(s.sizes) +
         (s.where.known() ? ", used at " + to_string(s.where) : "") + ")";
}

}  // namespace

void FrozenCore::refuse(const std::string& message) const { fail(name + " (frozen): " + message, made_at); }

const FrozenSignature* FrozenCore::find(std::span<const Tensor> arguments, const CallTypes* types) {
  const uint64_t modes_now = modes_word(modes());
  for (const auto& s : signatures) {
    if (s->key.size() != arguments.size() || s->modes != modes_now ||
        (types && (s->structure != types->structure || s->types != types->arguments)))
      continue;
    bool same = true;
    for (size_t i = 0; same && i < arguments.size(); ++i) same = argument_matches(s->key[i], arguments, i);
    if (same) return s.get();
  }
  return nullptr;
}

void FrozenCore::refuse_arguments(std::span<const Tensor> arguments, const CallTypes* types) {
  Signature now{.modes = modes_word(modes())};
  for (size_t i = 0; i < arguments.size(); ++i) now.key.push_back(argument_type(arguments, i));
  std::string text = "their types in C++, the lengths of vectors, or which tensors are defined";
  size_t fewest = SIZE_MAX;
  for (const auto& s : signatures) {
    const auto [n, what] = compare_signatures({s->key, s->modes}, now, {argument_number, nullptr}, fewest);
    if (n < fewest && n > 0) fewest = n, text = what;
    if (n == 0 && types) break;
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

void FrozenCore::check_slots(const FrozenSignature& s) {
  // The history of a view follows its base's, and is brought up to date when somebody looks.
  for (const uint32_t v : views_)
    if (bound[v]) eager::refresh(bound[v]);
  if (changes.load(std::memory_order_relaxed) != checked_) [[unlikely]]
    scan();
  if (bad_) [[unlikely]]
    refuse_slots(s);
}

bool FrozenCore::fits(const FrozenSlot& s, const TensorImpl& t) const {
  // Strides follow from the sizes where both are contiguous.
  return t.dtype == s.dtype && t.device == s.device && t.has(kRequiresGrad) == s.requires_grad &&
         !t.grad_fn && t.sizes == s.sizes &&
         ((s.contiguous && t.has(core::kContiguous)) || t.strides == s.strides);
}

// Some captured tensor is not as it was: one that this signature uses?
void FrozenCore::refuse_slots(const FrozenSignature& s) const {
  const auto root = [&](uint32_t i) {
    return slots[i].shares >= 0 ? static_cast<uint32_t>(slots[i].shares) : i;
  };
  for (const uint32_t i : s.slots) {
    const TensorImpl* t = bound[i];
    if (!t) refuse(slot_text(slots[i]) + " is gone; what it belonged to has died or was replaced");
    if (!fits(slots[i], *t)) refuse_slot(slots[i], *t);
    for (const uint32_t k : s.slots) {
      if (k == i) break;
      const bool shares = storages_[k] == storages_[i];
      if (shares == (root(k) == root(i))) continue;
      refuse(slot_text(slots[i]) + (shares ? " now shares memory with " : " no longer shares memory with ") +
             slot_text(slots[k]));
    }
  }
}

void FrozenCore::refuse_slot(const FrozenSlot& s, const TensorImpl& t) const {
  const auto was = [&](const std::string& what, const std::string& before, const std::string& found) {
    refuse(slot_text(s) + " has changed: " + what + " " + before + " before, " + found + " now");
  };
  if (t.dtype != s.dtype) was("dtype", tandem::name(s.dtype), tandem::name(t.dtype));
  if (!(t.device == s.device)) was("device", to_string(s.device), to_string(t.device));
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
  bool moved = storages_.size() != n || bad_, changed = false, gone = false, other_data = moved;
  storages_.resize(n);
  views_.clear();
  const FrozenSlot* slot = slots.data();
  for (size_t i = 0; i < n; ++i, ++slot) {
    TensorImpl* t = bound[i];
    if (!t) [[unlikely]] {
      gone = true;
      other_data |= data_[i] != nullptr;
      data_[i] = nullptr, storages_[i] = nullptr;
      continue;
    }
    const bool usual = t->dtype == slot->dtype && t->device == slot->device &&
                       (t->flags & FrozenSlot::kCompared) == slot->flags && !t->grad_fn &&
                       t->sizes == slot->sizes;
    if (!usual) [[unlikely]] {
      if (t->has(core::kView)) {
        eager::refresh(t);
        views_.push_back(static_cast<uint32_t>(i));
      }
      changed |= !fits(*slot, *t);
    }
    if (data_[i] != t->data) {
      other_data = true;
      data_[i] = t->data;
    }
    if (storages_[i] != t->storage.get()) {
      moved = true;
      storages_[i] = t->storage.get();
      t->storage->slot = true;
    }
  }
  if (other_data) ++moved_;
  for (size_t i = 0; moved && i < n; ++i) {
    const auto first =
        static_cast<int32_t>(std::find(storages_.begin(), storages_.end(), storages_[i]) - storages_.begin());
    const int32_t shares = first == static_cast<int32_t>(i) ? -1 : first;
    changed |= storages_[i] && shares != slots[i].shares;
  }
  bad_ = gone || changed;
  checked_ = changed ? 0 : now;  // what has changed is looked at by every call
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

void FrozenCore::check_aliases(const FrozenSignature& s, std::span<const Tensor> arguments) const {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const core::Storage* m = arguments[i].impl()->storage.get();
    if (!m->slot) continue;
    for (const uint32_t slot : s.slots)
      if (bound[slot]->storage.get() == m)
        refuse("argument " + std::to_string(i) + " shares memory with " + slot_text(slots[slot]));
  }
}

}  // namespace tandem::tracer
