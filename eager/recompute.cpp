// The k-th node that the second call notes has what the k-th node of the first call dropped. Edges stay those
// of the first call, and the second call's nodes hand on what comes to them, so gradients flow as if nothing
// had been dropped, to any order. Memory that both calls used as the same operand is no memory of their own:
// it must not have changed.
#include "tandem/eager/recompute.h"

#include <algorithm>

#include "tandem/core/own_generator.h"

namespace tandem {

namespace eager {

constinit thread_local NotedNodes* noted_nodes_ = nullptr;

namespace {

struct TellNotedNodes {
  explicit TellNotedNodes(NotedNodes* n) : before(noted_nodes_) { noted_nodes_ = n; }
  ~TellNotedNodes() { noted_nodes_ = before; }
  NotedNodes* before;
};

Use use_of(TensorImpl* t) { return t ? Use{t->storage.get(), version_of(t)} : Use{}; }

/// Without what the op writes and its gradient does not need: a sum that a function adds to may be another
/// one the second time, and ops that read it have uses of their own.
Uses uses_of(const Node& n, std::span<TensorImpl* const> operands) {
  Uses out;
  for (TensorImpl* t : operands) out.push_back(use_of(t));
  if (n.in_place)
    for (const int w : ops::written(ops::def(n.op)))
      if (!n.in[static_cast<size_t>(w)].saved.value) out[static_cast<size_t>(w)] = {};
  return out;
}

Uses saved_uses(const CustomFunction& f) {
  Uses out;
  for (size_t i = 0; i < f.versions.size(); ++i) {
    const TensorImpl* t = f.context.saved()[i].impl();
    out.push_back({t ? t->storage.get() : nullptr, f.versions[i]});
  }
  return out;
}

/// Whether memory that both used has moved.
bool moved(const Uses& before, const Uses& now) {
  for (size_t i = 0; i < std::min(before.size(), now.size()); ++i)
    if (before[i].memory && before[i].memory == now[i].memory && before[i].version != now[i].version)
      return true;
  return false;
}

/// A leaf, an argument or something with a history from before the call: it is held outside anyway.
bool from_outside(const Node::In& in, const Recompute& r) {
  if (in.edge.leaf || (in.edge.node && as_node(in.edge.node.get())->sequence < r.first_sequence)) return true;
  return std::any_of(r.arguments.begin(), r.arguments.end(), [&](const Tensor& t) {
    return t.defined() && t.impl()->storage == in.saved.value->storage;
  });
}

void drop(Node& n, const std::shared_ptr<Recompute>& r, std::span<TensorImpl* const> operands) {
  if (!n.extras) n.extras = std::make_unique<Node::Extras>();
  n.extras->recomputed = std::make_unique<Recomputed>(r, r->nodes.size());
  r->nodes.push_back(&n);
  n.extras->recomputed->operands = uses_of(n, operands);
  for (Node::In& in : n.in)
    if (in.saved.value && !from_outside(in, *r)) in.saved.value.reset();
  for (Node::Out& o : n.out) o.saved.value.reset();
  if (n.extras->custom) n.extras->recomputed->saved = saved_uses(*n.extras->custom);
  n.extras->custom.reset();
}

bool same_node(const Node& a, const Node& b) {
  if (a.op != b.op || a.in_place != b.in_place || a.numbers != b.numbers || a.in.size() != b.in.size() ||
      a.out.size() != b.out.size())
    return false;
  for (size_t i = 0; i < a.in.size(); ++i) {
    if (!(a.in[i].type == b.in[i].type)) return false;
    // What the first call changed in place may have a history by now.
    const bool edge = static_cast<bool>(b.in[i].edge);
    if (static_cast<bool>(a.in[i].edge) != edge && !(a.in_place && edge)) return false;
  }
  for (size_t j = 0; j < a.out.size(); ++j)
    if (!(a.out[j].type == b.out[j].type)) return false;
  return std::equal(a.words.begin(), a.words.end(), b.words.begin(), b.words.end());
}

[[noreturn]] void fail_differ(const std::string& how, Location where) {
  fail("checkpoint: the function did other ops when it ran again: " + how +
           "; it must do the same on the same arguments",
       where);
}

const char* name_of(const Node& n) {
  return n.op == ops::OpId::count_ ? "custom function" : ops::def(n.op).name;
}

/// The second call's node k must be that of the first, on memory that holds what it held.
void check_again(const Node& n, const NotedNodes::Kept& again, Location where) {
  const Node& found = *as_node(again.node.get());
  if (!same_node(n, found))
    fail_differ(std::string(name_of(n)) + " before, " + name_of(found) + " or another form of it now", where);
  const Recomputed& was = *n.extras->recomputed;
  Uses saved;
  if (found.extras && found.extras->custom)
    saved = saved_uses(*found.extras->custom);
  else if (found.extras && found.extras->recomputed)  // a checkpoint within has dropped it
    saved = found.extras->recomputed->saved;
  if (moved(was.operands, again.operands) || moved(was.saved, saved))
    fail(std::string("checkpoint: a tensor that ") + name_of(n) +
             " uses was changed in place between forward and backward",
         n.where);
}

void give(Node& to, Node& from) {
  const std::unique_ptr<Recomputed> was = std::move(to.extras->recomputed);
  for (size_t i = 0; i < to.in.size(); ++i)
    if (!to.in[i].saved.value) to.in[i].saved = from.in[i].saved;
  for (size_t j = 0; j < to.out.size(); ++j)
    if (!to.out[j].saved.value) to.out[j].saved = from.out[j].saved;
  // What the second call saved or captured has `from` as its history.
  if (!from.extras && !interceptor_) from.extras = std::make_unique<Node::Extras>();
  if (!from.extras) return;
  if (!interceptor_) from.extras->stands_for = Ref<core::TapeNode>(&to);
  to.extras->custom = std::move(from.extras->custom);
  // A checkpoint within: its nodes of the first call drop and recompute in turn.
  to.extras->recomputed = std::move(from.extras->recomputed);
  if (Recomputed* inner = to.extras->recomputed.get()) inner->of->nodes[inner->index] = &to;
}

}  // namespace

void Recompute::give_up(std::string why) {
  never = std::move(why);
  const std::function<void()> function = std::exchange(again, nullptr);
  const TensorList tensors = std::exchange(arguments, {});
  const std::shared_ptr<Recompute> outer = std::exchange(around, nullptr);
}

void tell_noted(const Ref<core::TapeNode>& node, std::span<TensorImpl* const> operands) {
  for (NotedNodes* n = noted_nodes_; n; n = n->around) {
    if (n->interceptor != interceptor_) continue;
    if (n->dropping)
      drop(*as_node(node.get()), n->dropping, operands);
    else
      n->kept.push_back({node, uses_of(*as_node(node.get()), operands)});
  }
}

bool CheckpointScope::wanted() {
  return modes().grad && !interceptor_ && !(noted_nodes_ && noted_nodes_->dropping);
}

CheckpointScope::CheckpointScope(std::function<void()> again, TensorList arguments) : outer_(noted_nodes_) {
  const auto shared = std::make_shared<Recompute>();
  Recompute& r = *shared;
  r.again = std::move(again);
  r.arguments = std::move(arguments);
  for (const Tensor& t : r.arguments) r.versions.push_back(t.defined() ? version_of(t.impl()) : 0);
  r.modes = modes();
  r.seed = default_generator().seed();
  r.offset = default_generator().offset();
  r.first_sequence = coming_sequence();
  if (outer_) r.around = outer_->again;
  noted_ = std::make_unique<NotedNodes>(NotedNodes{.dropping = shared, .around = outer_});
  noted_nodes_ = noted_.get();
}

CheckpointScope::~CheckpointScope() {
  noted_nodes_ = outer_;
  Recompute& r = *noted_->dropping;
  if (r.running) r.give_up("the function threw an exception");
}

void CheckpointScope::end() {
  Recompute& r = *noted_->dropping;
  r.running = false;
  for (size_t i = 0; i < r.arguments.size(); ++i) {
    const Tensor t = r.arguments[i];
    if (!t.defined() || version_of(t.impl()) == r.versions[i]) continue;
    const std::string why = "the function changes argument " + std::to_string(i) +
                            " in place, which a second call would do again; clone() it in the function";
    r.give_up(why);
    fail("checkpoint: " + why, changed_at(t.impl()));
  }
}

void recompute(Node& n, Location where) {
  const std::shared_ptr<Recompute> r = n.extras->recomputed->of;
  if (!r->never.empty())
    fail("checkpoint: the inner values that this backward needs cannot be computed again: " + r->never,
         n.where);
  for (size_t i = 0; i < r->arguments.size(); ++i)
    if (const Tensor& t = r->arguments[i]; t.defined() && version_of(t.impl()) != r->versions[i])
      fail("checkpoint: argument " + std::to_string(i) + " was changed in place between forward and backward",
           n.where);
  NotedNodes second{.again = r};
  {
    const TellNotedNodes tell(&second);
    const ModeGuard mode(r->modes);
    const core::OwnGenerator generator(r->seed, r->offset);
    if (interceptor_) interceptor_->host_code();
    r->again();
  }
  // autograd::grad within the first call: the nodes from there on are still to come.
  if (second.kept.size() < r->nodes.size() || (second.kept.size() > r->nodes.size() && !r->running))
    fail_differ(std::to_string(r->nodes.size()) + " with gradients before, " +
                    std::to_string(second.kept.size()) + " now",
                where);
  const std::vector<Node*> nodes = r->nodes;  // `give` takes them out
  for (size_t k = 0; k < nodes.size(); ++k)
    if (nodes[k]) check_again(*nodes[k], second.kept[k], where);
  for (size_t k = 0; k < nodes.size(); ++k)
    if (nodes[k]) give(*nodes[k], *as_node(second.kept[k].node.get()));
}

}  // namespace eager

bool autograd::recomputing() {
  for (const eager::NotedNodes* n = eager::noted_nodes_; n; n = n->around)
    if (!n->dropping) return true;
  return false;
}

}  // namespace tandem
