// The tape: one node per op whose results want gradients. A node owns its edges and saved values; its results
// own it. Walked by engine.cpp on the thread that calls backward.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tandem/eager/autograd.h"
#include "tandem/eager/dispatch.h"

namespace tandem::eager {

/// Where a gradient goes: into result `index` of `node`, or into the leaf itself. Neither: nowhere.
struct Edge {
  Ref<core::TapeNode> node;
  Ref<TensorImpl> leaf;
  int32_t index = 0;
  explicit operator bool() const { return node || leaf; }
};

/// A value kept for the gradient: a leaf itself, else a handle of its own without history, so that no history
/// owns itself. Values of a running traced call are kept as themselves until the call ends.
struct Saved {
  Ref<TensorImpl> value;
  uint32_t version = 0;
};

struct CustomFunction {
  autograd::Context context;
  std::function<TensorList(autograd::Context&, const TensorList&)> backward;
  std::vector<uint32_t> versions;  // per saved tensor
  std::vector<int> result;         // per saved tensor: which result it is, kept without history; -1: none
};
using Hook = std::function<Tensor(const Tensor&)>;

/// What a tensor has besides data: gradient and hooks.
struct AutogradState : core::LeafState {
  Ref<TensorImpl> grad;
  std::vector<std::pair<int, Hook>> hooks;
};
/// Null if there is none.
inline AutogradState* autograd_state(const TensorImpl* t) {
  return static_cast<AutogradState*>(t->leaf.get());
}
AutogradState& new_autograd_state(TensorImpl* t);
inline AutogradState& make_autograd_state(TensorImpl* t) {
  return t->leaf ? *autograd_state(t) : new_autograd_state(t);
}

/// Header, operands, results and words are one block of the allocator.
struct Node : core::TapeNode {
  struct In {
    Edge edge;  // empty: needs no gradient
    Saved saved;
    ops::TensorType type;
  };
  struct Out {
    Saved saved;
    ops::TensorType type;
  };
  ops::OpId op = ops::OpId::count_;
  bool in_place = false;
  bool consumed = false;      // walked without retain_graph
  bool written_view = false;  // a base whose view was changed in place (views.h)
  uint32_t numbers = 0;       // bit i: operand i is a number
  uint32_t nbytes = 0;        // of the block
  uint64_t sequence = 0;      // larger than of every node it depends on; deterministic within a thread
  Location where;
  std::span<In> in;
  std::span<Out> out;
  std::span<int64_t> words;
  struct Extras {  // of few nodes
    std::unique_ptr<CustomFunction> custom;
    std::vector<std::vector<std::pair<int, Hook>>> hooks;  // per result
    std::unique_ptr<struct Recomputed> recomputed;         // what it saved was dropped (recompute.h)
    Ref<core::TapeNode> stands_for;  // a second call's node that gave all it had: gradients go here instead
    Extras();
    ~Extras();
  };
  std::unique_ptr<Extras> extras;
  void* walk = nullptr;        // the engine's, during a walk
  int64_t trace_words = -1;    // where a tracer keeps the words of this op, while its call runs
  Node* next_noted = nullptr;  // a running traced call lists the nodes it made, without owning them
  Node** noted_at = nullptr;
  void list(Node*& head) {
    next_noted = head;
    if (head) head->noted_at = &next_noted;
    noted_at = &head;
    head = this;
  }
  void unlist() {
    if (!noted_at) return;
    *noted_at = next_noted;
    if (next_noted) next_noted->noted_at = noted_at;
    noted_at = nullptr;
    next_noted = nullptr;
  }
};
inline Node* as_node(core::TapeNode* n) { return static_cast<Node*>(n); }

/// The edge that gradients of `t` follow now.
Edge edge_of(TensorImpl* t);
/// True for a leaf that wants a gradient.
inline bool is_grad_leaf(const TensorImpl* t) { return t->has(core::kRequiresGrad) && !t->grad_fn; }
/// A second handle on the memory of a real tensor, without history.
Ref<TensorImpl> twin_of(const TensorImpl* t);
/// Notes a call on the tape: sets grad_fn and kRequiresGrad of its results.
Ref<core::TapeNode> note(const Call& call, Ref<TensorImpl>* results);
/// The same where nobody but the results holds the node.
void note_alone(const Call& call, Ref<TensorImpl>* results);
/// Larger than those of all that `n` depends on, and than all before.
uint64_t next_sequence(const Node& n);
/// What the next node without history would get.
uint64_t coming_sequence();
/// The saved value as an operand whose gradient flows where `edge` says, when gradients are noted.
Ref<TensorImpl> with_history(const Saved& saved, const Edge& edge);
/// True if note() would make a node.
bool wants_gradient_of(const Call& call);
inline bool wants_gradient(const Call& call) {
  if (!modes().grad) return false;
  uint16_t flags = 0;
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (const TensorImpl* t = call.in[i]) flags |= t->flags;
  return (flags & (core::kRequiresGrad | core::kView)) && wants_gradient_of(call);
}
/// Notes a custom function: `results` (fresh tensors of its forward) get the node, but for those in
/// `constant`.
void note_custom(std::unique_ptr<CustomFunction> custom, const TensorList& inputs, TensorList& results,
                 const TensorList& constant, Location where);
/// A node with empty operands and results.
Ref<core::TapeNode> new_node(uint32_t n_in, uint32_t n_out, uint32_t n_words);

/// What is left of a history whose tape a backward has used up.
Ref<core::TapeNode> freed_node(ops::OpId op, Location where);
/// Makes `n` the latest node.
void refresh_sequence(Node& n);

/// Whose memory a gradient has.
enum class GradientMemory : uint8_t {
  others,  // of an incoming gradient or a saved value, or the same tensor goes to several operands
  view,    // of another gradient, shown in another layout: where rules run op by op
  own,     // nobody else holds it
};

/// Runs the gradient rule of a node. `grads`: per result, null for none; `out`, `memory`: per operand.
/// `through_dispatch`: op by op through the dispatcher (under an interceptor, or for create_graph) instead of
/// as one compiled gradient.
void run_gradient(Node& n, std::span<const Ref<TensorImpl>> grads, bool through_dispatch,
                  std::vector<Ref<TensorImpl>>& out, std::vector<GradientMemory>& memory);

/// The values of a gradient rule, made by the caller's functions: `operand(i)`, `result(j)` for saved ones,
/// `gradient(k)` for those that flowed, `number(w)` for word w of the node.
struct GradientValues {
  const Node& node;
  std::vector<ops::Value> operands, outputs, grads, results;
  std::vector<ops::TensorType> types;
  std::vector<int64_t> structural;
  /// Runs the rule; `results` hold a value per operand that needs a gradient and gets one.
  void run(ops::Emitter& e);
};
template <class F, class G, class H, class N>
GradientValues gradient_values(const Node& n, std::span<const Ref<TensorImpl>> grads, F&& operand, G&& result,
                               H&& gradient, N&& number) {
  GradientValues v{n, {}, {}, {}, std::vector<ops::Value>(n.in.size()), {}, {}};
  int word = 0;
  for (size_t i = 0; i < n.in.size(); ++i) {
    v.types.push_back(n.in[i].type);
    if (is_number(n.numbers, i)) {
      v.types.back() = {DType::float64, cpu, true, {}};
      v.operands.push_back(number(word + 1));
      word += 2;
    } else {
      v.operands.push_back(n.in[i].saved.value ? operand(static_cast<int>(i)) : ops::Value{});
    }
  }
  ops::SplitWords split = ops::split_words(ops::def(n.op), {n.words.data(), n.words.size()}, word / 2);
  for (const int w : split.run_time)
    if (w >= word) v.operands.push_back(number(w));
  v.structural = std::move(split.structural);
  for (size_t j = 0; j < n.out.size(); ++j) {
    v.outputs.push_back(n.out[j].saved.value ? result(static_cast<int>(j)) : ops::Value{});
    v.grads.push_back(grads[j] ? gradient(static_cast<int>(j)) : ops::Value{});
  }
  return v;
}

/// What a backward is asked for.
struct WalkRequest {
  std::vector<Ref<TensorImpl>> roots, gradients;  // gradients: same count
  bool retain_graph = false, create_graph = false;
  std::vector<Edge> inputs;  // autograd::grad: collect what goes along these instead of accumulating
  Location where;
};
/// `g` as the gradient of a value of this type: cast to its dtype; an Error if the size or device differs.
Ref<TensorImpl> as_gradient(const Tensor& g, const ops::TensorType& of, const char* who, Location where);
/// Walks the tape. Returns the gradients of `inputs` (null where not reached).
std::vector<Ref<TensorImpl>> walk(const WalkRequest& request);

}  // namespace tandem::eager
