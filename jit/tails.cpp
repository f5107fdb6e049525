// A kernel joins the chain behind a product if every value of the chain that it reads is read row by row:
// index t of its range touches nothing but row t / (range / rows), wherever in the row. Nothing else that it
// waits for may wait for the product, nor keep the product's operands waiting if they are large. What it
// stores row by row, a later kernel of the chain may read.
#include "tandem/jit/tails.h"

#include <algorithm>
#include <utility>

#include "tandem/jit/non_temporal.h"
#include "tandem/jit/schedule.h"

namespace tandem::jit {

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr int64_t kWorthWaiting = int64_t{4} << 20;  // bytes of operands that wait; fewer stay in caches

/// One slot of a lowered kernel.
struct Access {
  const Slot* slot;
  const int64_t* strides;                // kept, then reduced
  int64_t extent = 1, index_stride = 0;  // of an indexed load
};

template <class F>
void for_accesses(const LoweredKernel& k, F f) {
  const int64_t* strides = k.strides.data();
  for (size_t s = 0; s < k.slots.size(); ++s) {
    Access a{&k.slots[s], strides};
    strides += k.dims.size();
    if (s < k.kernel.loads.size() && k.kernel.loads[s].index >= 0) {
      a.extent = strides[0];
      a.index_stride = strides[1];
      strides += 2;
    }
    f(a);
  }
}

/// Whether the access, of memory with `rows` rows of `width` elements, stays in row t / (range / rows).
bool row_by_row(const LoweredKernel& k, const Access& a, int64_t rows, int64_t width) {
  if (a.slot->offset < 0 || a.index_stride < 0) return false;
  int64_t rest = rows, reach = a.slot->offset + (a.extent - 1) * a.index_stride;
  int64_t below = rows;  // rows that one step of the dimension moves
  for (size_t d = 0; d < k.dims.size(); ++d) {
    int64_t size = k.dims[d];
    const int64_t stride = a.strides[d];
    if (stride < 0) return false;
    if (static_cast<int>(d) < k.kernel.kept_rank && rest > 1) {
      const int64_t outer = std::min(size, rest);
      if (size % outer != 0 || rest % outer != 0) return false;
      size /= outer;
      rest /= outer;
      below /= outer;
      if (outer > 1 && stride * size != below * width) return false;
    }
    reach += (size - 1) * stride;
  }
  return rest == 1 && reach < width;
}

class TailAttacher {
 public:
  TailAttacher(const Prepared& p, const Grouping& grouping, std::vector<Unit>& units)
      : p_(p), g_(grouping), units_(units) {
    for (size_t u = 0; u < units.size(); ++u)
      for (const int32_t m : members(units[u]))
        if (units[at(m)].group >= 0) {
          if (unit_of_.size() < g_.groups.size()) unit_of_.resize(g_.groups.size(), -1);
          unit_of_[at(units[at(m)].group)] = static_cast<int32_t>(u);
        }
  }

  void run() {
    // The last first: what needs several products follows the one that the others need not wait for.
    for (size_t u = units_.size(); u-- > 0;) {
      const Unit& unit = units_[u];
      if (unit.group >= 0 && g_.groups[at(unit.group)].kind == GroupKind::product)
        follow(static_cast<int32_t>(u));
    }
  }

 private:
  const Group* group(const Unit& u) const { return u.group < 0 ? nullptr : &g_.groups[at(u.group)]; }

  void follow(int32_t product) {
    const int32_t node = group(units_[at(product)])->nodes[0];
    const Node& n = p_.g.nodes[at(node)];
    if (p_.parts[at(n.out[0])].whole >= 0) return;
    Contraction c;
    contraction_of(p_, n, c);
    rows_ = rows_of(c);
    single_ = rows_ == c.call.m;
    if (rows_ == 0) return;
    values_ = {n.out[0]};
    read_.clear();
    for (const int32_t v : n.in)
      if (v >= 0 && p_.value_class(v) == ValueClass::memory) read_.push_back(p_.root(v));
    may_fail_ = writes_ = false;
    for (size_t i = 0; i < values_.size(); ++i)
      for (const int32_t user : p_.users[at(values_[i])]) {
        const int32_t g = g_.group_of[at(user)];
        if (g < 0 || unit_of_[at(g)] == product) continue;
        if (const int32_t u = unit_of_[at(g)]; fits(product, u)) attach(product, u);
      }
  }

  bool in_chain(int32_t value, int32_t product) const {
    const int32_t g = g_.group_of[at(p_.values_node(value))];
    return g >= 0 && unit_of_[at(g)] == product;
  }

  bool fits(int32_t product, int32_t u) const {
    const Unit& unit = units_[at(u)];
    const Group* g = group(unit);
    if (!g || unit.alike.size() != 1 || (unit.behind_columns && !units_[at(product)].columns.empty()) ||
        !(g->kind == GroupKind::pointwise || g->kind == GroupKind::row))
      return false;
    const LoweredKernel& k = unit.lowered;
    if (k.range == 0 || k.range % rows_ != 0 || (g->may_fail && writes_)) return false;
    if (!unit.columns.empty() && (!single_ || k.range != rows_)) return false;
    bool good = true, writes = false;
    for_accesses(k, [&](const Access& a) {
      const int32_t v = a.slot->value;
      if (!a.slot->store) {
        if (!in_chain(v, product)) return;
        good = good && std::find(values_.begin(), values_.end(), v) != values_.end() &&
               row_by_row(k, a, rows_, numel(p_.g.type(v).sizes) / rows_);
      } else if (a.slot->destination >= 0) {
        const Destination& d = p_.destinations[at(v)][at(a.slot->destination)];
        if (d.output) return;
        writes = true;
        const int32_t old = p_.g.inputs[at(d.index)].value;
        good = good && std::find(read_.begin(), read_.end(), old) == read_.end();
      }
    });
    if (!good || (writes && (may_fail_ || g->may_fail))) return false;
    for (const int32_t b : unit.before)
      if (b != product && runs_after(units_, b, product)) return false;
    return !waits_long(product, unit);
  }

  /// Whether the product would keep more operands waiting for what else the kernel needs (an update that
  /// waits for another part of the gradient) than it is worth to have its result in the cache.
  bool waits_long(int32_t product, const Unit& unit) const {
    const Node& n = p_.g.nodes[at(group(units_[at(product)])->nodes[0])];
    int32_t awaited = -1;
    for (const int32_t b : unit.before) awaited = std::max(awaited, units_[at(b)].position);
    if (awaited <= units_[at(product)].position) return false;
    int64_t kept = 0;
    for (const int32_t v : n.in) {
      if (v < 0 || p_.value_class(v) != ValueClass::memory || p_.input_of(p_.root(v)) >= 0) continue;
      const std::vector<int32_t>& users = p_.users[at(p_.root(v))];
      const TensorType& t = p_.g.type(p_.root(v));
      if (users.back() < awaited && p_.destinations[at(p_.root(v))].empty())
        kept = checked_add(kept, numel(t.sizes) * itemsize(t.dtype), "bytes of operands");
    }
    const TensorType& result = p_.g.type(n.out[0]);
    return kept > std::max(kWorthWaiting, numel(result.sizes) * itemsize(result.dtype));
  }

  void attach(int32_t product, int32_t u) {
    Unit& host = units_[at(product)];
    Unit& unit = units_[at(u)];
    for_accesses(unit.lowered, [&](const Access& a) {
      const int32_t v = a.slot->value;
      if (!a.slot->store) {
        if (!in_chain(v, product)) read_.push_back(v);
        return;
      }
      const int64_t n = numel(p_.g.type(v).sizes);
      const bool input = a.slot->destination >= 0 && !p_.destinations[at(v)][at(a.slot->destination)].output;
      writes_ = writes_ || input;
      if (!input && n % rows_ == 0 && row_by_row(unit.lowered, a, rows_, n / rows_)) values_.push_back(v);
    });
    may_fail_ = may_fail_ || group(unit)->may_fail;
    host.tails.push_back(u);
    unit.alike.clear();
    clear_large(unit.lowered);
    unit.text = to_string(unit.lowered.kernel);
    unit_of_[at(unit.group)] = product;
    take_columns(product, u);
    for (const int32_t b : unit.before)
      if (b != product) add_before(units_, host, b);
    for (Unit& other : units_)
      for (std::vector<int32_t>* list : {&other.before, &other.own_before}) {
        const auto it = std::find(list->begin(), list->end(), u);
        if (it == list->end()) continue;
        list->erase(it);
        if (&other != &host && std::find(list->begin(), list->end(), product) == list->end())
          list->push_back(product);
      }
  }

  /// What joins the tail's results of blocks of rows does it at the end of the product's entry.
  void take_columns(int32_t product, int32_t u) {
    Unit& host = units_[at(product)];
    Unit& unit = units_[at(u)];
    for (int64_t& at : unit.lowered.partials) at += host.lowered.scratch;
    for (const int32_t m : unit.columns) {
      Unit& column = units_[at(m)];
      for (int64_t& at : column.lowered.partials) at += host.lowered.scratch;
      for (const Slot& s : column.lowered.slots)
        if (!s.store) read_.push_back(s.value);
      unit_of_[at(column.group)] = product;
      host.columns.push_back(m);
    }
    host.lowered.scratch += std::exchange(unit.lowered.scratch, 0);
    unit.columns.clear();
  }

  const Prepared& p_;
  const Grouping& g_;
  std::vector<Unit>& units_;
  std::vector<int32_t> unit_of_;  // per group: the unit in whose entry it runs
  // Of the chain being made:
  int64_t rows_ = 0;
  bool single_ = false;          // of one matrix
  std::vector<int32_t> values_;  // its results that lie row by row
  std::vector<int32_t> read_;    // what it reads from before it
  bool may_fail_ = false, writes_ = false;
};

}  // namespace

int64_t rows_of(const Contraction& c) {
  const ops::ProductCall& s = c.call;
  const bool own = c.provider == ops::Provider::tiles || c.provider == ops::Provider::dots;
  if (!own || (s.dtype != DType::float32 && s.dtype != DType::float64)) return 0;
  return numel(c.outer) * s.batch * s.m;
}

void attach_tails(const Prepared& p, const Grouping& grouping, std::vector<Unit>& units) {
  TailAttacher(p, grouping, units).run();
}

}  // namespace tandem::jit
