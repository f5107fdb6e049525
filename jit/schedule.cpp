// Joining kernels that are alike saves launches, but the operands of the first wait for the last. So the peak
// is looked at: a joined entry behind it, some of whose members could have run before, is cut in two if what
// these keep waiting is a good part of the peak.
#include "tandem/jit/schedule.h"

#include <queue>
#include <tuple>
#include <utility>

#include "tandem/core/error.h"
#include "tandem/jit/in_place.h"

namespace tandem::jit {

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr int kMostCuts = 6;
constexpr int64_t kWorthACut = 32;  // of the peak

class Scheduler {
 public:
  Scheduler(const Prepared& p, const Grouping& grouping, Placement& placed, bool lend)
      : p_(p), g_(grouping), lend_(lend), units_(placed.units), homes_(placed.homes) {}

  Schedule run() {
    arrange();
    for (int cuts = 0; cuts < kMostCuts && cut_at_peak(); ++cuts) arrange();
    lay_out();
    return std::move(r_);
  }

 private:
  void arrange() {
    order_units();
    find_blocks();
  }

  /// What several joined kernels store to outputs (clipped gradients) lies there from the start only if that
  /// is less: until then the outputs' memory could be lent.
  void lay_out() {
    const std::vector<ArenaBlock> blocks = blocks_;
    lay_out(true);
    if (moved_by_joined_.empty()) return;
    const Schedule with = r_;
    blocks_ = blocks;
    lay_out(false);
    if (with.arena_bytes > r_.arena_bytes) return;
    r_.blocks = with.blocks;
    r_.arena_bytes = with.arena_bytes;
  }

  void lay_out(bool joined) {
    std::vector<LentMemory> lent;
    if (lend_) lent = outputs_before_use();
    move_to_outputs(moved_, lent);
    if (joined) move_to_outputs(moved_by_joined_, lent);
    r_.blocks = blocks_;
    r_.arena_bytes = place_blocks(r_.blocks, lent);
  }

  const Group& group(int32_t i) const { return g_.groups[at(i)]; }
  bool is_kernel(const Unit& u) const { return u.group < 0 || group(u.group).is_kernel(); }
  const Unit& unit_at(int32_t e) const { return units_[at(r_.order[at(e)])]; }
  int32_t size() const { return static_cast<int32_t>(r_.order.size()); }

  // --- Order ---

  /// Units close to program order; but what puts nothing into the arena (a weight's gradient, an update) runs
  /// as soon as it can, since it may be the last that needs something there.
  void order_units() {
    r_.order.clear();
    std::vector<int32_t> waiting(units_.size(), 0);
    std::vector<std::vector<int32_t>> after(units_.size());
    using Ready = std::tuple<bool, int32_t, int32_t>;  // it needs memory, position, unit
    std::priority_queue<Ready, std::vector<Ready>, std::greater<>> ready;
    const auto add = [&](int32_t u) {
      ready.emplace(needs_memory(units_[at(u)]), units_[at(u)].position, u);
    };
    size_t total = 0;
    for (size_t i = 0; i < units_.size(); ++i) {
      const Unit& u = units_[i];
      if (u.alike.empty()) continue;
      ++total;
      waiting[i] = static_cast<int32_t>(u.before.size());
      for (const int32_t b : u.before) after[at(b)].push_back(static_cast<int32_t>(i));
      if (u.before.empty()) add(static_cast<int32_t>(i));
    }
    while (!ready.empty()) {
      const int32_t u = std::get<2>(ready.top());
      ready.pop();
      r_.order.push_back(u);
      for (const int32_t a : after[at(u)])
        if (--waiting[at(a)] == 0) add(a);
    }
    TANDEM_INTERNAL(r_.order.size() == total, "groups wait for each other");
  }

  bool needs_memory(const Unit& u) const {
    if (u.group >= 0 && p_.absorbed[at(group(u.group).nodes[0])]) return false;
    bool needs = false;
    for (const int32_t m : members(u))
      for_results(units_[at(m)],
                  [&](int32_t v) { needs = needs || homes_[at(whole(v))].base == Base::arena; });
    return needs;
  }

  // --- Lifetimes ---

  void find_blocks() {
    blocks_.clear();
    readers_.clear();
    taken_.clear();
    moved_.clear();
    moved_by_joined_.clear();
    for (Home& h : homes_)
      if (h.base == Base::arena) h.block = -1;
    const auto reads = [&](int32_t v, int32_t e) {
      const Home& h = homes_[at(whole(v))];
      if (h.base != Base::arena || h.block < 0) return;
      ArenaBlock& b = blocks_[at(h.block)];
      if (e > b.last) readers_[at(h.block)] = b.last;
      b.last = std::max(b.last, e);
    };
    for (int32_t e = 0; e < size(); ++e)
      for (const int32_t m : members(unit_at(e))) {
        const Unit& u = units_[at(m)];
        for_results(u, [&](int32_t result) {
          const int32_t v = whole(result);
          Home& h = homes_[at(v)];
          if (h.base != Base::arena) return;
          if (h.block >= 0) return reads(v, e);
          h.block = static_cast<int32_t>(blocks_.size());
          const TensorType& t = p_.g.type(v);
          blocks_.push_back({checked_mul(numel(t.sizes), itemsize(t.dtype), "arena"), e, e, -1, 0});
          readers_.push_back(e);
        });
        for_operands(u, [&](int32_t root) { reads(root, e); });
      }
    taken_.assign(blocks_.size(), 0);
    for (int32_t e = 0; e < size(); ++e) {
      const Unit& u = unit_at(e);
      if (u.tails.empty() && u.alike.size() == 1) {
        take_over(u, e, read_beside(u, u.alike[0]));
      } else if (u.tails.empty()) {
        const std::vector<int32_t> shared = read_by_several(u);
        for (const int32_t m : u.alike) take_over(units_[at(m)], e, shared, true);
      }
      for (const int32_t t : u.tails) take_over(units_[at(t)], e, read_beside(u, t));
    }
  }

  /// What more than one of the kernels that are alike read: none of them may store there.
  std::vector<int32_t> read_by_several(const Unit& u) const {
    std::vector<int32_t> roots, several;
    for (const int32_t m : u.alike) {
      std::vector<int32_t> own;
      for_operands(units_[at(m)], [&](int32_t root) { own.push_back(whole(root)); });
      std::sort(own.begin(), own.end());
      roots.insert(roots.end(), own.begin(), std::unique(own.begin(), own.end()));
    }
    std::sort(roots.begin(), roots.end());
    for (size_t i = 1; i < roots.size(); ++i)
      if (roots[i] == roots[i - 1]) several.push_back(roots[i]);
    return several;
  }

  /// What the entry of `u` reads beside its member `one`: other blocks of rows, or what joins them, may still
  /// read it when that one stores.
  std::vector<int32_t> read_beside(const Unit& u, int32_t one) const {
    std::vector<int32_t> roots;
    for (const int32_t m : members(u))
      if (m != one) for_operands(units_[at(m)], [&](int32_t root) { roots.push_back(whole(root)); });
    return roots;
  }

  /// The value in whose memory `v` lies.
  int32_t whole(int32_t v) const { return p_.parts[at(v)].whole >= 0 ? p_.parts[at(v)].whole : v; }

  template <class F>
  void for_results(const Unit& u, F f) const {
    if (is_kernel(u)) {
      for (const Slot& s : u.lowered.slots)
        if (s.store && s.destination < 0) f(s.value);
      return;
    }
    for (const int32_t n : group(u.group).nodes)
      for (const int32_t v : p_.g.nodes[at(n)].out) f(v);
  }
  template <class F>
  void for_operands(const Unit& u, F f) const {
    if (is_kernel(u)) {
      for (const Slot& s : u.lowered.slots)
        if (!s.store) f(s.value);
      return;
    }
    for (const int32_t n : group(u.group).nodes)
      for (const int32_t v : p_.g.nodes[at(n)].in)
        if (v >= 0 && p_.value_class(v) == ValueClass::memory) f(p_.root(v));
  }

  /// A result takes the memory of an operand that dies in its kernel, if both are walked alike: kernels store
  /// in their last pass, after all they read of an element. Where the result is an output the operand lives
  /// there from the start.
  void take_over(const Unit& u, int32_t e, const std::vector<int32_t>& beside, bool joined = false) {
    if (!is_kernel(u)) return take_over_changed(u, e);
    const auto& slots = u.lowered.slots;
    const size_t loads = u.lowered.kernel.loads.size();
    const size_t rank = u.lowered.dims.size();
    std::vector<size_t> start;  // of each slot's strides
    size_t next = 0;
    for (size_t s = 0; s < slots.size(); ++s) {
      start.push_back(next);
      next += rank + (s < loads && u.lowered.kernel.loads[s].index >= 0 ? 2 : 0);
    }
    const auto& strides = u.lowered.strides;
    for (size_t s = loads; s < slots.size(); ++s) {
      const Home& h = homes_[at(slots[s].value)];
      const bool in_arena = slots[s].destination < 0 && h.base == Base::arena;
      const int32_t output = lend_ && slots[s].offset == 0 ? output_of(slots[s]) : -1;
      if (in_arena ? blocks_[at(h.block)].takes_over >= 0 : output < 0) continue;
      const int64_t wanted = in_arena ? blocks_[at(h.block)].bytes : bytes(slots[s].value);
      int32_t taken = -1;  // of several the one that lived longest
      for (size_t l = 0; l < loads; ++l) {
        const Home& dying = homes_[at(slots[l].value)];
        if (dying.base != Base::arena || blocks_[at(dying.block)].last != e ||
            blocks_[at(dying.block)].bytes != wanted)
          continue;
        bool good = dying.block != h.block && !taken_[at(dying.block)] &&
                    std::find(beside.begin(), beside.end(), slots[l].value) == beside.end();
        for (size_t x = 0; x < loads && good; ++x) {
          if (whole(slots[x].value) != slots[l].value) continue;
          good = slots[x].value == slots[l].value && slots[x].offset == 0 &&
                 u.lowered.kernel.loads[x].index < 0 &&
                 std::equal(&strides[start[x]], &strides[start[x]] + rank, &strides[start[s]]);
        }
        const bool same_size =
            itemsize(p_.g.type(slots[l].value).dtype) == itemsize(p_.g.type(slots[s].value).dtype);
        if (good && same_size && (taken < 0 || dying.block < taken)) taken = dying.block;
      }
      if (taken < 0) continue;
      taken_[at(taken)] = 1;
      if (in_arena)
        blocks_[at(h.block)].takes_over = taken;
      else
        (joined ? moved_by_joined_ : moved_).emplace_back(taken, output);
    }
  }

  /// A native that changes a part of a value which dies in it does so there.
  void take_over_changed(const Unit& u, int32_t e) {
    if (u.group < 0 || group(u.group).kind != GroupKind::native) return;
    const int32_t node = group(u.group).nodes[0], result = p_.g.nodes[at(node)].out[0];
    const Home& h = homes_[at(result)];
    const bool in_arena = h.base == Base::arena && h.block >= 0;
    if (in_arena ? blocks_[at(h.block)].takes_over >= 0 : !lend_ || h.base != Base::output) return;
    for (const int32_t root : changed_roots(p_, node)) {
      const Home& dying = homes_[at(root)];
      if (dying.base != Base::arena || dying.block < 0 || dying.block == h.block ||
          blocks_[at(dying.block)].last != e || taken_[at(dying.block)] ||
          blocks_[at(dying.block)].bytes != bytes(result))
        continue;
      taken_[at(dying.block)] = 1;
      if (in_arena)
        blocks_[at(h.block)].takes_over = dying.block;
      else
        moved_.emplace_back(dying.block, h.index);
      return;
    }
  }

  int64_t bytes(int32_t v) const {
    const TensorType& t = p_.g.type(v);
    return checked_mul(numel(t.sizes), itemsize(t.dtype), "bytes of a value");
  }

  /// The output that a store goes to, -1 for none. Nothing else is ever stored there, and nobody reads it
  /// before.
  int32_t output_of(const Slot& s) const {
    if (s.destination < 0) return -1;
    const Destination& d = p_.destinations[at(s.value)][at(s.destination)];
    return d.output ? d.index : -1;
  }

  /// Blocks whose memory goes on in an output, and those that they go on from, leave the arena.
  void move_to_outputs(const std::vector<std::pair<int32_t, int32_t>>& moved, std::vector<LentMemory>& lent) {
    for (const auto& [last, output] : moved)
      for (int32_t b = last; b >= 0; b = blocks_[at(b)].takes_over) {
        blocks_[at(b)].output = output;
        for (LentMemory& l : lent)
          if (l.output == output) l.until = std::min(l.until, blocks_[at(b)].first);
      }
  }

  /// The memory of outputs, until something is stored there.
  std::vector<LentMemory> outputs_before_use() const {
    std::vector<LentMemory> lent;
    std::vector<char> seen(p_.g.outputs.size(), 0);
    const auto stored = [&](int32_t output, int32_t v, int32_t e) {
      if (!std::exchange(seen[at(output)], 1)) lent.push_back({bytes(v), e, output});
    };
    for (int32_t e = 0; e < size(); ++e)
      for (const int32_t m : members(unit_at(e))) {
        const Unit& u = units_[at(m)];
        for_results(u, [&](int32_t v) {
          const Home& h = homes_[at(whole(v))];
          if (h.base == Base::output) stored(h.index, whole(v), e);
        });
        if (!is_kernel(u)) continue;
        for (const Slot& s : u.lowered.slots)
          if (const int32_t output = s.store ? output_of(s) : -1; output >= 0) stored(output, s.value, e);
      }
    return lent;
  }

  // --- Cuts ---

  /// Cuts one joined entry; false if none is worth it.
  bool cut_at_peak() {
    std::vector<int64_t> live(at(size()) + 1, 0);
    for (const ArenaBlock& b : blocks_) {
      // Of two blocks of the same memory one counts where both live.
      live[at(b.first + (b.takes_over >= 0))] += b.bytes;
      live[at(b.last) + 1] -= b.bytes;
    }
    int64_t now = 0, peak = 0;
    int32_t top = 0;
    for (int32_t e = 0; e < size(); ++e)
      if ((now += live[at(e)]) > peak) peak = now, top = e;
    std::vector<int32_t> entry(units_.size(), -1);
    for (int32_t e = 0; e < size(); ++e) entry[at(r_.order[at(e)])] = e;
    int64_t most = peak / kWorthACut;
    int32_t best = -1;
    std::vector<int32_t> early;
    for (int32_t e = top + 1; e < size(); ++e) {
      const Unit& u = unit_at(e);
      if (u.alike.size() < 2) continue;
      std::vector<int32_t> ready;
      int64_t waiting = 0;
      for (const int32_t m : u.alike) {
        const auto& before = units_[at(m)].own_before;
        if (!std::all_of(before.begin(), before.end(), [&](int32_t b) { return entry[at(b)] < top; }))
          continue;
        ready.push_back(m);
        for_operands(units_[at(m)], [&](int32_t v) {
          const Home& h = homes_[at(whole(v))];
          if (h.base != Base::arena) return;
          const ArenaBlock& b = blocks_[at(h.block)];
          if (b.last == e && b.first < top && readers_[at(h.block)] < top) waiting += b.bytes;
        });
      }
      if (ready.size() == u.alike.size() || waiting <= most) continue;
      most = waiting;
      best = r_.order[at(e)];
      early = std::move(ready);
    }
    if (best >= 0) cut(best, early);
    return best >= 0;
  }

  /// Those in `early` become an entry of their own; what waited for the whole waits for both.
  void cut(int32_t unit, const std::vector<int32_t>& early) {
    std::vector<int32_t> parts[2];
    for (const int32_t m : units_[at(unit)].alike)
      parts[std::find(early.begin(), early.end(), m) == early.end()].push_back(m);
    for (const auto& part : parts) {
      Unit& host = units_[at(part[0])];
      host.alike = part;
      std::vector<int32_t> before;
      for (const int32_t m : part)
        for (const int32_t b : units_[at(m)].own_before)
          if (std::find(before.begin(), before.end(), b) == before.end()) before.push_back(b);
      host.before = std::move(before);
    }
    const int32_t other = parts[parts[0][0] == unit][0];
    for (Unit& u : units_)
      for (std::vector<int32_t>* list : {&u.before, &u.own_before})
        if (std::find(list->begin(), list->end(), unit) != list->end()) list->push_back(other);
  }

  const Prepared& p_;
  const Grouping& g_;
  const bool lend_;
  std::vector<Unit>& units_;
  std::vector<Home>& homes_;
  std::vector<ArenaBlock> blocks_;
  std::vector<int32_t> readers_;  // per block: its last but one reader, or maker
  std::vector<char> taken_;       // per block: its memory goes on in another
  std::vector<std::pair<int32_t, int32_t>> moved_, moved_by_joined_;  // blocks whose memory is that output
  Schedule r_;
};

}  // namespace

Schedule schedule(const Prepared& p, const Grouping& grouping, Placement& placed, bool lend) {
  return Scheduler(p, grouping, placed, lend).run();
}

}  // namespace tandem::jit
