// The k-th node that the second call notes has what the k-th node of the first call dropped. Edges stay those
// of the first call, so gradients flow as if nothing had been dropped, to any order.
#include "tandem/eager/recompute.h"

#include <algorithm>

namespace tandem {

namespace eager {

constinit thread_local NotedNodes* noted_nodes_ = nullptr;

namespace {

struct TellNotedNodes {
  explicit TellNotedNodes(NotedNodes* n) : before(noted_nodes_) { noted_nodes_ = n; }
  ~TellNotedNodes() { noted_nodes_ = before; }
  NotedNodes* before;
};

class GeneratorAsOf {
 public:
  GeneratorAsOf(uint64_t seed, uint64_t offset) : seed_(g_.seed()), offset_(g_.offset()) {
    set(seed, offset);
  }
  ~GeneratorAsOf() { set(seed_, offset_); }

 private:
  void set(uint64_t seed, uint64_t offset) { g_.seed(seed), g_.set_offset(offset); }
  Generator& g_ = default_generator();
  uint64_t seed_, offset_;
};

/// A leaf, an argument or something with a history from before the call: it is held outside anyway.
bool from_outside(const Node::In& in, const Recompute& r) {
  if (in.edge.leaf || (in.edge.node && as_node(in.edge.node.get())->sequence < r.first_sequence)) return true;
  return std::any_of(r.arguments.begin(), r.arguments.end(), [&](const Tensor& t) {
    return t.defined() && t.impl()->storage == in.saved.value->storage;
  });
}

void drop(Node& n, const std::shared_ptr<Recompute>& r) {
  if (!n.extras) n.extras = std::make_unique<Node::Extras>();
  n.extras->recomputed = std::make_unique<Recomputed>(r, r->nodes.size());
  r->nodes.push_back(&n);
  std::vector<const core::Storage*>& memory = n.extras->recomputed->memory;
  memory.resize(n.in.size());
  for (size_t i = 0; i < n.in.size(); ++i) {
    Saved& s = n.in[i].saved;
    if (!s.value || from_outside(n.in[i], *r)) continue;
    memory[i] = s.value->storage.get();
    s.value.reset();
  }
  for (Node::Out& o : n.out) o.saved.value.reset();
  n.extras->custom.reset();
}

bool same_node(const Node& a, const Node& b) {
  if (a.op != b.op || a.in_place != b.in_place || a.numbers != b.numbers || a.in.size() != b.in.size() ||
      a.out.size() != b.out.size())
    return false;
  for (size_t i = 0; i < a.in.size(); ++i)
    if (!(a.in[i].type == b.in[i].type) || static_cast<bool>(a.in[i].edge) != static_cast<bool>(b.in[i].edge))
      return false;
  for (size_t j = 0; j < a.out.size(); ++j)
    if (!(a.out[j].type == b.out[j].type)) return false;
  return std::equal(a.words.begin(), a.words.end(), b.words.begin(), b.words.end());
}

const char* name_of(const Node& n) {
  return n.op == ops::OpId::count_ ? "custom function" : ops::def(n.op).name;
}

void give(Node& to, Node& from) {
  const std::unique_ptr<Recomputed> was = std::move(to.extras->recomputed);
  for (size_t i = 0; i < to.in.size(); ++i) {
    Saved& s = to.in[i].saved;
    Saved& found = from.in[i].saved;
    if (s.value || !found.value) continue;
    // Memory that the call did not make itself, but captured: it must hold what it held.
    if (found.value->storage.get() == was->memory[i] && found.version != s.version)
      fail(std::string("checkpoint: a tensor that ") + name_of(to) +
               " uses was changed in place between forward and backward",
           to.where);
    s = found;
  }
  for (size_t j = 0; j < to.out.size(); ++j)
    if (!to.out[j].saved.value) to.out[j].saved = from.out[j].saved;
  if (!from.extras) return;
  to.extras->custom = std::move(from.extras->custom);
  // A checkpoint within: its nodes of the first call drop and recompute in turn.
  to.extras->recomputed = std::move(from.extras->recomputed);
  if (Recomputed* inner = to.extras->recomputed.get()) inner->of->nodes[inner->index] = &to;
}

}  // namespace

void tell_noted(const Ref<core::TapeNode>& node) {
  for (NotedNodes* n = noted_nodes_; n; n = n->around) {
    if (n->dropping)
      drop(*as_node(node.get()), n->dropping);
    else
      n->kept.push_back(node);
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
  noted_ = std::make_unique<NotedNodes>(NotedNodes{shared, {}, outer_});
  noted_nodes_ = noted_.get();
}

CheckpointScope::~CheckpointScope() { noted_nodes_ = outer_; }

void recompute(Node& n, Location where) {
  const std::shared_ptr<Recompute> r = n.extras->recomputed->of;
  for (size_t i = 0; i < r->arguments.size(); ++i)
    if (const Tensor& t = r->arguments[i]; t.defined() && version_of(t.impl()) != r->versions[i])
      fail("checkpoint: argument " + std::to_string(i) + " was changed in place between forward and backward",
           n.where);
  NotedNodes second;
  {
    const TellNotedNodes tell(&second);
    const ModeGuard mode(r->modes);
    const GeneratorAsOf generator(r->seed, r->offset);
    if (interceptor_) interceptor_->host_code();
    r->again();
  }
  const auto differ = [&](const std::string& how) {
    fail("checkpoint: the function did other ops when it ran again: " + how +
             "; it must do the same on the same arguments",
         where);
  };
  if (second.kept.size() != r->nodes.size())
    differ(std::to_string(r->nodes.size()) + " with gradients before, " + std::to_string(second.kept.size()) +
           " now");
  std::vector<Node*> nodes = r->nodes;  // `give` takes them out
  for (size_t k = 0; k < nodes.size(); ++k)
    if (nodes[k] && !same_node(*nodes[k], *as_node(second.kept[k].get())))
      differ(std::string(name_of(*nodes[k])) + " before, " + name_of(*as_node(second.kept[k].get())) +
             " or another form of it now");
  for (size_t k = 0; k < nodes.size(); ++k)
    if (nodes[k]) give(*nodes[k], *as_node(second.kept[k].get()));
}

}  // namespace eager

bool autograd::recomputing() {
  for (const eager::NotedNodes* n = eager::noted_nodes_; n; n = n->around)
    if (!n->dropping) return true;
  return false;
}

}  // namespace tandem
