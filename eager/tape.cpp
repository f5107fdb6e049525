#include "tandem/eager/tape.h"

#include <algorithm>
#include <new>

#include "tandem/core/allocator.h"
#include "tandem/eager/recompute.h"
#include "tandem/eager/views.h"

namespace tandem::eager {

namespace {

constinit thread_local uint64_t next_sequence_ = 1;
// Nodes whose last reference fell while another node was being destroyed: freed in a loop, so that a chain of
// any length needs no stack.
constinit thread_local Node* doomed = nullptr;
constinit thread_local bool destroying = false;

void free_node(Node* n) {
  n->unlist();
  for (Node::In& i : n->in) i.~In();
  for (Node::Out& o : n->out) o.~Out();
  const uint32_t nbytes = n->nbytes;
  n->~Node();
  core::deallocate(n, nbytes);
}

void destroy_node(core::TapeNode* node) {
  Node* n = as_node(node);
  if (destroying) {
    n->walk = doomed;
    doomed = n;
    return;
  }
  destroying = true;
  free_node(n);
  while (doomed) {
    Node* next = doomed;
    doomed = static_cast<Node*>(next->walk);
    free_node(next);
  }
  destroying = false;
}

}  // namespace

Node::Extras::Extras() = default;
Node::Extras::~Extras() = default;

AutogradState& new_autograd_state(TensorImpl* t) {
  t->leaf = std::make_unique<AutogradState>();
  return *autograd_state(t);
}

Ref<core::TapeNode> new_node(uint32_t n_in, uint32_t n_out, uint32_t n_words) {
  const size_t nbytes =
      sizeof(Node) + n_in * sizeof(Node::In) + n_out * sizeof(Node::Out) + n_words * sizeof(int64_t);
  char* block = static_cast<char*>(core::allocate(static_cast<int64_t>(nbytes)));
  Node* n = new (block) Node;
  block += sizeof(Node);
  n->nbytes = static_cast<uint32_t>(nbytes);
  n->destroy = destroy_node;
  n->in = {reinterpret_cast<Node::In*>(block), n_in};
  for (Node::In& i : n->in) new (&i) Node::In;
  block += n_in * sizeof(Node::In);
  n->out = {reinterpret_cast<Node::Out*>(block), n_out};
  for (Node::Out& o : n->out) new (&o) Node::Out;
  block += n_out * sizeof(Node::Out);
  n->words = {reinterpret_cast<int64_t*>(block), n_words};
  n->refs.set(1);
  return Ref<core::TapeNode>::adopt(n);
}

void refresh_sequence(Node& n) { n.sequence = next_sequence(n); }

Ref<core::TapeNode> freed_node(ops::OpId op, Location where) {
  Ref<core::TapeNode> ref = new_node(0, 1, 0);
  Node& n = *as_node(ref.get());
  n.op = op;
  n.where = where;
  n.consumed = true;
  n.sequence = next_sequence(n);
  return ref;
}

Edge edge_of(TensorImpl* t) {
  refresh(t);
  if (!t->has(core::kRequiresGrad)) return {};
  if (t->grad_fn) return {t->grad_fn, {}, t->output_index};
  return {{}, Ref<TensorImpl>(t), 0};
}

Ref<TensorImpl> twin_of(const TensorImpl* t) {
  Ref<TensorImpl> twin(core::new_impl());
  twin->dtype = t->dtype;
  twin->device = t->device;
  core::set_layout(*twin, t->sizes, t->strides);
  core::set_storage(*twin, t->storage, t->offset);
  return twin;
}

uint64_t next_sequence(const Node& n) {
  uint64_t sequence = next_sequence_;
  for (const Node::In& in : n.in)
    if (in.edge.node) sequence = std::max(sequence, as_node(in.edge.node.get())->sequence + 1);
  next_sequence_ = sequence + 1;
  return sequence;
}

Ref<TensorImpl> with_history(const Saved& saved, const Edge& edge) {
  const Ref<TensorImpl>& value = saved.value;
  if (!modes().grad || !edge || value->frame || !is_floating(value->dtype)) return value;
  if (edge.leaf) return edge.leaf;
  Ref<TensorImpl> out = twin_of(value.get());
  out->grad_fn = edge.node;
  out->output_index = edge.index;
  out->set(core::kRequiresGrad, true);
  return out;
}

uint64_t coming_sequence() { return next_sequence_; }

bool wants_gradient_of(const Call& call) {
  uint16_t flags = 0;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    if (!call.in[i]) continue;
    refresh(call.in[i]);
    flags |= call.in[i]->flags;
  }
  return (flags & core::kRequiresGrad) && ops::def(call.op).differentiable;
}

namespace {

void set_type(ops::TensorType& type, const TensorImpl* t) {
  type.dtype = t->dtype;
  type.device = t->device;
  type.sizes.resize(t->sizes.rank());
  copy_words(type.sizes.begin(), t->sizes.begin(), static_cast<uint32_t>(t->sizes.rank()));
}

Ref<TensorImpl> kept(TensorImpl* t) {
  return interceptor_ || is_grad_leaf(t) ? Ref<TensorImpl>(t) : twin_of(t);
}

}  // namespace

namespace {

/// With `keep` null the results alone hold the node, the last of them the count that it is made with: a count
/// less to take and to drop, which are locked instructions once the process has a second thread.
void note_on(const Call& call, Ref<TensorImpl>* results, Ref<core::TapeNode>* keep) {
  const ops::OpDef& op = ops::def(call.op);
  Ref<core::TapeNode> ref = new_node(call.n_in, static_cast<uint32_t>(op.n_out), call.n_words);
  Node& n = *as_node(ref.get());
  n.op = call.op;
  n.in_place = call.in_place;
  n.numbers = call.numbers;
  n.where = call.where;
  copy_words(n.words.data(), call.words, call.n_words);
  uint32_t needed = 0;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    TensorImpl* t = call.in[i];
    if (!t) continue;
    Node::In& in = n.in[i];
    set_type(in.type, t);
    in.edge = edge_of(t);
    if (in.edge) needed |= 1u << std::min(i, 31u);
  }
  const ops::Saves saves = ops::saves(op, needed);
  for (uint32_t i = 0; i < call.n_in; ++i) {
    TensorImpl* t = call.in[i];
    if (!t || !((saves.in >> std::min(i, 31u)) & 1)) continue;
    // An operand that the call has overwritten is saved as of before, so that using it is an error.
    const bool overwritten =
        call.in_place && std::count(op.writes, op.writes + op.n_out, static_cast<int>(i));
    n.in[i].saved = {kept(t), version_of(t) - (overwritten ? 1 : 0)};
  }
  n.sequence = next_sequence(n);
  const auto result = [&](int j) -> TensorImpl* {
    if (call.in_place) return op.writes[j] >= 0 ? call.in[op.writes[j]] : nullptr;
    return results[j].get();
  };
  int last = keep ? -1 : op.n_out - 1;
  while (last >= 0 && !(result(last) && is_floating(result(last)->dtype))) --last;
  for (int j = 0; j < op.n_out; ++j) {
    TensorImpl* t = result(j);
    if (!t) continue;
    Node::Out& out = n.out[static_cast<size_t>(j)];
    set_type(out.type, t);
    const bool saved = ((saves.out >> j) & 1) != 0;
    if (!is_floating(t->dtype)) {  // has no history, and may be what a gradient reads
      if (saved) out.saved = {kept(t), version_of(t)};
      continue;
    }
    if (j == last)
      t->grad_fn = std::move(ref);
    else
      t->grad_fn = ref;
    if (saved) out.saved = {kept(t), version_of(t)};
    t->output_index = j;
    t->set(core::kRequiresGrad, true);
    if (call.in_place) spread_history(t, call.where);
  }
  if (keep) *keep = std::move(ref);
}

}  // namespace

Ref<core::TapeNode> note(const Call& call, Ref<TensorImpl>* results) {
  Ref<core::TapeNode> node;
  note_on(call, results, &node);
  return node;
}

void note_alone(const Call& call, Ref<TensorImpl>* results) { note_on(call, results, nullptr); }

void note_custom(std::unique_ptr<CustomFunction> custom, const TensorList& inputs, TensorList& results,
                 const TensorList& constant, Location where) {
  Ref<core::TapeNode> ref =
      new_node(static_cast<uint32_t>(inputs.size()), static_cast<uint32_t>(results.size()), 0);
  Node& n = *as_node(ref.get());
  n.where = where;
  n.extras = std::make_unique<Node::Extras>();
  n.extras->custom = std::move(custom);
  for (size_t i = 0; i < inputs.size(); ++i) {
    TensorImpl* t = inputs[i].impl();
    if (!t) continue;
    n.in[i].type = {t->dtype, t->device, false, t->sizes};
    n.in[i].edge = edge_of(t);
  }
  n.sequence = next_sequence(n);
  std::vector<Ref<TensorImpl>> made(results.size());  // fresh results as forward knew and may have saved them
  for (size_t j = 0; j < results.size(); ++j) {
    TensorImpl* t = results[j].impl();
    if (!t || !is_floating(t->dtype)) continue;
    if (std::any_of(constant.begin(), constant.end(), [&](const Tensor& c) { return c.impl() == t; })) {
      if (t->has(core::kRequiresGrad)) results[j] = results[j].detach(where);  // an input
      continue;
    }
    // An input returned as it is would take the node as its own history, and a result that was saved would
    // own itself: give the caller a second handle instead.
    if (t->grad_fn || t->has(core::kRequiresGrad) || t->refs.get() > 1) {
      if (!t->grad_fn && !t->has(core::kRequiresGrad)) made[j] = Ref<TensorImpl>(t);
      const NoGrad no_grad;
      results[j] = results[j].detach(where);
      t = results[j].impl();
    }
    n.out[j].type = {t->dtype, t->device, false, t->sizes};
    t->grad_fn = ref;
    t->output_index = static_cast<int32_t>(j);
    t->set(core::kRequiresGrad, true);
  }
  CustomFunction& f = *n.extras->custom;
  TensorList saved = f.context.saved();
  for (Tensor& s : saved) {
    f.result.push_back(-1);
    for (size_t j = 0; j < results.size() && s.defined(); ++j)
      if (results[j].impl() == s.impl() || made[j].get() == s.impl()) f.result.back() = static_cast<int>(j);
    if (f.result.back() < 0 || s.impl()->grad_fn != ref) continue;
    materialize(s.impl(), where);
    s = Tensor(twin_of(s.impl()));
  }
  f.context.save_for_backward(std::move(saved));
  std::vector<TensorImpl*> operands;
  for (const Tensor& t : inputs) operands.push_back(t.impl());
  node_noted(ref, operands);
}

}  // namespace tandem::eager
