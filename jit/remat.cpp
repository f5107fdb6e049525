// The cost model, in bytes of memory traffic. A value that a pointwise (or random) op makes before a product
// and that is read after it is stored, kept all the time between, and loaded again. Values computed from one
// common source are taken together: computed again where they are used late, they need the source in their
// place. That is done if it frees memory (their sizes against that of the source, if nothing else keeps it)
// and if no more bytes move: a store less for each that was stored for late uses alone, a load less for each
// that only kernels use late, but a store more for each that a product reads late, and a load of the source.
// So a dropout's mask is drawn again from its counter, and of gelu its operand is kept instead of its result
// and its slope; the mask of a relu (one byte) is not worth reading the relu again (four).
//
// What a product reads late (a layer's normalised input, for its weight's gradient) need not wait for that if
// a kernel reads late what it is made of: it is computed again, in the walk of that kernel. A store more, and
// its memory is free in between.
#include <algorithm>
#include <map>

#include "tandem/jit/rewrite.h"

namespace tandem::jit {

using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr size_t kMaxChain = 32;
constexpr int64_t kSmall = 16;  // sources so much smaller than the value do not count

class Rematerialiser {
 public:
  explicit Rematerialiser(const Graph& g) : g_(g) {}

  Graph run() {
    find_levels();
    find_clusters();
    again_.assign(g_.values.size(), 0);
    bool any = false;
    for (const auto& [source, values] : clusters_) {
      if (!pays(source, values)) continue;
      for (const Candidate& c : values) again_[at(c.value)] = any = true;
    }
    any |= find_operands();
    return any ? dead_code(rewrite()) : g_;
  }

 private:
  struct Candidate {
    int32_t value = -1;
    std::vector<int32_t> chain = {};  // what it is computed from, sources included
    bool by_kernel = false;           // some late use
  };

  bool heavy(const Node& n) const {
    if (n.leaf != Leaf::op) return false;
    const OpKind k = ops::def(n.op).kind;
    return k == OpKind::contraction || k == OpKind::composite || ops::is_native(k);
  }
  bool cheap(int32_t v) const {
    const Node& n = g_.node_of(v);
    if (n.leaf != Leaf::op || g_.type(v).number) return false;
    const OpKind k = ops::def(n.op).kind;
    return k == OpKind::pointwise || k == OpKind::random || k == OpKind::view;
  }
  int64_t bytes(int32_t v) const { return bytes_in_costs(g_.type(v)); }

  /// How many products and the like lie before a node at most.
  void find_levels() {
    level_.assign(g_.values.size(), 0);
    runs_.assign(g_.nodes.size(), 0);
    lasting_.assign(g_.values.size(), 0);
    users_.resize(g_.values.size());
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const Node& n = g_.nodes[i];
      for (const int32_t v : n.in) {
        if (v < 0) continue;
        runs_[i] = std::max(runs_[i], level_[at(v)]);
        if (n.leaf == Leaf::op) users_[at(v)].push_back(static_cast<int32_t>(i));
      }
      for (const int32_t v : n.out) level_[at(v)] = runs_[i] + heavy(n);
    }
    // What needs nothing but inputs belongs where it is used first.
    for (size_t i = g_.nodes.size(); i-- > 0;) {
      const Node& n = g_.nodes[i];
      if (runs_[i] > 0 || n.out.empty() || !cheap(n.out[0])) continue;
      int32_t first = -1;
      for (const int32_t u : users_[at(n.out[0])]) {
        const Node& user = g_.nodes[at(u)];
        const int32_t runs =
            user.out.size() == 1 && cheap(user.out[0]) ? level_[at(user.out[0])] : runs_[at(u)];
        first = first < 0 ? runs : std::min(first, runs);
      }
      level_[at(n.out[0])] = std::max(first, 0);
    }
    for (const Input& in : g_.inputs) lasting_[at(in.value)] = 1;
    for (const int32_t v : g_.outputs) lasting_[at(v)] = 1;
    for (const Write& w : g_.writes) {
      lasting_[at(w.value)] = 1;
      lasting_[at(g_.inputs[at(w.input)].value)] = kWritten;
    }
  }

  /// Calls f(node, it runs late) for what reads `v` or a view of it.
  template <class F>
  void for_users(int32_t v, F f) const {
    for (const int32_t u : users_[at(v)]) {
      const Node& n = g_.nodes[at(u)];
      if (ops::def(n.op).kind == OpKind::view)
        for_users(n.out[0], f);
      else
        f(n, runs_[at(u)]);
    }
  }
  bool used_late(int32_t v, int32_t level) const {
    bool late = false;
    for_users(v, [&](const Node&, int32_t runs) { late = late || runs > level; });
    return late;
  }

  void find_clusters() {
    for (const Node& n : g_.nodes) {
      int32_t source = -1;
      if (Candidate c; is_candidate(n, c) && find_source(c, source)) clusters_[source].push_back(c);
    }
    for (auto& cluster : clusters_) {
      std::vector<Candidate>& values = cluster.second;
      const auto shares = [&](const Candidate& c) {
        return std::any_of(values.begin(), values.end(), [&](const Candidate& other) {
          return other.by_kernel && std::any_of(c.chain.begin(), c.chain.end(), [&](int32_t x) {
                   return cheap(x) &&
                          std::find(other.chain.begin(), other.chain.end(), x) != other.chain.end();
                 });
        });
      };
      std::vector<Candidate> kept;
      std::copy_if(values.begin(), values.end(), std::back_inserter(kept), shares);
      values = std::move(kept);
    }
  }

  bool is_candidate(const Node& n, Candidate& c) const {
    if (n.leaf != Leaf::op || n.out.size() != 1 || !cheap(n.out[0]) || is_view(g_, n.out[0])) return false;
    c.value = n.out[0];
    return !lasting_[at(c.value)] && late_uses(c);
  }
  /// Whether a kernel that runs `n` walks `v` element by element.
  bool walks(const Node& n, int32_t v) const {
    return ops::def(n.op).kind == OpKind::pointwise &&
           numel(g_.type(n.out[0]).sizes) == numel(g_.type(v).sizes);
  }
  /// Whether the value is used late by kernels that walk it element by element, which can compute it, or by
  /// products, and by nothing else.
  bool late_uses(Candidate& c) const {
    bool late = false, good = true;
    for_users(c.value, [&](const Node& n, int32_t runs) {
      if (runs <= level_[at(c.value)]) return;
      late = true;
      if (heavy(n)) return;
      good = good && walks(n, c.value);
      c.by_kernel = true;
    });
    return late && good;
  }

  enum class Chain : uint8_t { go_on, stop_here, give_up };
  /// Goes from the value to what it is computed from; `f` says what becomes of each. False if it gave up.
  template <class F>
  bool walk_chain(Candidate& c, F f) const {
    std::vector<int32_t>& seen = c.chain;
    std::vector<int32_t> todo = {c.value};
    while (!todo.empty()) {
      const int32_t x = todo.back();
      todo.pop_back();
      if (std::find(seen.begin(), seen.end(), x) != seen.end()) continue;
      seen.push_back(x);
      const Chain way = seen.size() > kMaxChain ? Chain::give_up : f(x);
      if (way == Chain::give_up) return false;
      if (way == Chain::stop_here) continue;
      for (const int32_t in : g_.node_of(x).in)
        if (in >= 0 && !g_.type(in).number) todo.push_back(in);
    }
    return true;
  }

  /// The one source of its size from which cheap ops make the value; -1: there is none. False if there are
  /// several, or one that is written in the end.
  bool find_source(Candidate& c, int32_t& source) const {
    const int32_t v = c.value;
    return walk_chain(c, [&](int32_t x) {
      if (cheap(x) && level_[at(x)] == level_[at(v)]) return Chain::go_on;
      const Node& n = g_.node_of(x);
      if (lasting_[at(x)] == kWritten) return Chain::give_up;
      if (n.leaf == Leaf::op && ops::def(n.op).kind == OpKind::fill) return Chain::stop_here;
      if (!(n.leaf == Leaf::input || heavy(n) || (cheap(x) && level_[at(x)] < level_[at(v)])))
        return Chain::give_up;
      if (bytes(x) * kSmall <= bytes(v)) return Chain::stop_here;
      if (source >= 0 && source != x) return Chain::give_up;
      source = x;
      return Chain::stop_here;
    });
  }

  // --- Operands of products ---

  bool find_operands() {
    bool any = false;
    kept_.assign(g_.values.size(), 0);
    operand_.assign(g_.values.size(), 0);
    for (const Node& n : g_.nodes) {
      Candidate c;
      std::vector<int32_t> kept;
      if (!is_candidate(n, c) || c.by_kernel || again_[at(c.value)] || !find_kept(c, kept)) continue;
      again_[at(c.value)] = any = true;
      for (const int32_t x : c.chain) operand_[at(x)] = !is_view(g_, x);
      for (const int32_t x : kept) kept_[at(x)] = 1;
    }
    return any;
  }

  /// Whether the value can be computed from one of its size that a kernel reads late anyway, and small ones.
  bool find_kept(Candidate& c, std::vector<int32_t>& kept) const {
    int large = 0;
    const bool found = walk_chain(c, [&](int32_t x) {
      const bool small = bytes(x) * kSmall <= bytes(c.value);
      if (x != c.value && !again_[at(base_of(x))] && (small || kernel_reads_late(x))) {
        large += !small;
        kept.push_back(x);
        return Chain::stop_here;
      }
      return cheap(x) && level_[at(x)] == level_[at(c.value)] ? Chain::go_on : Chain::give_up;
    });
    return found && large == 1;
  }
  int32_t base_of(int32_t v) const {
    while (is_view(g_, v)) v = g_.node_of(v).in[0];
    return v;
  }
  bool kernel_reads_late(int32_t v) const {
    bool reads = false;
    for_users(v,
              [&](const Node& n, int32_t runs) { reads = reads || (runs > level_[at(v)] && walks(n, v)); });
    return reads;
  }

  bool pays(int32_t source, const std::vector<Candidate>& values) const {
    int64_t freed = 0, moved = 0;
    for (const Candidate& c : values) {
      const int32_t v = c.value;
      const int32_t level = level_[at(v)];
      bool stored = false, by_product = false;
      for_users(v, [&](const Node& n, int32_t runs) { (runs <= level ? stored : by_product) |= heavy(n); });
      freed += bytes(v);
      if (!stored) moved -= bytes(v);
      if (c.by_kernel) moved -= bytes(v);
      if (by_product) moved += bytes(v);
    }
    if (source >= 0) {
      moved += bytes(source);
      if (!lasting_[at(source)] && !late_otherwise(source, values)) freed -= bytes(source);
    }
    return freed > 0 && moved <= 0;
  }
  bool late_otherwise(int32_t source, const std::vector<Candidate>& values) const {
    int32_t level = 0;
    for (const Candidate& c : values) level = std::max(level, level_[at(c.value)]);
    return used_late(source, level);
  }

  // --- The new graph ---

  Graph rewrite() {
    Rewrite r(g_);
    copies_.assign(g_.values.size(), -1);
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      Node n = g_.nodes[i];
      std::vector<int32_t> in = n.in;
      for (size_t k = 0; k < in.size(); ++k) in[k] = operand(r, n, n.in[k], runs_[i]);
      r.name(n, r.copy(n, in));
    }
    return r.finish();
  }

  /// What a node that runs at `runs` reads for `v`.
  int32_t operand(Rewrite& r, const Node& n, int32_t v, int32_t runs) {
    if (v < 0 || n.leaf != Leaf::op || ops::def(n.op).kind == OpKind::view) return r[v];
    const int32_t base = base_of(v);
    return again_[at(base)] && runs > level_[at(base)] ? again(r, v, level_[at(base)]) : r[v];
  }

  /// `v` computed once more, with all cheap values of its level that it needs.
  int32_t again(Rewrite& r, int32_t v, int32_t level) {
    if (v < 0) return v;
    const bool uniform = g_.node_of(v).leaf == Leaf::op && ops::def(g_.node_of(v).op).kind == OpKind::fill;
    if (uniform || kept_[at(v)] || !cheap(v) || (level_[at(v)] != level && !is_view(g_, v))) return r[v];
    if (copies_[at(v)] >= 0) return copies_[at(v)];
    std::vector<int32_t> in;
    for (const int32_t x : g_.node_of(v).in) in.push_back(again(r, x, level));
    copies_[at(v)] = r.copy(g_.node_of(v), in);
    r.to.nodes.back().again = operand_[at(v)];
    return copies_[at(v)];
  }

  static constexpr char kWritten = 2;
  const Graph& g_;
  std::vector<int32_t> level_, runs_;  // per value; per node
  std::vector<char> lasting_;  // per value: an input, output or written value; kWritten: changes in the end
  std::vector<std::vector<int32_t>> users_;
  std::map<int32_t, std::vector<Candidate>> clusters_;  // by source
  std::vector<char> again_, kept_, operand_;
  std::vector<int32_t> copies_;
};

}  // namespace

Graph rematerialise(const Graph& g) { return Rematerialiser(g).run(); }

}  // namespace tandem::jit
