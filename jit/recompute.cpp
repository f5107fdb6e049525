// The cost model, in bytes of memory traffic. A pointwise value that its kernel stores for other kernels
// costs a store and a load for each of these. Computed again where it is read, it costs the loads of what it
// is made of, down to what is in memory anyway, as far as the reader does not load that already; a function
// that is no plain arithmetic counts as some bytes an element. It is done if that is less, and if no memory
// is kept longer than the value's own would have been. So scores of additive attention, (B, Tq, Tk, H) from
// (B, Tq, H) and (B, Tk, H), are never stored, norms keep their operand and no centred copy of it, and the
// slopes of an LSTM's gates are computed from the gates. (remat.cpp decides what products read.)
#include "tandem/jit/recompute.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "tandem/jit/rewrite.h"

namespace tandem::jit {

using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr size_t kMaxChain = 24;
constexpr int64_t kSmall = 16;  // what a reduction in the same kernel makes may be stored if so much smaller
// Bytes an element; where a value fits into caches, loads are cheap beside a tanh.
constexpr int64_t kDear = 4, kDearInCache = 32, kCache = int64_t{32} << 20;
constexpr int32_t kForEver = std::numeric_limits<int32_t>::max();

/// Arithmetic that costs next to nothing beside a load.
bool plain(OpId op) {
  switch (op) {
    case OpId::add:
    case OpId::sub:
    case OpId::mul:
    case OpId::div:
    case OpId::neg:
    case OpId::abs:
    case OpId::sign:
    case OpId::square:
    case OpId::reciprocal:
    case OpId::lerp:
    case OpId::sqrt:
    case OpId::rsqrt:
    case OpId::relu:
    case OpId::relu6:
    case OpId::leaky_relu:
    case OpId::hardtanh:
    case OpId::threshold:
    case OpId::maximum:
    case OpId::minimum:
    case OpId::where:
    case OpId::eq:
    case OpId::ne:
    case OpId::lt:
    case OpId::le:
    case OpId::gt:
    case OpId::ge:
    case OpId::logical_and:
    case OpId::logical_or:
    case OpId::logical_not:
    case OpId::cast:
      return true;
    default:
      return false;
  }
}

class Recomputer {
 public:
  Recomputer(const Graph& g, const Prepared& p, const Grouping& r, bool host)
      : g_(g), p_(p), r_(r), host_(host) {}

  bool decide() {
    find_sources();
    find_stored();
    bool any = false;
    for (size_t i = 0; i < p_.g.nodes.size(); ++i) {
      if (r_.group_of[i] < 0 || !cheap(static_cast<int32_t>(i))) continue;
      any = consider(p_.g.nodes[i].out[0], r_.group_of[i]) || any;
    }
    return any;
  }

  /// The new graph.
  Graph rewrite() {
    Rewrite to(g_);
    for (const Node& n : g_.nodes) {
      std::vector<int32_t> in = n.in;
      const int32_t group = group_of(n);
      for (int32_t& v : in) v = group < 0 ? to[v] : operand(to, v, group);
      to.name(n, to.copy(n, in));
    }
    return to.finish();
  }

 private:
  // --- What the first grouping says ---

  /// Pointwise, and not known before the first run.
  bool cheap(int32_t node) const {
    const Node& n = p_.g.nodes[at(node)];
    return n.leaf == Leaf::op && n.out.size() == 1 && !p_.constant[at(node)] &&
           ops::def(n.op).kind == OpKind::pointwise && !p_.g.type(n.out[0]).number;
  }
  int64_t bytes(int32_t v) const { return bytes_in_costs(p_.g.type(v)); }
  bool lasts(int32_t root) const { return p_.input_of(root) >= 0 || !p_.destinations[at(root)].empty(); }

  /// Notes which nodes of `p` are nodes of `g`, and not copies that preparing put in.
  void find_sources() {
    source_of_.assign(p_.g.nodes.size(), -1);
    for (size_t v = 0; v < p_.of_source.size(); ++v)
      if (p_.of_source[v] >= 0) source_of_[at(p_.values_node(p_.of_source[v]))] = static_cast<int32_t>(v);
  }

  void find_stored() {
    stored_.assign(p_.g.values.size(), 0);
    until_.assign(p_.g.values.size(), -1);
    reads_.resize(r_.groups.size());
    clones_.resize(r_.groups.size());
    for (size_t v = 0; v < p_.g.values.size(); ++v) {
      const auto root = static_cast<int32_t>(v);
      if (p_.value_class(root) != ValueClass::memory || p_.root(root) != root) continue;
      const int32_t node = p_.values_node(root), made_by = r_.group_of[at(node)];
      stored_[v] =
          lasts(root) || made_by < 0 || !r_.groups[at(made_by)].is_kernel() || p_.parts[v].whole >= 0;
      for (const int32_t u : p_.users[v]) {
        const int32_t g = r_.group_of[at(u)];
        until_[v] = u;
        if (g < 0 || g == made_by) continue;
        stored_[v] = 1;
        reads_[at(g)].insert(root);
      }
      if (lasts(root)) until_[v] = kForEver;
    }
    for (const Write& w : p_.g.writes) written_.insert(p_.g.inputs[at(w.input)].value);
  }

  // --- One value ---

  /// The kernels that read `v`; none if something else does, too, or not element by element.
  std::vector<int32_t> readers(int32_t v, int32_t made_by) const {
    std::vector<int32_t> groups;
    for (const int32_t u : p_.users[at(v)]) {
      const int32_t g = r_.group_of[at(u)];
      if (g == made_by) continue;
      const Node& n = p_.g.nodes[at(u)];
      const OpKind kind = ops::def(n.op).kind;
      // On a device a thread has a column and loads four bytes at once: more operands cost it more than they
      // save in bytes.
      bool good = g >= 0 && r_.groups[at(g)].is_kernel() && source_of_[at(u)] >= 0 &&
                  (host_ || r_.groups[at(g)].kind != GroupKind::column) &&
                  (kind == OpKind::pointwise || kind == OpKind::reduction) &&
                  numel(walked_sizes(p_.g, n)) == numel(p_.g.type(v).sizes);
      for (const int32_t x : n.in) {
        AxisMap map;
        if (x >= 0 && p_.value_class(x) == ValueClass::memory && p_.root(x) == v)
          good = good && axes_of_root(p_.g.type(v).sizes, p_.layout(x), map);
      }
      if (!good) return {};
      if (std::find(groups.begin(), groups.end(), g) == groups.end()) groups.push_back(g);
    }
    return groups;
  }

  /// Nodes from which `v` is computed anew, and what these read from memory. False: it cannot be.
  struct Recipe {
    std::vector<int32_t> nodes, sources;
  };
  bool recipe(int32_t v, Recipe& to) const {
    std::vector<int32_t> todo = {v};
    while (!todo.empty()) {
      const int32_t x = todo.back();
      todo.pop_back();
      const int32_t node = p_.values_node(x);
      if (std::find(to.nodes.begin(), to.nodes.end(), node) != to.nodes.end()) continue;
      if (source_of_[at(node)] < 0) return false;
      to.nodes.push_back(node);
      if (to.nodes.size() > kMaxChain) return false;
      for (const int32_t in : p_.g.nodes[at(node)].in) {
        if (in < 0 || p_.value_class(in) != ValueClass::memory) continue;
        const int32_t root = p_.root(in);
        const int32_t maker = p_.values_node(root);
        if (!stored_[at(root)] && cheap(maker)) {
          todo.push_back(root);
          continue;
        }
        if (!stored_[at(root)] && bytes(root) * kSmall > bytes(v)) return false;
        if (std::find(to.sources.begin(), to.sources.end(), root) == to.sources.end())
          to.sources.push_back(root);
      }
    }
    return true;
  }

  bool consider(int32_t v, int32_t made_by) {
    if (!stored_[at(v)] || lasts(v) || p_.parts[at(v)].whole >= 0) return false;
    const std::vector<int32_t> groups = readers(v, made_by);
    Recipe how;
    if (groups.empty() || !recipe(v, how)) return false;
    int64_t saved = bytes(v), longer = 0;
    for (const int32_t x : how.sources) {
      if (!stored_[at(x)]) saved -= bytes(x);
      if (until_[at(x)] < until_[at(v)] && bytes(x) * kSmall > bytes(v)) longer += bytes(x);
    }
    for (const int32_t g : groups) {
      saved += bytes(v);
      for (const int32_t x : how.sources) {
        if (reads_[at(g)].count(x)) continue;
        if (written_.count(x)) return false;  // its new value would have to wait
        saved -= bytes(x);
      }
      for (const int32_t n : how.nodes)
        if (!clones_[at(g)].count(n) && !plain(p_.g.nodes[at(n)].op))
          saved -= (bytes(v) > kCache ? kDear : kDearInCache) *
                   elements_in_costs(p_.g.type(p_.g.nodes[at(n)].out[0]));
    }
    if (saved <= 0 || longer > bytes(v)) return false;
    for (const int32_t g : groups) {
      again_.insert({g, v});
      reads_[at(g)].erase(v);
      reads_[at(g)].insert(how.sources.begin(), how.sources.end());
      clones_[at(g)].insert(how.nodes.begin(), how.nodes.end());
    }
    for (const int32_t x : how.sources) {
      stored_[at(x)] = 1;
      until_[at(x)] = std::max(until_[at(x)], until_[at(v)]);
    }
    stored_[at(v)] = 0;
    return true;
  }

  // --- The new graph ---

  int32_t prepared(int32_t v) const { return v < 0 ? -1 : p_.of_source[at(v)]; }
  /// The group of a node of the given graph; -1 for none.
  int32_t group_of(const Node& n) const {
    const int32_t v = n.out.empty() ? -1 : prepared(n.out[0]);
    return v < 0 || n.leaf != Leaf::op ? -1 : r_.group_of[at(p_.values_node(v))];
  }

  /// What a node of the group reads for `v`.
  int32_t operand(Rewrite& to, int32_t v, int32_t group) {
    int32_t base = v;
    while (base >= 0 && is_view(g_, base)) base = g_.node_of(base).in[0];
    return base >= 0 && again_.count({group, prepared(base)}) ? copy(to, v, group) : to[v];
  }

  int32_t copy(Rewrite& to, int32_t v, int32_t group) {
    const int32_t here = prepared(v);
    if (here < 0 || p_.value_class(here) != ValueClass::memory) return to[v];
    if (stored_[at(p_.root(here))] || (!is_view(g_, v) && !cheap(p_.values_node(here)))) return to[v];
    const auto [known, fresh] = copies_.try_emplace({group, v}, -1);
    if (!fresh) return known->second;
    std::vector<int32_t> in;
    for (const int32_t x : g_.node_of(v).in) in.push_back(copy_or_absent(to, x, group));
    const int32_t made = to.copy(g_.node_of(v), in);
    to.to.nodes.back().again = !is_view(g_, v);
    return copies_[{group, v}] = made;
  }
  int32_t copy_or_absent(Rewrite& to, int32_t v, int32_t group) { return v < 0 ? v : copy(to, v, group); }

  const Graph& g_;
  const Prepared& p_;
  const Grouping& r_;
  const bool host_;
  std::vector<int32_t> source_of_;                         // per node of p: a result in g, or -1
  std::vector<char> stored_;                               // per root
  std::vector<int32_t> until_;                             // per root: its last reader
  std::vector<std::set<int32_t>> reads_;                   // per group: roots that it loads
  std::vector<std::set<int32_t>> clones_;                  // per group: nodes that it computes again
  std::set<int32_t> written_;                              // inputs
  std::set<std::pair<int32_t, int32_t>> again_;            // (group, value of p)
  std::map<std::pair<int32_t, int32_t>, int32_t> copies_;  // (group, value of g)
};

}  // namespace

bool recompute_for_readers(Graph& g, const Prepared& p, const Grouping& r, bool host) {
  Recomputer recomputer(g, p, r, host);
  if (!recomputer.decide()) return false;
  g = recomputer.rewrite();
  return true;
}

}  // namespace tandem::jit
