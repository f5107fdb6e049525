// backward(): nodes are visited by falling sequence number, so a node runs when all gradients of its results
// are in and the order is the same in every run. Pending gradients hang on the nodes through Node::walk, or,
// where several walks are under way, in a table of each; nothing recurses.
#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <queue>
#include <unordered_map>

#include "tandem/core/profile.h"
#include "tandem/eager/between.h"
#include "tandem/eager/checkpoint.h"
#include "tandem/eager/compiled.h"
#include "tandem/eager/direct.h"
#include "tandem/eager/emitter.h"
#include "tandem/eager/recompute.h"
#include "tandem/eager/tape.h"
#include "tandem/eager/views.h"

namespace tandem::eager {

void GradientValues::run(ops::Emitter& e) {
  std::vector<char> needed;
  for (const Node::In& in : node.in) needed.push_back(static_cast<bool>(in.edge));
  ops::Gradient g{.e = e,
                  .op = ops::def(node.op),
                  .operands = operands,
                  .operand_types = types,
                  .outputs = outputs,
                  .grads = grads,
                  .words = structural,
                  .needed = {reinterpret_cast<const bool*>(needed.data()), needed.size()},
                  .results = results.data()};
  ops::emit_gradient(g);
  for (size_t i = 0; i < results.size(); ++i)
    if (!needed[i]) results[i] = {};
}

namespace {

/// The edge on which gradients of result `j` come to the node itself.
Edge edge_into(Node& n, int j) { return {Ref<core::TapeNode>(&n), {}, j}; }

}  // namespace

void run_gradient(Node& n, std::span<const Ref<TensorImpl>> grads, bool through_dispatch,
                  std::vector<Ref<TensorImpl>>& out, std::vector<GradientMemory>& memory) {
  out.assign(n.in.size(), {});
  memory.assign(n.in.size(), GradientMemory::others);
  if (through_dispatch) {
    const auto first = std::find_if(grads.begin(), grads.end(), [](const auto& g) { return bool(g); });
    const OnDevice guard(first == grads.end() ? default_device() : (*first)->device);
    EagerEmitter e(n.where);
    const int n_numbers = __builtin_popcount(n.numbers);
    GradientValues values = gradient_values(
        n, grads,
        [&](int i) {
          const Node::In& in = n.in[static_cast<size_t>(i)];
          return e.add(with_history(in.saved, in.edge));
        },
        [&](int j) { return e.add(with_history(n.out[static_cast<size_t>(j)].saved, edge_into(n, j))); },
        [&](int k) { return e.add(grads[static_cast<size_t>(k)]); },
        [&](int w) {
          const NumberKind kind = number_kind(ops::def(n.op), n_numbers, n.words, w);
          std::shared_ptr<NumberSource> source;
          if (n.trace_words >= 0) {
            source = std::make_shared<NumberSource>();
            source->word = n.trace_words + w;
            source->kind = kind;
          }
          return e.number_bits(n.words[static_cast<size_t>(w)], kind, std::move(source));
        });
    const int32_t given = e.size();
    values.run(e);
    bool views = false;
    for (const ops::Value r : values.results) views |= r && e.is_view(r);
    for (size_t i = 0; i < out.size(); ++i) {
      const ops::Value r = values.results[i];
      if (!r) continue;
      out[i] = e.tensor(r);
      if (r.id < given) continue;
      if (views)  // of one another, too
        memory[i] = GradientMemory::view;
      else if (std::count(values.results.begin(), values.results.end(), r) == 1)
        memory[i] = GradientMemory::own;
    }
    return;
  }
  if (!core::profiling() && direct_gradient(n, grads, out, memory)) return;
  const core::ProfileSpan span("backward", ops::def(n.op).name, n.where, 0, true);
  const Compiled& c = compiled_gradient(n, grads);
  constexpr size_t kMany = 16;
  void* few_inputs[kMany];
  Ref<TensorImpl> few_results[kMany];
  std::vector<void*> many_inputs;
  std::vector<Ref<TensorImpl>> many_results;
  void** inputs = few_inputs;
  Ref<TensorImpl>* results = few_results;
  if (c.inputs.size() > kMany) many_inputs.resize(c.inputs.size()), inputs = many_inputs.data();
  if (c.out_types.size() > kMany) many_results.resize(c.out_types.size()), results = many_results.data();
  for (size_t k = 0; k < c.inputs.size(); ++k) {
    const int code = c.inputs[k];
    const TensorImpl* t = code >= 2000   ? grads[static_cast<size_t>(code - 2000)].get()
                          : code >= 1000 ? n.out[static_cast<size_t>(code - 1000)].saved.value.get()
                                         : n.in[static_cast<size_t>(code)].saved.value.get();
    inputs[k] = t->data;
  }
  run_compiled(c, ops::def(n.op).name, n.where, inputs, n.words.data(), results);
  for (size_t i = 0; i < out.size(); ++i) {
    const int r = c.results[i];
    if (r == Compiled::kNone) continue;
    out[i] = r >= 0 ? results[r] : grads[static_cast<size_t>(-2 - r)];
    if (r >= 0 && std::count(c.results.begin(), c.results.end(), r) == 1) memory[i] = GradientMemory::own;
  }
}

namespace {

struct Pending {
  explicit Pending(Node* n) : node(n) {
    if (n->out.size() == 1) return;
    many.resize(n->out.size()), grads = many;
    many_memories.resize(n->out.size()), memories = many_memories;
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;

  Node* node;  // the walk holds its roots, and these what is behind them
  Ref<TensorImpl> one;
  std::vector<Ref<TensorImpl>> many;
  GradientMemory one_memory = GradientMemory::others;
  std::vector<GradientMemory> many_memories;
  std::span<Ref<TensorImpl>> grads{&one, 1};  // per result
  std::span<GradientMemory> memories{&one_memory, 1};
};
struct LaterFirst {
  bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
};

/// What one walk has pending. Of the walks under way, by several threads or one within another's host code,
/// one hangs it on the nodes; the others look it up, so they may walk the same nodes.
class PendingGradients {
 public:
  PendingGradients() : on_nodes_(!taken_.exchange(true, std::memory_order_acquire)) {}
  PendingGradients(const PendingGradients&) = delete;
  PendingGradients& operator=(const PendingGradients&) = delete;
  ~PendingGradients() {
    if (!on_nodes_) return;
    for (const Pending& p : all_) p.node->walk = nullptr;
    taken_.store(false, std::memory_order_release);
  }

  Pending* find(Node* n) const {
    if (on_nodes_) return static_cast<Pending*>(n->walk);
    const auto at = table_.find(n);
    return at == table_.end() ? nullptr : at->second;
  }
  Pending* add(Node* n) {
    Pending* p = &all_.emplace_back(n);
    if (on_nodes_)
      n->walk = p;
    else
      table_.emplace(n, p);
    return p;
  }

 private:
  static inline std::atomic<bool> taken_ = false;
  const bool on_nodes_;
  std::deque<Pending> all_;  // they stay where they are
  std::unordered_map<const Node*, Pending*> table_;
};

/// Held while a leaf's gradient is replaced or added to: threads with a tape each may share parameters.
std::mutex& gradient_mutex(const TensorImpl* leaf) {
  static std::array<std::mutex, 64> mutexes;
  return mutexes[std::hash<const void*>()(leaf) / sizeof(TensorImpl) % mutexes.size()];
}

class Walk {
 public:
  explicit Walk(const WalkRequest& request) : request_(request), collected_(request.inputs.size()) {
    if (!request.inputs.empty()) between_.emplace(request);
  }

  std::vector<Ref<TensorImpl>> run() {
    for (size_t i = 0; i < request_.roots.size(); ++i)
      deliver(edge_of(request_.roots[i].get()), request_.gradients[i], GradientMemory::others,
              request_.roots[i].get());
    std::vector<Ref<TensorImpl>> out;
    std::vector<GradientMemory> memory;
    while (!queue_.empty()) {
      Node& n = *queue_.top();
      queue_.pop();
      Pending& p = *pending_.find(&n);
      run_hooks(n, p);
      collect(n, p);
      if (between_ && !between_->leads(&n)) {
        for (Ref<TensorImpl>& g : p.grads) g.reset();
        continue;
      }
      gradient(n, p, out, memory);
      for (size_t i = 0; i < n.in.size(); ++i)
        if (out[i]) deliver(n.in[i].edge, std::move(out[i]), memory[i], nullptr);
      // What a second call of a checkpoint notes is for the nodes of the first, which release their own.
      if (!request_.retain_graph && !autograd::recomputing()) release(n);
      for (Ref<TensorImpl>& g : p.grads) g.reset();
    }
    return std::move(collected_);
  }

 private:
  void deliver(const Edge& edge, Ref<TensorImpl> grad, GradientMemory memory, TensorImpl* root) {
    if (between_ && edge && !between_->wants(edge)) return;
    if (edge.leaf) return accumulate(edge.leaf.get(), std::move(grad), memory);
    if (!edge.node) {
      if (root) fail("backward: a root does not require grad and has no history", request_.where);
      return;
    }
    Node* n = node_of(edge);
    Pending* p = pending_.find(n);
    if (!p) {
      if (root || n != edge.node.get()) held_.emplace_back(n);
      p = pending_.add(n);
      queue_.push(n);
    }
    const auto index = static_cast<size_t>(edge.index);
    Ref<TensorImpl>& sum = p->grads[index];
    p->memories[index] = sum ? GradientMemory::own : memory;
    sum = sum ? plus(sum, grad) : std::move(grad);
  }

  Ref<TensorImpl> plus(const Ref<TensorImpl>& a, const Ref<TensorImpl>& b) {
    TensorImpl* in[] = {a.get(), b.get()};
    Ref<TensorImpl> out;
    call_into({.op = ops::OpId::add, .n_in = 2, .in = in, .where = request_.where}, &out);
    return out;
  }

  // The first gradient of a leaf has memory of its own (R4); later ones are added in place, or, when they
  // shall be differentiable, out of place.
  void accumulate(TensorImpl* leaf, Ref<TensorImpl> grad, GradientMemory memory) {
    std::unique_lock lock(gradient_mutex(leaf));
    if (const AutogradState* s = autograd_state(leaf); s && !s->hooks.empty()) {
      const std::vector<std::pair<int, Hook>> hooks = s->hooks;
      lock.unlock();
      grad = call_hooks(hooks, shown(std::move(grad), memory));
      memory = GradientMemory::others;  // a hook may keep what it saw
      lock.lock();
    }
    if (!request_.inputs.empty()) {
      lock.unlock();
      for (size_t i = 0; i < request_.inputs.size(); ++i) {
        if (request_.inputs[i].leaf.get() != leaf) continue;
        collected_[i] = collected_[i] ? plus(collected_[i], grad) : owned(grad, memory);
      }
      return;
    }
    if (!leaf->has(core::kRequiresGrad)) return;  // no more
    AutogradState& s = make_autograd_state(leaf);
    Ref<TensorImpl> before = s.grad;
    if (!before) {
      s.grad = memory == GradientMemory::own && !request_.create_graph ? std::move(grad) : copy(grad);
    } else if (request_.create_graph) {
      s.grad = plus(before, grad);
    } else {
      TensorImpl* in[] = {before.get(), grad.get()};
      call_into({.op = ops::OpId::add, .in_place = true, .n_in = 2, .in = in, .where = request_.where},
                nullptr);
    }
    if (interceptor_) interceptor_->leaf_grad(leaf, before.get(), s.grad.get());
  }

  // What autograd::grad hands out has memory of its own, whether rules ran compiled or op by op; a gradient
  // that shall be differentiable keeps its history, so its memory.
  Ref<TensorImpl> owned(const Ref<TensorImpl>& grad, GradientMemory memory) {
    return memory == GradientMemory::own || request_.create_graph ? grad : copy(grad);
  }

  // What host code is shown, and may change: as a compiled rule would have made it.
  Ref<TensorImpl> shown(Ref<TensorImpl> grad, GradientMemory memory) {
    return memory == GradientMemory::view ? copy(grad) : std::move(grad);
  }

  Ref<TensorImpl> copy(const Ref<TensorImpl>& t) {
    TensorImpl* in[] = {t.get()};
    Ref<TensorImpl> out;
    call_into({.op = ops::OpId::clone, .n_in = 1, .in = in, .where = request_.where}, &out);
    return out;
  }

  /// `hooks` is the caller's copy: one of them may remove itself.
  Ref<TensorImpl> call_hooks(const std::vector<std::pair<int, Hook>>& hooks, Ref<TensorImpl> grad) {
    for (const auto& [number, hook] : hooks) {
      if (interceptor_) interceptor_->host_code();
      const Tensor replaced = hook(Tensor(grad));
      if (replaced.defined())
        grad = as_gradient(replaced, {grad->dtype, grad->device, false, grad->sizes}, "hook", request_.where);
    }
    return grad;
  }

  void run_hooks(Node& n, Pending& p) {
    if (!n.extras) return;
    for (size_t j = 0; j < n.extras->hooks.size(); ++j) {
      if (!p.grads[j] || n.extras->hooks[j].empty()) continue;
      p.grads[j] = call_hooks(std::vector(n.extras->hooks[j]), shown(p.grads[j], p.memories[j]));
      p.memories[j] = GradientMemory::others;
    }
  }

  // autograd::grad with respect to an intermediate result.
  void collect(Node& n, Pending& p) {
    for (size_t i = 0; i < request_.inputs.size(); ++i) {
      const Edge& input = request_.inputs[i];
      if (!input.node || node_of(input) != &n) continue;
      const Ref<TensorImpl>& g = p.grads[static_cast<size_t>(input.index)];
      if (g) collected_[i] = owned(g, GradientMemory::others);
    }
  }

  void gradient(Node& n, const Pending& p, std::vector<Ref<TensorImpl>>& out,
                std::vector<GradientMemory>& memory) {
    const char* name = n.op == ops::OpId::count_ ? "custom function" : ops::def(n.op).name;
    if (n.consumed)
      fail(std::string("backward: the tape of this ") + name +
               " was freed by an earlier backward; pass retain_graph the first time",
           n.where.known() ? n.where : request_.where);
    while (n.extras && n.extras->recomputed) [[unlikely]] {  // more than once where checkpoints nest
        if (interceptor_ && request_.retain_graph)
          fail(
              "backward: retain_graph inside a traced call cannot keep what a checkpoint from before it "
              "computes again; do without one of them",
              request_.where);
        recompute(n, request_.where);
      }
    for (const Node::In& in : n.in) check_version(n, in.saved, name);
    for (const Node::Out& o : n.out) check_version(n, o.saved, name);
    if (n.extras && n.extras->custom) return custom_gradient(n, p, out, memory);
    if (n.written_view) {
      out.assign(2, {});
      memory.assign(2, GradientMemory::others);
      return spread_gradient(n, p.grads[0], out);
    }
    run_gradient(n, p.grads, interceptor_ != nullptr || request_.create_graph, out, memory);
    for (size_t i = 0; i < out.size(); ++i)  // what is handed on is still what it was
      for (size_t j = 0; j < p.grads.size() && memory[i] == GradientMemory::others; ++j)
        if (out[i] && out[i] == p.grads[j] && p.memories[j] == GradientMemory::view)
          memory[i] = GradientMemory::view;
  }

  void check_version(const Node& n, const Saved& saved, const char* name) {
    if (!saved.value || version_of(saved.value.get()) == saved.version) return;
    std::string message =
        std::string("backward: a value that the gradient of ") + name + " needs was changed in place";
    const Location at = changed_at(saved.value.get());
    if (at.known()) message += " at " + to_string(at);
    fail(message + "; the op was called", n.where);
  }

  // Kept without history; a value of a running traced call cannot be given one itself.
  static Tensor saved_result(const Tensor& t, const Edge& edge, Location where) {
    if (!modes().grad || !t.impl()->frame) return Tensor(with_history({Ref<TensorImpl>(t.impl()), 0}, edge));
    const Tensor shown = [&] {
      const NoGrad no_grad;
      return t.detach(where);
    }();
    shown.impl()->grad_fn = edge.node;
    shown.impl()->output_index = edge.index;
    shown.impl()->set(core::kRequiresGrad, true);
    return shown;
  }

  void custom_gradient(Node& n, const Pending& p, std::vector<Ref<TensorImpl>>& out,
                       std::vector<GradientMemory>& memory) {
    out.assign(n.in.size(), {});
    memory.assign(n.in.size(), GradientMemory::others);
    CustomFunction& f = *n.extras->custom;
    for (size_t i = 0; i < f.versions.size(); ++i)
      if (TensorImpl* t = f.context.saved()[i].impl())
        check_version(n, {Ref<TensorImpl>(t), f.versions[i]}, "a custom function");
    if (interceptor_) interceptor_->host_code();
    TensorList incoming, saved = f.context.saved();
    for (size_t j = 0; j < p.grads.size(); ++j)
      incoming.emplace_back(p.grads[j] ? shown(p.grads[j], p.memories[j]) : p.grads[j]);
    for (size_t i = 0; i < saved.size(); ++i)
      if (f.result[i] >= 0) saved[i] = saved_result(saved[i], edge_into(n, f.result[i]), n.where);
    autograd::Context context = f.context;
    context.save_for_backward(std::move(saved));
    const TensorList result = f.backward(context, incoming);
    if (result.size() != n.in.size())
      fail("custom function: backward returned " + std::to_string(result.size()) + " gradients for " +
               std::to_string(n.in.size()) + " inputs",
           n.where);
    for (size_t i = 0; i < result.size(); ++i) {
      if (!n.in[i].edge || !result[i].defined()) continue;
      if (!(result[i].sizes() == n.in[i].type.sizes))
        fail("custom function: the gradient of input " + std::to_string(i) + " has shape " +
                 to_string(result[i].sizes()) + ", the input " + to_string(n.in[i].type.sizes),
             n.where);
      const DType wanted = n.in[i].type.dtype;
      if (!is_floating(result[i].dtype()))
        fail("custom function: the gradient of input " + std::to_string(i) + " is " +
                 name(result[i].dtype()) + ", the input " + name(wanted),
             n.where);
      out[i] = Ref<TensorImpl>(result[i].dtype() == wanted ? result[i].impl()
                                                           : result[i].to(wanted, n.where).impl());
    }
  }

  void release(Node& n) {
    n.consumed = true;
    for (Node::In& in : n.in) in.saved.value.reset();
    for (Node::Out& o : n.out) o.saved.value.reset();
    if (n.extras) n.extras->custom.reset();
  }

  const WalkRequest& request_;
  std::optional<Between> between_;  // autograd::grad
  std::vector<Ref<TensorImpl>> collected_;
  std::vector<Ref<core::TapeNode>> held_;  // all others are held by the edges of these
  PendingGradients pending_;
  std::priority_queue<Node*, std::vector<Node*>, LaterFirst> queue_;
};

}  // namespace

Ref<TensorImpl> as_gradient(const Tensor& g, const ops::TensorType& of, const char* who, Location where) {
  const auto text = [](DType dtype, const Dims& sizes, Device device) {
    return std::string(name(dtype)) + " of shape " + to_string(sizes) + " on " + to_string(device);
  };
  if (!(g.sizes() == of.sizes) || !(g.device() == of.device) || !is_floating(g.dtype()))
    fail(std::string(who) + ": the gradient is " + text(g.dtype(), g.sizes(), g.device()) + ", the value " +
             text(of.dtype, of.sizes, of.device),
         where);
  return Ref<TensorImpl>(g.dtype() == of.dtype ? g.impl() : g.to(of.dtype, where).impl());
}

std::vector<Ref<TensorImpl>> walk(const WalkRequest& request) {
  Modes m = modes();
  m.grad = request.create_graph;
  m.autocast = 0;  // gradients have the types of the operands, which the casts of the forward have made
  const ModeGuard guard(m);
  return Walk(request).run();
}

}  // namespace tandem::eager
