// A relu before a max pooling runs behind it, and its mask in the gradient before the pooling's gradient: on
// as many elements as there are windows. Exact: what is above 0 is what it was, NaN too, so a window's first
// largest is the same, or the window gives 0 (never -0, which relu does not give).
//   b = max_pool_backward(g, places), where(relu(y) > 0, b, 0) becomes
//   max_pool_backward(where(pooled > 0, g, 0), places): a position gets the shares of windows whose largest
//   it is, so that `pooled` of these windows is its own value.
//   max_pool(relu(y)) becomes relu(max_pool(y)). Places differ in windows that give 0 alone; so only masked
//   gradients, which have 0 there, may read them.
// That is done where relu would be a walk of its own, since y comes from a native kernel.
#include <algorithm>

#include "tandem/jit/rewrite.h"

namespace tandem::jit {

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

class PoolRelu {
 public:
  explicit PoolRelu(const Graph& g) : g_(g), users_(g.values.size()), lasting_(g.values.size(), 0) {
    for (size_t i = 0; i < g.nodes.size(); ++i)
      for (const int32_t v : g.nodes[i].in)
        if (v >= 0) users_[at(v)].push_back(static_cast<int32_t>(i));
    for (const int32_t v : g.outputs) lasting_[at(v)] = 1;
    for (const Write& w : g.writes) lasting_[at(w.value)] = 1;
  }

  Graph run() {
    masked_.assign(g_.nodes.size(), -1);
    behind_.assign(g_.nodes.size(), 0);
    bool any = false;
    for (size_t i = 0; i < g_.nodes.size(); ++i) any = look(static_cast<int32_t>(i)) || any;
    return any ? dead_code(rewrite()) : g_;
  }

 private:
  const Node& node(int32_t i) const { return g_.nodes[at(i)]; }
  bool zero(int32_t v) const {
    const Node& n = g_.node_of(v);
    return n.leaf == Leaf::constant && n.bits == 0;
  }
  /// The one node that reads `v`, nothing else does; -1: there are others, or none.
  int32_t only_user(int32_t v) const {
    return users_[at(v)].size() == 1 && !lasting_[at(v)] ? users_[at(v)][0] : -1;
  }

  bool look(int32_t pool) {
    const Node& p = node(pool);
    if (!is_op(p, OpId::max_pool) || !is_op(g_.node_of(p.in[0]), OpId::relu)) return false;
    const int32_t top = p.in[0], places = p.out[1];
    bool any = false, all = !lasting_[at(places)];
    for (const int32_t u : users_[at(places)]) {
      const int32_t choice = mask_of(u, places, top);
      if (choice >= 0) masked_[at(u)] = choice;
      any = any || choice >= 0;
      all = all && choice >= 0;
    }
    const Node& maker = g_.node_of(g_.node_of(top).in[0]);
    const bool native = maker.leaf == Leaf::op && ops::is_native(ops::def(maker.op).kind);
    if (all && native && pooled_alone(pool, top)) behind_[at(pool)] = any = true;
    return any;
  }

  /// The where(top > 0, b, 0) that alone reads the result b of node `u`, a gradient of the pooling; else -1.
  int32_t mask_of(int32_t u, int32_t places, int32_t top) const {
    const Node& back = node(u);
    if (!is_op(back, OpId::max_pool_backward) || back.in[0] == places) return -1;
    const int32_t w = only_user(back.out[0]);
    if (w < 0 || !is_op(node(w), OpId::where)) return -1;
    const Node& choice = node(w);
    if (choice.in[1] != back.out[0] || choice.in[0] == choice.in[1] || !zero(choice.in[2])) return -1;
    const Node& above = g_.node_of(choice.in[0]);
    return is_op(above, OpId::gt) && above.in[0] == top && zero(above.in[1]) ? w : -1;
  }

  /// Whether nothing but the pooling and masks of its gradients reads `top`.
  bool pooled_alone(int32_t pool, int32_t top) const {
    if (lasting_[at(top)]) return false;
    return std::all_of(users_[at(top)].begin(), users_[at(top)].end(), [&](int32_t u) {
      if (u == pool) return true;
      if (!is_op(node(u), OpId::gt) || lasting_[at(node(u).out[0])]) return false;
      const std::vector<int32_t>& masks = users_[at(node(u).out[0])];
      return std::all_of(masks.begin(), masks.end(), [&](int32_t w) {
        return std::any_of(users_[at(node(pool).out[1])].begin(), users_[at(node(pool).out[1])].end(),
                           [&](int32_t back) { return masked_[at(back)] == w; });
      });
    });
  }

  static GraphEmitter emitter(Rewrite& r, const Node& like) {
    GraphEmitter e(r.to, false);
    e.location = like.where;
    e.origin = like.origin;
    return e;
  }

  Graph rewrite() const {
    Rewrite r(g_);
    std::vector<int32_t> pooled(g_.values.size(), -1);  // by places: the pooling's values in the new graph
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const Node& n = g_.nodes[i];
      if (behind_[i]) {
        const Node& relu = g_.node_of(n.in[0]);
        const int32_t best = r.copy(n, {r[relu.in[0]]});
        r.name(n, best);
        GraphEmitter e = emitter(r, relu);
        r.name(n.out[0], e.relu(ops::Value{best}).id);
      } else if (masked_[i] >= 0) {
        const Node& choice = node(masked_[i]);
        GraphEmitter e = emitter(r, choice);
        const ops::Value some = e.gt(ops::Value{pooled[at(n.in[1])]}, 0.0);
        const ops::Value share = e.where(some, ops::Value{r[n.in[0]]}, 0.0);
        r.name(n, r.copy(n, {share.id, r[n.in[1]]}));
        continue;
      } else if (is_op(n, OpId::where) && masked_value(static_cast<int32_t>(i))) {
        r.name(n, r[n.in[1]]);
        continue;
      } else {
        r.name(n, r.copy(n));
      }
      if (is_op(n, OpId::max_pool)) pooled[at(n.out[1])] = r[n.out[0]];
    }
    return r.finish();
  }
  /// Whether node `w` is the mask behind a gradient that has it before itself now.
  bool masked_value(int32_t w) const {
    const int32_t v = node(w).in[1];
    return v >= 0 && g_.values[at(v)].node >= 0 && masked_[at(g_.values[at(v)].node)] == w;
  }

  const Graph& g_;
  std::vector<std::vector<int32_t>> users_;  // per value: nodes
  std::vector<char> lasting_;                // per value: an output, or written in the end
  std::vector<int32_t> masked_;              // per node, a gradient: the mask behind it that goes before it
  std::vector<char> behind_;                 // per node, a pooling: its relu goes behind it
};

}  // namespace

Graph relu_behind_pooling(const Graph& g) { return PoolRelu(g).run(); }

}  // namespace tandem::jit
