// Observing a call: what it does outside of the record, read off just before its handles go home.
#include <algorithm>

#include "tandem/core/generator.h"
#include "tandem/eager/optim/optimizers.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/observation.h"

namespace tandem::tracer {

void Frame::stepped(const std::shared_ptr<eager::StepCounts>& counts) {
  if (observes) r_.observed->now.steps.push_back({linear(), counts});
}

void Frame::grad_used(TensorImpl* t, bool set) {
  using Use = Observation::Call::GradUse;
  auto& uses = r_.observed->grad_uses;
  if (t->has(core::kPending)) return;
  bool first = true;
  for (const auto& [other, found, use] : uses) {
    if (other.get() != t) continue;
    first = false;
    if (use.kind == Use::set) return;
  }
  const eager::AutogradState* s = eager::autograd_state(t);
  TensorImpl* grad = s ? s->grad.get() : nullptr;
  if (!set && (!first || (grad && grad->frame == this))) return;  // one of this call's own
  uses.push_back({Ref<TensorImpl>(t),
                  Ref<TensorImpl>(set ? nullptr : grad),
                  {.kind = set    ? Use::set
                           : grad ? Use::found_one
                                  : Use::found_none,
                   .position = linear()}});
}

// The record holds what is read of the call's own values; of others it knows nothing.
void Frame::real_read(Location where) {
  refuse_freezing("a read: what the program does with the value needs the body", where);
}

void Frame::refuse_freezing(std::string why, Location where) {
  Observation::Call& now = r_.observed->now;
  if (!now.refused.empty()) return;
  now.refused = std::move(why);
  now.refused_at = where;
}

void Frame::observe_begin(const CallTypes& types) {
  if (!r_.observed) {
    r_.observed = std::make_shared<Observation>();
    r_.observed->strangers = std::make_shared<FrozenCore>("", Location{}, false, 0);
  }
  observes = true;
  Observation& o = *r_.observed;
  o.grad_uses.clear();
  o.holders.clear();
  for (const uint32_t a : r_.arguments) o.holders.push_back(r_.handles[a]->refs.get());
  o.prototype = {};
  o.now = {};
  o.now.types = types;
  o.now.seed = default_generator().seed();
  o.now.offset = default_generator().offset();
}

void Frame::observe_nothing() noexcept {
  observes = false;
  if (!r_.observed) return;
  // A call that threw did not do the same.
  r_.observed->grad_uses.clear();
  r_.observed->last = {};
  r_.observed->times = 0;
  r_.observed->others.clear();
}

uint32_t Frame::known_handle(const TensorImpl* t) const {
  if (t->frame == this && t->handle >= 0) return static_cast<uint32_t>(t->handle);
  if (const uint32_t a = argument_handle(t)) return a;
  const auto slot = r_.slots.find(const_cast<TensorImpl*>(t));
  return slot == r_.slots.end() ? 0 : slot->second;
}

void Frame::observe_results(std::span<TensorImpl* const> results, Prototype prototype) {
  for (const TensorImpl* t : results) {
    const uint32_t h = t->has(core::kPending) && t->frame != this ? 0 : known_handle(t);
    r_.observed->now.results.push_back(h);
    if (!h)
      refuse_freezing(
          "a result is neither a value of the call nor an argument nor a tensor that its ops use; use it in "
          "an op, or leave it out of the results");
  }
  r_.observed->prototype = std::move(prototype);
}

void Frame::observe_end() {
  observes = false;
  Observation& o = *r_.observed;
  Observation::Call& now = o.now;
  const Generator& g = default_generator();
  now.drawn = static_cast<int64_t>(g.offset() - now.offset);
  if (g.seed() != now.seed) refuse_freezing("the body seeds the generator, which only the body can do");
  for (uint32_t h = 1; h < r_.infos.size(); ++h) {
    const HandleInfo& info = r_.infos[h];
    if (info.kind == HandleInfo::Kind::result) continue;
    const TensorImpl* t = r_.handles[h];
    const eager::AutogradState* s = t ? eager::autograd_state(t) : nullptr;
    if (s && s->grad)
      if (const uint32_t grad = known_handle(s->grad.get())) now.grads.emplace_back(h, grad);
    if (info.kind == HandleInfo::Kind::slot && info.bound_in == r_.calls && o.seen > 0 &&
        now.refused.empty()) {
      Location used;
      for_path(0, [&](const Entry& e, Location where) {
        for (uint32_t i = 0; e.kind == EventKind::op && i < e.n_in; ++i)
          if (r_.operand(e, i) == h && !used.known()) used = where;
      });
      refuse_freezing(std::string("a captured tensor ") + name(info.dtype) + to_string(info.sizes) +
                          " was another one in each call: it is made in the body (from host data), or "
                          "assigned between calls; make it once, or pass it as an argument",
                      used);
    }
  }
  for (auto& [leaf, found, use] : o.grad_uses) {
    const eager::AutogradState* s = eager::autograd_state(leaf.get());
    const TensorImpl* grad = s ? s->grad.get() : nullptr;
    use.left = grad != nullptr;
    use.after = grad ? known_handle(grad) : 0;
    use.found = found ? known_handle(found.get()) : 0;
    use.leaf = known_handle(leaf.get());
    use.stranger = !use.leaf;
    if (use.stranger) use.leaf = o.strangers->bind({}, leaf.get());
    now.uses.push_back(use);
  }
  o.grad_uses.clear();
  refuse_holders();
  refuse_freezing(o.kept, o.kept_at);
  for_path(0, [&](const Entry& e, Location) {
    if (e.kind != EventKind::op) return;
    const ops::OpDef& op = ops::def(static_cast<ops::OpId>(e.op));
    uint32_t word = e.first_attr();
    for (int k = 0; k < op.n_attrs && op.attrs[k].type != ops::AttrType::list; ++k, ++word)
      if (op.attrs[k].type == ops::AttrType::dynamic && std::string_view(op.attrs[k].name) == "offset") {
        const int64_t from = r_.words[word] - static_cast<int64_t>(now.offset);
        now.draws.emplace_back(word, from >= 0 && from < now.drawn ? from : -1);
      }
  });
}

// Somebody outside holds an argument or a value of this call otherwise.
void Frame::refuse_holders() {
  if (recording_ || tape_live_) return;  // the tape holds what it needs
  Observation& o = *r_.observed;
  Observation::Call& now = o.now;
  const auto refuse = [&](const std::string& what, Location where) {
    if (!o.kept.empty()) return;
    o.kept = what +
             " lives on after the call, but not as a result or a gradient; return it, write it into a "
             "captured tensor in place, or let it go";
    o.kept_at = where;
  };
  const auto results = [&](uint32_t h) {
    return static_cast<uint32_t>(std::count(now.results.begin(), now.results.end(), h));
  };
  for (size_t a = 0; a < r_.arguments.size(); ++a) {
    const TensorImpl* t = r_.handles[r_.arguments[a]];
    if (t && t->refs.get() > o.holders[a] + results(r_.arguments[a]))
      refuse("argument " + std::to_string(a), {});
  }
  const auto gradients = [&](uint32_t h) {
    std::vector<uint32_t> strangers;  // leaves that are in no op, each once
    for (const auto& u : now.uses)
      if (u.stranger && u.after == h) strangers.push_back(u.leaf);
    std::sort(strangers.begin(), strangers.end());
    const auto known =
        std::count_if(now.grads.begin(), now.grads.end(), [&](const auto& g) { return g.second == h; });
    const auto others = std::unique(strangers.begin(), strangers.end()) - strangers.begin();
    return static_cast<uint32_t>(known + others);
  };
  for (const uint32_t h : handed_out()) {
    const TensorImpl* t = r_.handles[h];
    const HandleInfo& info = r_.infos[h];
    if (t && t->refs.get() > 1 + results(h) + gradients(h))
      refuse(std::string(ops::def(info.op).name) + ": the value " + name(info.dtype) + to_string(info.sizes),
             info.where);
  }
}

// The calls before that were made with these types of arguments count, not those between.
void Observation::recall() {
  constexpr size_t kMostOthers = 8;
  if (others.size() == kMostOthers) others.erase(others.begin());
  others.emplace_back(std::exchange(last, {}), std::exchange(times, 0));
  for (auto& [call, n] : others) {
    if (call.types.structure != now.types.structure || call.types.arguments != now.types.arguments) continue;
    std::swap(last, call);
    std::swap(times, n);
    std::swap(others.back().first, call);
    std::swap(others.back().second, n);
    others.pop_back();
    return;
  }
}

bool Frame::observed(int64_t growth) {
  Observation& o = *r_.observed;
  o.tries = o.grown == growth ? o.tries + 1 : 0;
  if (o.grown != growth) o.others.clear();
  if (o.last.types.structure != o.now.types.structure || o.last.types.arguments != o.now.types.arguments)
    o.recall();
  o.times = o.now == o.last && o.grown == growth ? o.times + 1 : 1;
  o.last = std::move(o.now);
  o.grown = growth;
  o.seen_in = r_.calls;
  ++o.seen;
  return o.times >= Observation::kNeeded || o.tries >= Observation::kMost;
}

}  // namespace tandem::tracer
