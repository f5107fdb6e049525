// A column kernel goes to the first kernel that makes or reads what it reads, if the two can be one
// (across_walks.h) and none waits for the other by a way around. What the host stored for nobody else is not
// stored any more.
#include "tandem/jit/across.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "tandem/jit/across_walks.h"
#include "tandem/jit/entries.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

namespace {

constexpr size_t at(int64_t i) { return static_cast<size_t>(i); }
constexpr int64_t kFewestRows = 512;  // fewer are no walk worth saving on the host
constexpr int64_t kLarge = 1 << 20;   // elements of a column kernel that is walked by rows for its own sake
constexpr size_t kMostHosts = 8;
constexpr size_t kMostSeen = 4096;  // units, when looking for what waits for what

class ColumnAttacher {
 public:
  ColumnAttacher(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping, bool host)
      : p_(p), g_(grouping), units_(units), on_host_(host), entries_(units, &Unit::columns, kMostSeen) {}

  void run() {
    for (size_t u = 0; u < units_.size(); ++u) {
      if (!may_host(units_[u])) continue;
      for (const Slot& s : units_[u].lowered.slots) {
        auto& list = (s.store ? makers_ : readers_)[s.value];
        if (list.empty() || list.back() != static_cast<int32_t>(u)) list.push_back(static_cast<int32_t>(u));
      }
    }
    bool any = false;
    std::vector<int32_t> alone;
    for (size_t u = 0; u < units_.size(); ++u) {
      if (!may_join(units_[u])) continue;
      if (find_host(static_cast<int32_t>(u)))
        any = true;
      else if (on_host_ && units_[u].lowered.range * units_[u].lowered.work >= kLarge)
        alone.push_back(static_cast<int32_t>(u));
    }
    for (const int32_t u : alone) any = walk_alone(u) || any;
    if (any) finish();
  }

 private:
  const Group* group(const Unit& u) const { return u.group < 0 ? nullptr : &g_.groups[at(u.group)]; }

  static bool plain_loads(const Kernel& k) {
    return std::none_of(k.loads.begin(), k.loads.end(), [](const Load& l) { return l.index >= 0; });
  }

  bool may_host(const Unit& u) const {
    const Group* g = group(u);
    const LoweredKernel& l = u.lowered;
    if (!g || !(g->kind == GroupKind::pointwise || g->kind == GroupKind::row)) return false;
    return l.kernel.reduced_rank <= 1 && !l.kernel.side_by_side && plain_loads(l.kernel) &&
           l.range * l.work >= fewest_rows_ * 2;
  }

  bool may_join(const Unit& u) const {
    const Group* g = group(u);
    const LoweredKernel& l = u.lowered;
    const Kernel& k = l.kernel;
    if (!g || g->kind != GroupKind::column || g->may_fail || k.kept_rank != 1 || l.range < 2) return false;
    if (l.work < fewest_rows_ || !plain_loads(k)) return false;
    for (const Reduction& r : k.reductions)
      if (r.op == ReduceOp::argmax || r.op == ReduceOp::argmin) return false;
    return true;
  }

  /// What it stores into an input at once, a host may read there in another order.
  bool writes_inputs(const LoweredKernel& l) const {
    for (size_t s = 0; s < l.kernel.stores.size(); ++s) {
      const Slot& slot = l.slots[l.kernel.loads.size() + s];
      if (!l.kernel.stores[s].row_level && slot.destination >= 0 &&
          !p_.destinations[at(slot.value)][at(slot.destination)].output)
        return true;
    }
    return false;
  }

  // --- Which host ---

  bool find_host(int32_t u) {
    std::vector<int32_t> hosts;
    const LoweredKernel& k = units_[at(u)].lowered;
    if (writes_inputs(k)) return false;
    for (const auto* map : {&makers_, &readers_})
      for (size_t l = 0; l < k.kernel.loads.size(); ++l) {
        const auto it = map->find(k.slots[l].value);
        if (k.kernel.loads[l].row_level || it == map->end()) continue;
        for (const int32_t h : it->second)
          if (hosts.size() < kMostHosts && std::find(hosts.begin(), hosts.end(), h) == hosts.end())
            hosts.push_back(h);
      }
    for (const int32_t h : hosts) {
      MergedWalks merged;
      if (waits_for_columns(u, h) || !merge_walks(units_[at(h)].lowered, k, merged) || !runs(merged.host) ||
          entries_.waits_besides(u, h) || entries_.waits(h, u))
        continue;
      attach(u, h, std::move(merged));
      return true;
    }
    return false;
  }

  bool walk_alone(int32_t u) {
    MergedWalks merged;
    if (!walk_by_rows(units_[at(u)].lowered, merged)) return false;
    const auto joining = static_cast<int32_t>(units_.size());
    units_.push_back({.group = units_[at(u)].group, .position = units_[at(u)].position});
    attach(joining, u, std::move(merged));
    return true;
  }

  bool runs(const LoweredKernel& l) const { return on_host_ || cuda_takes_across(l.kernel, l.range, l.work); }

  /// Kernels that join come last in their entry.
  bool waits_for_columns(int32_t u, int32_t h) const {
    const auto& before = units_[at(u)].before;
    return std::any_of(before.begin(), before.end(),
                       [&](int32_t b) { return b != h && entries_.of(b) == h; });
  }

  void attach(int32_t u, int32_t h, MergedWalks merged) {
    Unit& host = units_[at(h)];
    host.lowered = std::move(merged.host);
    units_[at(u)].lowered = std::move(merged.joining);
    units_[at(u)].text = to_string(units_[at(u)].lowered.kernel);
    // Equal kernels are neighbours, so that one launch can have their calls.
    const auto later = [&](int32_t a, int32_t b) { return units_[at(a)].text < units_[at(b)].text; };
    host.columns.insert(std::upper_bound(host.columns.begin(), host.columns.end(), u, later), u);
    entries_.put(u, h);
    drop_stores(h);
    for (const Slot& s : host.lowered.slots) {
      auto& list = (s.store ? makers_ : readers_)[s.value];
      if (std::find(list.begin(), list.end(), h) == list.end()) list.push_back(h);
    }
  }

  /// What was stored only for kernels that are now the host's need not be.
  void drop_stores(int32_t h) {
    LoweredKernel& l = units_[at(h)].lowered;
    const size_t loads = l.kernel.loads.size();
    for (size_t s = l.kernel.stores.size(); s-- > 0;) {
      const Slot& slot = l.slots[loads + s];
      if (slot.destination >= 0 || !p_.destinations[at(slot.value)].empty()) continue;
      const auto& users = p_.users[at(slot.value)];
      const bool inside = std::all_of(users.begin(), users.end(), [&](int32_t n) {
        const int32_t g = g_.group_of[at(n)];
        return g >= 0 && entries_.of(g) == h;  // units begin with those of the groups
      });
      if (!inside) continue;
      drop_store(l, s);
    }
  }

  void finish() {
    for (size_t i = 0; i < units_.size(); ++i) {
      if (entries_.is_member(static_cast<int32_t>(i))) continue;
      Unit& u = units_[i];
      for (const int32_t b : u.before) u.behind_columns |= entries_.is_member(b);
      for (const int32_t c : u.columns)
        for (const int32_t b : units_[at(c)].before) u.behind_columns |= entries_.is_member(b);
    }
    entries_.finish();
    for (Unit& u : units_)
      if (!u.columns.empty()) u.text = to_string(u.lowered.kernel);
  }

  const Prepared& p_;
  const Grouping& g_;
  std::vector<Unit>& units_;
  const bool on_host_;
  const int64_t fewest_rows_ = on_host_ ? kFewestRows : kColumnBlock;
  EntriesOfUnits entries_;  // in which a kernel does the walks of others
  std::unordered_map<int32_t, std::vector<int32_t>> makers_, readers_;  // by root: hosts
};

}  // namespace

void attach_columns(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping, bool host) {
  ColumnAttacher(p, units, grouping, host).run();
}

}  // namespace tandem::jit
