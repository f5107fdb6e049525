#include "tandem/jit/placement.h"

#include <algorithm>

#include "tandem/jit/in_place.h"
#include "tandem/jit/planted_bugs.h"

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

class Placer {
 public:
  Placer(const Prepared& p, const Grouping& grouping) : p_(p), g_(grouping) {}

  Placement run() {
    r_.homes.resize(p_.g.values.size());
    make_units();
    place_writes();
    place_values();
    return std::move(r_);
  }

 private:
  const Group& group(int32_t i) const { return g_.groups[at(i)]; }
  int32_t group_of_value(int32_t root) const { return g_.group_of[at(p_.values_node(root))]; }

  void make_units() {
    r_.units.resize(g_.groups.size());
    for (size_t i = 0; i < r_.units.size(); ++i) {
      Unit& u = r_.units[i];
      u.group = static_cast<int32_t>(i);
      u.position = g_.groups[i].nodes[0];
      for (const int32_t n : g_.groups[i].nodes)
        for (const int32_t v : p_.g.nodes[at(n)].in)
          if (v >= 0 && p_.value_class(v) == ValueClass::memory)
            add_before(r_.units, u, group_of_value(p_.root(v)));
      if (const int32_t c = g_.groups[i].checked_by; c >= 0) add_before(r_.units, u, g_.group_of[at(c)]);
      if (g_.groups[i].may_stop) stopping_.push_back(static_cast<int32_t>(i));
    }
  }

  // --- Writes ---

  struct DirectWrite {
    int32_t value, destination, unit;
    std::vector<std::pair<int32_t, int32_t>> edges = {};  // (earlier, later)
    std::vector<int32_t> way = {};                        // values before it that lie in the input, too
  };

  void place_writes() {
    direct_.assign(p_.g.values.size(), -1);
    on_the_way_.assign(p_.g.values.size(), -1);
    std::vector<DirectWrite> wishes;
    for (const Write& w : p_.g.writes) {
      const auto& list = p_.destinations[at(w.value)];
      for (size_t k = 0; k < list.size(); ++k) {
        if (list[k].output || list[k].index != w.input) continue;
        DirectWrite wish{w.value, static_cast<int32_t>(k), group_of_value(w.value)};
        if (direct_[at(w.value)] < 0 && may_write(wish, w.input)) {
          direct_[at(w.value)] = wish.destination;
          wishes.push_back(std::move(wish));
        }
      }
    }
    if (wishes.empty()) return;
    take(wishes);
    for (const DirectWrite& w : wishes)
      if (direct_[at(w.value)] == w.destination)
        for (const int32_t v : w.way)
          on_the_way_[at(v)] = p_.destinations[at(w.value)][at(w.destination)].index;
  }

  /// All of them, or those that do not wait for one another.
  void take(const std::vector<DirectWrite>& wishes) {
    const std::vector<Unit> units = r_.units;
    for (const DirectWrite& w : wishes)
      for (const auto& [earlier, later] : w.edges) add_before(r_.units, r_.units[at(later)], earlier);
    if (!circular()) return;
    // Some would wait for themselves: take them one by one.
    r_.units = units;
    for (const DirectWrite& w : wishes) {
      const bool harmless = std::none_of(w.edges.begin(), w.edges.end(), [&](const auto& e) {
        return runs_after(r_.units, e.first, e.second);
      });
      if (!harmless) {
        direct_[at(w.value)] = -1;
        continue;
      }
      // Edges of one write may close a circle together, too.
      const std::vector<Unit> saved = w.edges.size() > 1 ? r_.units : std::vector<Unit>();
      for (const auto& [earlier, later] : w.edges) add_before(r_.units, r_.units[at(later)], earlier);
      if (w.edges.size() > 1 && circular()) {
        r_.units = saved;
        direct_[at(w.value)] = -1;
      }
    }
  }

  /// Whether the value may come to lie in the input at once, and what must then be in order.
  bool may_write(DirectWrite& w, int32_t input) const {
    const Layout& target = p_.layout(p_.g.inputs[at(input)].value);
    const bool whole = is_contiguous(target.sizes, target.strides);
    if (whole && changes_parts(w, p_.g.inputs[at(input)].value)) return true;
    const Group& g = group(w.unit);
    return !g.may_fail && !g.may_stop && (g.is_kernel() || whole) && may_store(w, input);
  }

  /// By natives that one after another change parts of the input (which look at their indices before they
  /// write).
  bool changes_parts(DirectWrite& w, int32_t old) const {
    std::vector<int32_t> way;
    std::vector<std::pair<int32_t, int32_t>> edges;
    for (int32_t v = w.value; v != old;) {
      const int32_t unit = group_of_value(v);
      const std::vector<int32_t> bases = changed_roots(p_, p_.values_node(v));
      if (bases.empty() || p_.destinations[at(v)].size() != (v == w.value)) return false;
      const int32_t base = std::find(bases.begin(), bases.end(), old) != bases.end() ? old : bases[0];
      for (const int32_t n : p_.users[at(base)])
        if (const int32_t reader = g_.group_of[at(n)]; reader >= 0 && reader != unit)
          edges.emplace_back(reader, unit);
      for (const int32_t s : stopping_)
        if (s != unit) edges.emplace_back(s, unit);
      if (v != w.value) way.push_back(v);
      v = base;
    }
    w.way = std::move(way);
    w.edges = std::move(edges);
    return true;
  }

  /// Whether the unit that computes the value may store it into the input at once.
  bool may_store(DirectWrite& w, int32_t input) const {
    const int32_t old = p_.g.inputs[at(input)].value;
    const Group& g = group(w.unit);
    for (const int32_t n : p_.users[at(old)]) {
      const int32_t reader = g_.group_of[at(n)];
      if (reader < 0) continue;
      if (reader != w.unit) {
        if (!planted(PlantedBug::write_before_read)) w.edges.emplace_back(reader, w.unit);
        continue;
      }
      if (!g.is_kernel()) return false;
      const SpaceStrides store = store_strides(p_, g_, {w.value, w.destination});
      const Node& node = p_.g.nodes[at(n)];
      for (size_t k = 0; k < node.in.size(); ++k) {
        const int32_t v = node.in[k];
        if (v < 0 || p_.value_class(v) != ValueClass::memory || p_.root(v) != old) continue;
        if (p_.layout(v).offset != 0 || read_strides(p_, g_, n, static_cast<int>(k)) != store) return false;
      }
    }
    for (const int32_t s : stopping_) w.edges.emplace_back(s, w.unit);
    return true;
  }

  bool circular() const {
    std::vector<int32_t> waiting(r_.units.size(), 0);
    std::vector<std::vector<int32_t>> after(r_.units.size());
    for (size_t u = 0; u < r_.units.size(); ++u) {
      waiting[u] = static_cast<int32_t>(r_.units[u].before.size());
      for (const int32_t b : r_.units[u].before) after[at(b)].push_back(static_cast<int32_t>(u));
    }
    std::vector<int32_t> ready;
    for (size_t u = 0; u < r_.units.size(); ++u)
      if (waiting[u] == 0) ready.push_back(static_cast<int32_t>(u));
    size_t done = 0;
    for (; !ready.empty(); ++done) {
      const int32_t u = ready.back();
      ready.pop_back();
      for (const int32_t a : after[at(u)])
        if (--waiting[at(a)] == 0) ready.push_back(a);
    }
    return done != r_.units.size();
  }

  // --- Homes and stores ---

  void place_values() {
    r_.stores.resize(g_.groups.size());
    for (size_t gi = 0; gi < g_.groups.size(); ++gi)
      for (const int32_t n : g_.groups[gi].nodes)
        for (const int32_t v : p_.g.nodes[at(n)].out) place_value(v, static_cast<int32_t>(gi));
    for (size_t i = g_.groups.size(); i < r_.units.size(); ++i)
      for (const int32_t s : stopping_) add_before(r_.units, r_.units[i], s);
  }

  void place_value(int32_t v, int32_t gi) {
    Home& home = r_.homes[at(v)];
    const bool kernel = group(gi).is_kernel();
    bool needed = !kernel;
    for (const int32_t n : p_.users[at(v)]) needed = needed || g_.group_of[at(n)] != gi;
    const auto& list = p_.destinations[at(v)];
    std::vector<int32_t> copies;
    for (size_t k = 0; k < list.size(); ++k) {
      const auto d = static_cast<int32_t>(k);
      if (list[k].output) {
        if (home.base == Base::none) home = {Base::output, list[k].index, -1};
        if (kernel) r_.stores[at(gi)].push_back({v, d});
      } else if (direct_[at(v)] == d) {
        const Layout& target = p_.layout(p_.g.inputs[at(list[k].index)].value);
        if (home.base == Base::none && is_contiguous(target.sizes, target.strides))
          home = {Base::input, list[k].index, -1};
        if (kernel) r_.stores[at(gi)].push_back({v, d});
      } else {
        copies.push_back(d);
        needed = true;
      }
    }
    if (on_the_way_[at(v)] >= 0) home = {Base::input, on_the_way_[at(v)], -1};
    if (needed && home.base == Base::none) {
      if (p_.parts[at(v)].whole < 0) home = {Base::arena, 0, -1};
      if (kernel) r_.stores[at(gi)].push_back({v, -1});
    }
    for (const int32_t d : copies) {
      Unit u;
      u.copy = {v, d};
      u.position = static_cast<int32_t>(p_.g.nodes.size());
      u.before.push_back(gi);
      for (const int32_t n : p_.users[at(p_.g.inputs[at(list[at(d)].index)].value)])
        if (g_.group_of[at(n)] >= 0 && g_.group_of[at(n)] != gi) u.before.push_back(g_.group_of[at(n)]);
      r_.units.push_back(std::move(u));
    }
  }

  const Prepared& p_;
  const Grouping& g_;
  std::vector<int32_t> stopping_;  // groups that may end the run: no input is written before they are done
  std::vector<int32_t>
      direct_;  // per value: the destination among its inputs that it is stored to at once, or -1
  std::vector<int32_t> on_the_way_;  // per value: the input that it lies in until it is changed, or -1
  Placement r_;
};

}  // namespace

Placement place(const Prepared& p, const Grouping& grouping) { return Placer(p, grouping).run(); }

void add_before(std::vector<Unit>& units, Unit& u, int32_t other) {
  if (other < 0 || &units[at(other)] == &u) return;
  if (std::find(u.before.begin(), u.before.end(), other) == u.before.end()) u.before.push_back(other);
}

bool runs_after(const std::vector<Unit>& units, int32_t a, int32_t b) {
  return reaches({a}, b, units.size(), [&](int32_t u, auto f) {
    for (const int32_t x : units[at(u)].before) f(x);
  });
}

int32_t notable_node(const Prepared& p, const Group& g) {
  if (g.may_fail)
    for (const int32_t n : g.nodes) {
      const OpKind k = ops::def(p.g.nodes[at(n)].op).kind;
      if (k == OpKind::gather || k == OpKind::scatter) return n;
    }
  return g.nodes[0];
}

}  // namespace tandem::jit
