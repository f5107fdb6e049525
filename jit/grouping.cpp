// Greedy fusion in program order. A node joins the group of one of its operands if its elements correspond
// one to one with the group's space (or, in a group that reduces, with its kept axes) and if no other operand
// depends on that group, for then the two would wait for each other. The groups of its other operands are
// merged in under the same conditions. Two more rounds merge producers with consumers that a conversion made
// compatible, and groups that read the same memory. What would be computed early only to be kept is not.
#include "tandem/jit/grouping.h"

#include <algorithm>
#include <bit>

#include "tandem/core/error.h"
#include "tandem/jit/channel_blocks.h"
#include "tandem/jit/checked_indices.h"
#include "tandem/jit/group_order.h"
#include "tandem/jit/late.h"
#include "tandem/jit/planted_bugs.h"

namespace tandem::jit {
namespace {

using ops::OpKind;
constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr Axes kNoAxes = {-1, -1, -1, -1, -1, -1, -1, -1};
constexpr size_t kMaxNodes = 64, kMaxReads = 20;
constexpr int kMaxWaiting = 8, kMaxWaitingHost = 2;  // products whose results wait for another's

class Grouper {
 public:
  Grouper(const Prepared& p, bool fuse, bool host) : p_(p), fuse_(fuse), host_(host), checks_(p) {}

  Grouping run() {
    const size_t n = p_.g.nodes.size();
    r_.group_of.assign(n, -1);
    r_.axes.assign(n, kNoAxes);
    after_.assign(n, 0);
    for (int32_t i = 0; i < static_cast<int32_t>(n); ++i)
      if (computes(i)) add_node(i);
    if (fuse_) {
      merge_producers();
      merge_readers();
    }
    return finish();
  }

 private:
  bool computes(int32_t i) const {
    const Node& n = p_.g.nodes[at(i)];
    return n.leaf == Leaf::op && ops::def(n.op).kind != OpKind::view &&
           p_.value_class(n.out[0]) == ValueClass::memory && !p_.constant[at(i)];
  }
  Group& group(int g) { return r_.groups[at(g)]; }
  bool alive(int g) const { return !r_.groups[at(g)].nodes.empty(); }
  bool open(int g) const { return order_.open(g) && r_.groups[at(g)].is_kernel(); }
  int maker(int32_t v) const { return maker_of(p_, r_, v); }
  bool reduces(int32_t i) const { return ops::def(p_.g.nodes[at(i)].op).kind == OpKind::reduction; }

  // --- One node ---

  void add_node(int32_t i) {
    const Node& n = p_.g.nodes[at(i)];
    const OpKind kind = ops::def(n.op).kind;
    int home = -1;
    if (p_.absorbed[at(i)]) {
      home = fresh(GroupKind::native);
      enter(home, i);
      return;
    }
    if (kind == OpKind::contraction) home = fresh(GroupKind::product);
    if (ops::is_native(kind) || by_library(n)) home = fresh(GroupKind::native);
    if (home >= 0) {
      group(home).may_fail = group(home).unchecked = kind == OpKind::scatter;
      group(home).may_stop = host_ && kind == OpKind::kernel && !lays_out_channels(n.op);
      enter(home, i);
      if (kind == OpKind::scatter) find_check(home, n), checks_.note(i);
      return;
    }
    std::vector<int> candidates;
    if (fuse_ && (n.again || !reads_again(p_, i)))
      for (const int32_t v : n.in) {
        const int g = maker(v);
        if (n.again && g >= 0 && !p_.g.nodes[at(p_.values_node(p_.root(v)))].again) continue;
        if (g >= 0 && open(g) && std::find(candidates.begin(), candidates.end(), g) == candidates.end())
          candidates.push_back(g);
      }
    std::sort(candidates.rbegin(), candidates.rend());
    if (kind == OpKind::gather) {  // only the group of what it looks up can save it from going through memory
      const auto base = std::find(candidates.begin(), candidates.end(), maker(n.in[0]));
      if (base != candidates.end()) std::rotate(candidates.begin(), base, base + 1);
    }
    Shape shape;
    for (const int g : candidates)
      if (home < 0 && fits(g, i, shape)) home = g;
    if (home < 0) {
      home = fresh(GroupKind::pointwise);
      new_shape(i, group(home), shape);
    }
    Group& g = group(home);
    g.kind = shape.kind;
    g.reduced = shape.reduced;
    g.ordered = g.ordered || shape.ordered;
    g.may_fail = g.may_fail || kind == OpKind::gather;
    g.unchecked = g.unchecked || (kind == OpKind::gather && !looks_up_what_changed(n));
    r_.axes[at(i)] = shape.axes;
    enter(home, i);
    for (const int other : candidates)
      if (other != home && alive(other)) home = merge(home, other, kNoAxes);
    if (kind == OpKind::gather) checks_.note(i);
  }

  /// Whether a scatter made what the gather reads, by the same indices.
  bool looks_up_what_changed(const Node& gather) const {
    if (p_.value_class(gather.in[0]) != ValueClass::memory) return false;
    const int32_t maker = p_.values_node(p_.root(gather.in[0]));
    return checks_.find(gather, [&](int32_t earlier) { return earlier == maker; }) >= 0;
  }

  void find_check(int scatter, const Node& n) {
    const int32_t by = checks_.find(n, [&](int32_t earlier) {
      const int g = r_.group_of[at(earlier)];
      return g != scatter && !order_.after(g, scatter);
    });
    if (by < 0) return;
    order_.depend(scatter, r_.group_of[at(by)]);
    group(scatter).checked_by = by;
  }

  int fresh(GroupKind kind) {
    r_.groups.emplace_back();
    r_.groups.back().kind = kind;
    reads_.emplace_back();
    return order_.add();
  }

  void enter(int g, int32_t i) {
    group(g).nodes.push_back(i);
    r_.group_of[at(i)] = g;
    after_[at(i)] = reduces(i);
    for (const int32_t v : p_.g.nodes[at(i)].in) {
      if (v < 0 || p_.value_class(v) != ValueClass::memory) continue;
      const int from = maker(v);
      if (from == g) {
        after_[at(i)] |= after_[at(p_.values_node(p_.root(v)))];
        continue;
      }
      auto& reads = reads_[at(g)];
      if (std::find(reads.begin(), reads.end(), p_.root(v)) == reads.end()) reads.push_back(p_.root(v));
      if (from >= 0) order_.depend(g, from);
    }
  }

  // --- How a node lies in a group's space ---

  struct Shape {
    GroupKind kind = GroupKind::pointwise;
    uint32_t reduced = 0;
    bool ordered = false;
    Axes axes = kNoAxes;
  };

  /// Kind and reduced axes (of the space) that a reduction asks for; false if it reduces nothing.
  bool reduction_shape(int32_t i, const Axes& axes, GroupKind& kind, uint32_t& reduced) const {
    const Node& n = p_.g.nodes[at(i)];
    const Dims& sizes = walked_sizes(p_.g, n);
    const Dims gone = reduced_axes(p_.g, n);
    reduced = 0;
    for (const int64_t a : gone)
      if (axes[static_cast<size_t>(a)] >= 0) reduced |= 1u << axes[static_cast<size_t>(a)];
    int last = sizes.rank() - 1;
    while (last >= 0 && sizes[last] == 1) --last;
    kind = std::find(gone.begin(), gone.end(), last) != gone.end() ? GroupKind::row : GroupKind::column;
    return reduced != 0;
  }

  void new_shape(int32_t i, Group& g, Shape& shape) {
    shape = {};
    const OpKind kind = ops::def(p_.g.nodes[at(i)].op).kind;
    const Dims& sizes = walked_sizes(p_.g, p_.g.nodes[at(i)]);
    for (int d = 0; d < sizes.rank(); ++d) {
      if (sizes[d] == 1) continue;
      shape.axes[at(d)] = static_cast<int8_t>(g.space.rank());
      g.space.push_back(sizes[d]);
    }
    shape.ordered = kind == OpKind::random || kind == OpKind::fill;
    if (reduces(i) && !reduction_shape(i, shape.axes, shape.kind, shape.reduced))
      shape.kind = GroupKind::pointwise;
  }

  /// Whether node `i` may join group `gi`, and how both then lie.
  bool fits(int gi, int32_t i, Shape& shape) {
    const Group& g = group(gi);
    const Node& n = p_.g.nodes[at(i)];
    if (g.nodes.size() >= kMaxNodes || reads_[at(gi)].size() + n.in.size() > kMaxReads) return false;
    shape = {g.kind, g.reduced, false, kNoAxes};
    bool after = false;
    for (size_t k = 0; k < n.in.size(); ++k) {
      const int from = maker(n.in[k]);
      if (from >= 0 && from != gi && (order_.after(from, gi) || keeps_waiting(gi, from))) return false;
      if (from != gi) continue;
      Axes in;
      if (!axes_of_value(p_, r_, n.in[k], in)) return false;
      if (k == 0 && ops::def(n.op).kind == OpKind::gather && !looked_up_again(n, gi, in)) return false;
      if (!constrain(n, static_cast<int>(k), in, shape.axes)) return false;
      after = after || after_[at(p_.values_node(p_.root(n.in[k])))];
    }
    bool full = false;
    if (!complete_axes(g, walked_sizes(p_.g, n), shape.axes, full)) return false;
    GroupKind kind;
    uint32_t reduced;
    if (!reduces(i) || !reduction_shape(i, shape.axes, kind, reduced))
      return !(full && after && walks_once(g, host_));
    if (!full || !reduced_in_order(i, shape.axes)) return false;
    if (kind == GroupKind::column && better_behind_product(gi)) return false;
    if (g.kind == GroupKind::pointwise) {
      if (g.ordered && (kind == GroupKind::column || !trailing(reduced, g.space.rank()))) return false;
      shape.kind = kind;
      shape.reduced = reduced;
      return true;
    }
    return kind == g.kind && reduced == g.reduced && !(after && walks_once(g, host_));
  }

  /// Whether a gather from a value of its own group, one element a row, may compute that element anew: from
  /// memory, at the index, by the nodes between (none of them a reduction, a gather or bound to its place).
  /// Then the looked-up axis of `axes` is set free.
  bool looked_up_again(const Node& n, int gi, Axes& axes) const {
    const Group& g = r_.groups[at(gi)];
    const int axis = gather_axis(p_.g, n);
    const int looked = axes[at(axis)];
    const Dims &from = p_.g.type(n.in[0]).sizes, &to = p_.g.type(n.out[0]).sizes;
    if (g.kind != GroupKind::row || looked < 0 || g.reduced != 1u << looked || to[axis] != 1) return false;
    for (int d = 0; d < from.rank(); ++d)
      if (d != axis && from[d] != to[d]) return false;
    axes[at(axis)] = -1;
    bool loads = false;
    std::vector<int32_t> seen, todo = {p_.values_node(p_.root(n.in[0]))};
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (std::find(seen.begin(), seen.end(), i) != seen.end()) continue;
      seen.push_back(i);
      const Node& m = p_.g.nodes[at(i)];
      const Axes& own = r_.axes[at(i)];
      if (std::find(own.begin(), own.end(), looked) == own.end()) continue;
      GroupKind kind;
      uint32_t reduced;
      if (reduces(i) && reduction_shape(i, own, kind, reduced)) continue;
      if (ops::def(m.op).kind != OpKind::pointwise) return false;
      for (size_t k = 0; k < m.in.size(); ++k) {
        const int32_t v = m.in[k];
        if (v < 0 || p_.value_class(v) != ValueClass::memory) continue;
        if (maker(v) == gi) {
          todo.push_back(p_.values_node(p_.root(v)));
          continue;
        }
        const ops::Layout& l = p_.layout(v);
        for (int d = 0; d < l.sizes.rank(); ++d)
          loads = loads || (l.sizes[d] != 1 && l.strides[d] != 0 &&
                            r_.axes[at(i)][at(walked_axis(p_.g, m, static_cast<int>(k), d))] == looked);
      }
    }
    return loads;
  }

  /// The axes of operand `k` lie at `in`: node `n` must walk the same.
  bool constrain(const Node& n, int k, const Axes& in, Axes& axes) const {
    const int rank = p_.g.type(n.in[at(k)]).sizes.rank();
    for (int d = 0; d < rank; ++d) {
      if (in[at(d)] < 0) continue;
      int8_t& a = axes[at(walked_axis(p_.g, n, k, d))];
      if (a >= 0 && a != in[at(d)]) return false;
      a = in[at(d)];
    }
    return true;
  }

  bool reduced_in_order(int32_t i, const Axes& axes) const {
    if (planted(PlantedBug::reduction_order)) return true;
    int last = -1;
    for (const int64_t a : reduced_axes(p_.g, p_.g.nodes[at(i)])) {
      const int s = axes[static_cast<size_t>(a)];
      if (s < 0) continue;
      if (s < last) return false;
      last = s;
    }
    return true;
  }

  // --- Merging ---

  bool better_behind_product(int gi) const {
    return host_ && takes_product_on(p_, r_.groups[at(gi)], reads_[at(gi)]);
  }

  bool product(int g) const { return g >= 0 && r_.groups[at(g)].kind == GroupKind::product; }
  /// Whether a pointwise group that could run now would keep several products waiting for another one.
  bool keeps_waiting(int g, int other) const {
    if (r_.groups[at(g)].kind != GroupKind::pointwise || !product(other) || !order_.open(other) ||
        order_.after(g, other))
      return false;
    int waiting = 0;
    for (const int32_t v : reads_[at(g)]) {
      const auto inside = [&](int32_t user) { return r_.group_of[at(user)] == g; };
      const auto& users = p_.users[at(v)];
      waiting += product(maker(v)) && std::all_of(users.begin(), users.end(), inside);
    }
    return waiting >= (host_ ? kMaxWaitingHost : kMaxWaiting);
  }
  /// The same if it were one with `second`, which reads its results.
  bool keeps_waiting_with(int first, int second) const {
    const auto waits = [&](int32_t v) { return maker(v) >= 0 && keeps_waiting(first, maker(v)); };
    const auto& reads = reads_[at(second)];
    return order_.after(second, first) && std::any_of(reads.begin(), reads.end(), waits);
  }

  /// Whether `copies` is nothing but values computed again (Node::again) for a product, from what `original`
  /// makes.
  bool copies_of(int copies, int original) const {
    const auto copy = [&](int32_t i) { return p_.g.nodes[at(i)].again; };
    const auto made = [&](int32_t v) { return maker(v) == original; };
    const auto for_product = [&](int32_t i) {
      const auto& users = p_.users[at(p_.g.nodes[at(i)].out[0])];
      return std::any_of(users.begin(), users.end(), [&](int32_t u) { return product(r_.group_of[at(u)]); });
    };
    const auto &nodes = r_.groups[at(copies)].nodes, &reads = reads_[at(copies)];
    return std::all_of(nodes.begin(), nodes.end(), copy) && std::any_of(reads.begin(), reads.end(), made) &&
           std::any_of(nodes.begin(), nodes.end(), for_product);
  }

  /// Merges `b` into `a` or the other way round if that is possible; returns the group that `a` is then in.
  /// `sigma`: what is known of how b's axes lie in a's space.
  int merge(int a, int b, Axes sigma) {
    const int asked = a;
    if (!alive(a) || !alive(b) || !open(a) || !open(b)) return asked;
    const Group* ga = &group(a);
    const Group* gb = &group(b);
    if (ga->nodes.size() + gb->nodes.size() > kMaxNodes) return asked;
    if (reads_[at(a)].size() + reads_[at(b)].size() > kMaxReads) return asked;
    const bool b_leads = gb->space.rank() > ga->space.rank() ||
                         (gb->space.rank() == ga->space.rank() && gb->reduced != 0 && ga->reduced == 0);
    if (b_leads) {
      Axes back = kNoAxes;
      for (int d = 0; d < gb->space.rank(); ++d)
        if (sigma[at(d)] >= 0) back[at(sigma[at(d)])] = static_cast<int8_t>(d);
      sigma = back;
      std::swap(a, b);
      std::swap(ga, gb);
    }
    if ((ga->kind == GroupKind::column && better_behind_product(b)) ||
        (gb->kind == GroupKind::column && better_behind_product(a)))
      return asked;
    if (keeps_waiting_with(a, b) || keeps_waiting_with(b, a)) return asked;
    if (copies_of(a, b) || copies_of(b, a)) return asked;
    if (!related_axes(p_, r_, a, b, sigma) || !embeds(*ga, *gb, sigma)) return asked;
    if (order_.would_wait(a, b) || !full_walk_allowed(a, b, sigma)) return asked;
    absorb(a, b, sigma);
    return a;
  }

  /// Completes `sigma`: b's space is a's, or a's kept axes.
  bool embeds(const Group& a, const Group& b, Axes& sigma) const {
    bool full = false;
    if (!complete_axes(a, b.space, sigma, full)) return false;
    if (!full) return b.reduced == 0 && !b.ordered;
    uint32_t reduced = 0;
    int last = -1;
    bool same_order = true, in_order = true;
    for (int d = 0; d < b.space.rank(); ++d) {
      if (sigma[at(d)] != d) same_order = false;
      if (!(b.reduced >> d & 1)) continue;
      reduced |= 1u << sigma[at(d)];
      in_order = in_order && sigma[at(d)] > last;
      last = sigma[at(d)];
    }
    if (b.reduced != 0 && !(reduced == a.reduced && a.kind == b.kind && in_order)) return false;
    return !b.ordered || (same_order && a.kind != GroupKind::column && trailing(a.reduced, a.space.rank()));
  }

  /// A kernel that walks once: no full-level node of the merged group may wait for a reduction.
  bool full_walk_allowed(int a, int b, const Axes& sigma) {
    const Group& ga = group(a);
    if (!walks_once(ga, host_)) return true;
    std::vector<int32_t> nodes = ga.nodes;
    nodes.insert(nodes.end(), group(b).nodes.begin(), group(b).nodes.end());
    std::sort(nodes.begin(), nodes.end());
    std::vector<char> late(nodes.size(), 0);
    for (size_t x = 0; x < nodes.size(); ++x) {
      const int32_t i = nodes[x];
      bool after = false;
      for (const int32_t v : p_.g.nodes[at(i)].in) {
        const int from = maker(v);
        if (from != a && from != b) continue;
        const int32_t m = p_.values_node(p_.root(v));
        after = after ||
                late[static_cast<size_t>(std::lower_bound(nodes.begin(), nodes.end(), m) - nodes.begin())];
      }
      bool full = false;
      for (int8_t axis : r_.axes[at(i)]) {
        if (axis >= 0 && r_.group_of[at(i)] == b) axis = sigma[at(axis)];
        full = full || (axis >= 0 && (ga.reduced >> axis & 1));
      }
      if (full && after) return false;
      late[x] = after || reduces(i);
    }
    for (size_t x = 0; x < nodes.size(); ++x) after_[at(nodes[x])] = late[x];
    return true;
  }

  void absorb(int a, int b, const Axes& sigma) {
    Group& ga = group(a);
    Group& gb = group(b);
    for (const int32_t i : gb.nodes) {
      r_.group_of[at(i)] = a;
      for (int8_t& x : r_.axes[at(i)])
        if (x >= 0) x = sigma[at(x)];
    }
    ga.nodes.insert(ga.nodes.end(), gb.nodes.begin(), gb.nodes.end());
    ga.ordered = ga.ordered || gb.ordered;
    ga.may_fail = ga.may_fail || gb.may_fail;
    ga.unchecked = ga.unchecked || gb.unchecked;
    gb.nodes.clear();
    auto& reads = reads_[at(a)];
    for (const int32_t v : reads_[at(b)])
      if (std::find(reads.begin(), reads.end(), v) == reads.end()) reads.push_back(v);
    std::erase_if(reads, [&](int32_t v) { return maker(v) == a; });
    reads_[at(b)].clear();
    order_.merge(a, b);
  }

  void merge_producers() {
    for (int g = order_.first_open(); g < static_cast<int>(r_.groups.size()); ++g) {
      if (!alive(g) || !open(g)) continue;
      const std::vector<int32_t> reads = reads_[at(g)];
      int home = g;
      for (const int32_t v : reads) {
        const int from = maker(v);
        if (from >= 0 && from != home) home = merge(home, from, kNoAxes);
      }
    }
  }

  /// Groups that walk the same memory in the same way share its loads.
  void merge_readers() {
    for (const auto& users : p_.users) {
      int32_t first = -1;
      for (const int32_t i : users) {
        const int g = r_.group_of[at(i)];
        if (g < 0 || !open(g)) continue;
        if (first < 0) {
          first = i;
          continue;
        }
        const int other = r_.group_of[at(first)];
        Axes sigma;
        if (other != g && same_walk(p_, r_, first, i, sigma)) merge(other, g, sigma);
        first = i;
      }
    }
  }

  Grouping finish() {
    std::vector<int32_t> order;
    for (int g = 0; g < static_cast<int>(r_.groups.size()); ++g) {
      if (!alive(g)) continue;
      std::sort(group(g).nodes.begin(), group(g).nodes.end());
      group(g).may_stop |= host_ && group(g).unchecked && group(g).checked_by < 0;
      order.push_back(g);
    }
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return group(a).nodes[0] < group(b).nodes[0]; });
    std::vector<Group> groups;
    for (const int32_t g : order) {
      for (const int32_t i : group(g).nodes) r_.group_of[at(i)] = static_cast<int32_t>(groups.size());
      groups.push_back(std::move(group(g)));
    }
    r_.groups = std::move(groups);
    return std::move(r_);
  }

  const Prepared& p_;
  const bool fuse_, host_;
  Grouping r_;
  GroupOrder order_;
  std::vector<std::vector<int32_t>> reads_;  // per group: the roots that it reads from memory
  std::vector<char> after_;                  // per node: it waits for a reduction of its own group, or is one
  CheckedIndices checks_;
};

}  // namespace

Grouping group(const Prepared& p, bool fuse, bool host) { return Grouper(p, fuse, host).run(); }

}  // namespace tandem::jit
