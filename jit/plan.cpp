// The second half of planning: groups are lowered; alike kernels that do not depend on each other become one
// unit; units are ordered close to program order; the arena is laid out; addresses are written down.
#include "tandem/jit/plan.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/jit/across.h"
#include "tandem/jit/chains.h"
#include "tandem/jit/non_temporal.h"
#include "tandem/jit/planted_bugs.h"
#include "tandem/jit/schedule.h"
#include "tandem/jit/side_by_side.h"
#include "tandem/jit/tails.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr int64_t kSmallResult = 4096;  // bytes that a merged kernel may keep waiting
constexpr int64_t kFilled = 4096;       // of all results, what a kernel that loads nothing may make early

class Planner {
 public:
  Planner(const Prepared& p, const Grouping& grouping, bool join, bool host, int64_t non_temporal_nbytes)
      : p_(p),
        g_(grouping),
        join_(join),
        host_(host),
        non_temporal_nbytes_(non_temporal_nbytes),
        placed_(place(p, grouping)),
        units_(placed_.units),
        homes_(placed_.homes) {}

  Plan build() {
    fill_constants();
    lower_units();
    plan_.groups = static_cast<int32_t>(units_.size());
    if (join_) attach_columns(p_, units_, g_, host_);
    if (join_) join_alike();
    if (join_ && host_) attach_tails(p_, g_, units_);
    if (join_ && !host_) attach_chains(p_, units_, g_);
    schedule_ = schedule(p_, g_, placed_, host_);
    scratch_ = (schedule_.arena_bytes + 63) / 64 * 64;
    plan_.arena_bytes = schedule_.arena_bytes;
    for (const int32_t u : schedule_.order) emit(u);
    count_bytes();
    return std::move(plan_);
  }

 private:
  const Group& group(int32_t i) const { return g_.groups[at(i)]; }
  bool is_kernel(const Unit& u) const { return u.group < 0 || group(u.group).is_kernel(); }

  void fill_constants() {
    for (size_t i = 0; i < p_.g.nodes.size(); ++i) {
      if (!p_.constant[i]) continue;
      const int32_t v = p_.g.nodes[i].out[0];
      const TensorType& t = p_.g.type(v);
      const size_t first = plan_.constants.size();
      homes_[at(v)] = {Base::constant, static_cast<int32_t>(first), -1};
      plan_.constants.resize(first +
                             static_cast<size_t>(numel(t.sizes) * itemsize(t.dtype) + 63) / sizeof(Line));
      const LoweredKernel k = lower_constant(p_, static_cast<int32_t>(i));
      if (k.range == 0) continue;
      std::vector<void*> buffers;
      for (const Slot& s : k.slots)
        buffers.push_back(reinterpret_cast<char*>(plan_.constants.data() + homes_[at(s.value)].index) +
                          s.offset * itemsize(p_.g.type(s.value).dtype));
      int64_t error = 0;
      Evaluator(k.kernel).run({buffers.data(), k.dims.data(), k.strides.data(), nullptr, 0, k.range, &error});
    }
  }

  void lower_units() {
    for (size_t i = 0; i < units_.size(); ++i) {
      Unit& u = units_[i];
      u.alike = {static_cast<int32_t>(i)};
      if (!is_kernel(u)) continue;
      u.lowered = u.group < 0 ? lower_copy(p_, u.copy) : lower(p_, g_, u.group, placed_.stores[at(u.group)]);
      TANDEM_INTERNAL(
          u.lowered.kernel.buffers <= kMaxKernelBuffers && u.lowered.kernel.numbers <= kMaxKernelNumbers,
          "a kernel with too many operands");
      if (host_) mark_side_by_side(u.lowered, p_);
      mark_large(u.lowered, p_, non_temporal_nbytes_);
      u.text = to_string(u.lowered.kernel);
    }
  }

  // --- Horizontal groups ---
  // Large results are made together only by kernels that can run at any time (casts of weights), and only if
  // all of them live at the time of the last anyway, as they do where the gradient reads them again.

  void join_alike() {
    if (units_.size() < 2) return;
    std::vector<char> awaited(units_.size(), 0);
    for (const Unit& u : units_)
      for (const int32_t b : u.before) awaited[at(b)] = 1;
    int64_t all = 0;
    for (const Unit& u : units_)
      if (__builtin_add_overflow(all, result_bytes(u), &all)) all = INT64_MAX;
    const int64_t fill_limit = std::max(kSmallResult, all / kFilled);
    std::unordered_map<std::string_view, int32_t> first;
    std::vector<int32_t> renamed(units_.size());
    std::iota(renamed.begin(), renamed.end(), 0);
    for (size_t i = 0; i < units_.size(); ++i) {
      Unit& u = units_[i];
      if (!is_kernel(u) || u.lowered.range == 0 || (u.group >= 0 && group(u.group).may_fail)) continue;
      if (u.alike.empty() || !u.columns.empty()) continue;
      const bool filled = u.before.empty() && u.lowered.kernel.loads.empty();
      const bool large = awaited[i] && result_bytes(u) > (filled ? fill_limit : kSmallResult);
      if (large && !u.before.empty()) continue;
      const auto [it, fresh] = first.try_emplace(u.text, static_cast<int32_t>(i));
      if (fresh) continue;
      const int32_t other = it->second;
      Unit& o = units_[at(other)];
      const auto mine = static_cast<int32_t>(i);
      if (large && std::any_of(o.alike.begin(), o.alike.end(), [&](int32_t m) {
            return result_bytes(units_[at(m)]) > kSmallResult && last_reader(units_[at(m)]) < u.position;
          })) {
        it->second = mine;
        continue;
      }
      if ((awaited[i] && depends_joined(other, mine, renamed)) ||
          (awaited[at(other)] && depends_joined(mine, other, renamed))) {
        it->second = mine;  // later ones may still join this one
        continue;
      }
      if (o.alike.size() == 1) o.own_before = o.before;
      o.alike.push_back(mine);
      u.alike.clear();
      u.own_before = u.before;
      for (const int32_t b : u.before) add_before(units_, o, b);
      renamed[i] = other;
      awaited[at(other)] = awaited[at(other)] || awaited[i];
    }
    for (Unit& u : units_)
      for (std::vector<int32_t>* list : {&u.before, &u.own_before}) {
        for (int32_t& b : *list) b = renamed[at(b)];
        std::sort(list->begin(), list->end());
        list->erase(std::unique(list->begin(), list->end()), list->end());
      }
  }

  bool depends_joined(int32_t a, int32_t b, const std::vector<int32_t>& renamed) const {
    return reaches({a}, b, units_.size(), [&](int32_t u, auto f) {
      for (const int32_t x : units_[at(u)].before) f(renamed[at(x)]);
    });
  }

  /// The position from which on some large result of a kernel is not needed any more.
  int32_t last_reader(const Unit& u) const {
    int32_t first_dead = u.position;
    bool any = false;
    for (const Slot& s : u.lowered.slots) {
      if (!s.store || s.destination >= 0) continue;
      const auto& users = p_.users[at(s.value)];
      const int32_t last = users.empty() ? u.position : users.back();
      first_dead = any ? std::min(first_dead, last) : last;
      any = true;
    }
    return first_dead;
  }

  int64_t result_bytes(const Unit& u) const {
    int64_t bytes = 0;
    for (const Slot& s : u.lowered.slots)  // parts of one whole are waited for together
      if (s.store && p_.parts[at(s.value)].whole < 0)
        bytes = checked_add(bytes, this->bytes(s.value), "bytes of a kernel's results");
    return bytes;
  }

  // --- Entries ---

  Address address(int32_t root, int64_t offset, int32_t destination = -1) const {
    if (const Part& part = p_.parts[at(root)]; part.whole >= 0)
      return address(part.whole, offset + part.layout.offset);
    const int64_t bytes = offset * itemsize(p_.g.type(root).dtype);
    if (const int32_t i = p_.input_of(root); i >= 0) return {Base::input, i, bytes};
    if (destination >= 0) {
      const Destination& d = p_.destinations[at(root)][at(destination)];
      return {d.output ? Base::output : Base::input, d.index, bytes};
    }
    const Home& h = homes_[at(root)];
    if (h.base == Base::arena) {
      const ArenaBlock& b = schedule_.blocks[at(h.block)];
      if (b.output >= 0) return {Base::output, b.output, b.offset + bytes};
      return {Base::arena, 0, b.offset + bytes};
    }
    if (h.base == Base::constant) return {h.base, 0, h.index * static_cast<int64_t>(sizeof(Line)) + bytes};
    TANDEM_INTERNAL(h.base != Base::none, "a value without memory is read");
    return {h.base, h.index, bytes};
  }
  Address operand_address(int32_t v) const {
    if (v < 0 || p_.value_class(v) != ValueClass::memory) return {};
    return address(p_.root(v), p_.layout(v).offset);
  }

  void emit(int32_t unit) {
    const Unit& u = units_[at(unit)];
    if (u.group >= 0 && p_.absorbed[at(group(u.group).nodes[0])]) return note_absorbed(u.group);
    Entry e;
    note_ = note_of(u);
    if (u.group >= 0) {
      const Node& n = p_.g.nodes[at(notable_node(p_, group(u.group)))];
      e.may_fail = group(u.group).may_fail;
      e.op = ops::def(n.op).name;
      e.where = n.where;
    } else {
      e.op = "copy";
    }
    e.name = e.op;
    if (is_kernel(u)) {
      if (!emit_kernel(u, e)) return;
    } else if (group(u.group).kind == GroupKind::product) {
      emit_product(u, e);
      emit_tails(u, e);
    } else {
      emit_native(u, e);
    }
    emit_joins(u, e);
    for (const int32_t m : members(u))
      if (units_[at(m)].group >= 0) entry_of_[units_[at(m)].group] = plan_.entries.size();
    plan_.entries.push_back(std::move(e));
    plan_.notes.push_back(std::move(note_));
  }

  /// What does its work names it, too.
  void note_absorbed(int32_t g) {
    const int32_t node = group(g).nodes[0];
    const int32_t maker = g_.group_of[at(p_.values_node(p_.root(p_.g.nodes[at(node)].in[0])))];
    const size_t entry = entry_of_.at(maker);
    entry_of_[g] = entry;
    plan_.notes[entry].nodes.push_back(node);
  }

  EntryNote note_of(const Unit& u) const {
    EntryNote note;
    for (const int32_t m : members(u)) {
      const Unit& member = units_[at(m)];
      const bool joins_own_walk = &member != &u && member.group == u.group;  // of the same nodes
      if (member.group >= 0) {
        const std::vector<int32_t>& nodes = group(member.group).nodes;
        if (!joins_own_walk) note.nodes.insert(note.nodes.end(), nodes.begin(), nodes.end());
      } else {
        const int32_t v = member.copy.value;
        note.copies.emplace_back(v, p_.destinations[at(v)][at(member.copy.destination)]);
      }
      note.bytes_read += member.lowered.bytes - member.lowered.bytes_stored;
      note.bytes_written += member.lowered.bytes_stored;
      if (m != u.alike[0] && !u.tails.empty()) note.bytes_read -= read_from_chain(u, member);
    }
    return note;
  }

  /// Bytes that a kernel behind a product loads of what its own entry has just made.
  int64_t read_from_chain(const Unit& u, const Unit& tail) const {
    int64_t bytes = 0;
    const auto made = [&](int32_t v) {
      const int32_t g = g_.group_of[at(p_.values_node(v))];
      return g >= 0 && (g == u.group || std::find(u.tails.begin(), u.tails.end(), g) != u.tails.end());
    };
    for (size_t l = 0; l < tail.lowered.load_bytes.size(); ++l)
      if (made(tail.lowered.slots[l].value)) bytes += tail.lowered.load_bytes[l];
    return bytes;
  }

  bool emit_kernel(const Unit& u, Entry& e) {
    e.kind = EntryKind::kernel;
    e.name = u.lowered.kernel.name;
    e.first = static_cast<int32_t>(plan_.calls.size());
    for (const int32_t m : u.alike) {
      const LoweredKernel& k = units_[at(m)].lowered;
      if (k.range == 0) continue;
      add_call(k, e.work);
      e.work += plan_.calls.back().range * plan_.calls.back().work;
    }
    e.count = static_cast<int32_t>(plan_.calls.size()) - e.first;
    if (e.count == 0) return false;
    e.index = kernel_id(u);
    return true;
  }

  void add_call(const LoweredKernel& k, int64_t start) {
    KernelCall c;
    c.buffers = static_cast<int32_t>(plan_.buffers.size());
    for (const Slot& s : k.slots) plan_.buffers.push_back(address(s.value, s.offset, s.destination));
    for (const int64_t at : k.partials) plan_.buffers.push_back({Base::arena, 0, scratch_ + at});
    c.numbers = static_cast<int32_t>(plan_.numbers.size());
    for (const int32_t v : k.numbers) plan_.numbers.push_back(number_word(v));
    if (planted(PlantedBug::numbers_swapped))
      std::reverse(plan_.numbers.begin() + c.numbers, plan_.numbers.end());
    c.dims = static_cast<int32_t>(plan_.words.size());
    plan_.words.insert(plan_.words.end(), k.dims.begin(), k.dims.end());
    c.strides = static_cast<int32_t>(plan_.words.size());
    plan_.words.insert(plan_.words.end(), k.strides.begin(), k.strides.end());
    c.range = k.range;
    c.work = std::max<int64_t>(1, k.work);
    c.start = start;
    plan_.calls.push_back(c);
  }

  int32_t kernel_id(const Unit& u) {
    const auto [it, fresh] = kernel_ids_.try_emplace(u.text, static_cast<int32_t>(plan_.kernels.size()));
    if (fresh) {
      plan_.kernels.push_back(u.lowered.kernel);
      plan_.kernel_texts.push_back(u.text);
    }
    return it->second;
  }

  void emit_tails(const Unit& u, Entry& e) {
    const int64_t rows = rows_of(plan_.products.back().shape);
    e.first = static_cast<int32_t>(plan_.tails.size());
    e.count = static_cast<int32_t>(u.tails.size());
    for (const int32_t m : u.tails) {
      const Unit& tail = units_[at(m)];
      add_call(tail.lowered, 0);
      plan_.tails.push_back(
          {kernel_id(tail), static_cast<int32_t>(plan_.calls.size()) - 1, tail.lowered.range / rows});
      e.name += '+' + tail.lowered.kernel.name;
      note_failure(e, tail);
    }
  }

  void note_failure(Entry& e, const Unit& u) const {
    if (u.group < 0 || !group(u.group).may_fail) return;
    const Node& n = p_.g.nodes[at(notable_node(p_, group(u.group)))];
    e.may_fail = true;
    e.op = ops::def(n.op).name;
    e.where = n.where;
  }

  void emit_joins(const Unit& u, Entry& e) {
    e.chain = !u.chain.empty();
    const std::vector<int32_t>& joins = e.chain ? u.chain : u.columns;
    e.first_join = static_cast<int32_t>(plan_.joins.size());
    e.joins = static_cast<int32_t>(joins.size());
    if (u.lowered.scratch > 0) plan_.arena_bytes = std::max(plan_.arena_bytes, scratch_ + u.lowered.scratch);
    for (const int32_t m : joins) {
      const Unit& c = units_[at(m)];
      add_call(c.lowered, 0);
      plan_.joins.push_back({kernel_id(c), static_cast<int32_t>(plan_.calls.size()) - 1});
      e.name += '+' + c.lowered.kernel.name;
      note_failure(e, c);
    }
  }

  void note_bytes(const Node& n) {
    for (const int32_t v : n.in)
      if (v >= 0 && p_.value_class(v) == ValueClass::memory) note_.bytes_read += bytes(v);
    for (const int32_t v : n.out) note_.bytes_written += bytes(v);
  }
  int64_t bytes(int32_t v) const {
    const TensorType& t = p_.g.type(v);
    return checked_mul(numel(t.sizes), itemsize(t.dtype), "bytes of a value");
  }

  void emit_product(const Unit& u, Entry& e) {
    const Node& n = p_.g.nodes[at(group(u.group).nodes[0])];
    note_bytes(n);
    e.kind = EntryKind::product;
    e.index = static_cast<int32_t>(plan_.products.size());
    ProductCallPlan c;
    const Part& part = p_.parts[at(n.out[0])];
    const int awkward = contraction_of(p_, n, c.shape, part.whole >= 0 ? &part.layout : nullptr);
    TANDEM_INTERNAL(awkward < 0, "a product's operand was not made ready");
    c.a = operand_address(n.in[0]);
    c.b = operand_address(n.in[1]);
    if (n.in.size() > 2) c.bias = operand_address(n.in[2]);
    c.c = address(n.out[0], 0);
    plan_.products.push_back(c);
  }

  NumberWord number_word(int32_t v) const {
    const Node& n = p_.g.node_of(v);
    return n.leaf == Leaf::number ? NumberWord{n.index, 0} : NumberWord{-1, n.bits};
  }

  void emit_native(const Unit& u, Entry& e) {
    const Node& n = p_.g.nodes[at(group(u.group).nodes[0])];
    note_bytes(n);
    e.kind = EntryKind::native;
    e.index = static_cast<int32_t>(plan_.natives.size());
    NativeCallPlan c;
    c.op = &ops::def(n.op);
    c.words = n.words;
    const bool library = by_library(n) || c.op->kind == ops::OpKind::convolution;
    for (const int32_t v : n.in) {
      if (library && v >= 0 && p_.g.type(v).number) {
        c.numbers.push_back(number_word(v));
        continue;
      }
      c.in.push_back(operand_address(v));
      c.in_types.push_back(v < 0 ? TensorType{} : p_.g.type(v));
      if (library) c.in_strides.push_back(v < 0 ? Dims{} : p_.layout(v).strides);
    }
    for (const int32_t v : n.out) {
      c.out.push_back(address(v, 0));
      c.out_types.push_back(p_.g.type(v));
    }
    c.own_layout = n.in.size() > 1 && n.in[1] >= 0 && p_.form(n.in[1]) == Form::weight;
    if (n.op == OpId::cat) note_runs(n, c);
    if (!c.in.empty() && c.in[0] == c.out[0] && c.op->kind == ops::OpKind::scatter)
      note_.bytes_read -= bytes(n.in[0]), note_.bytes_written = bytes(n.in[2]);
    plan_.natives.push_back(std::move(c));
  }

  /// How the operands of a join lie; those that lie where it has them are not moved.
  void note_runs(const Node& n, NativeCallPlan& c) {
    const ops::AxisSplit to = ops::split_axis(c.out_types[0].sizes, n.words[0]);
    Address place = c.out[0];
    note_.bytes_read = note_.bytes_written = 0;
    for (size_t i = 0; i < c.in.size(); ++i) {
      const ops::AxisSplit from = ops::split_axis(c.in_types[i].sizes, n.words[0]);
      const Layout& l = p_.layout(n.in[i]);
      c.steps.push_back((is_contiguous(l.sizes, l.strides) ? from.size : to.size) * to.inner);
      if (!(c.in[i] == place)) {
        note_.bytes_read += bytes(n.in[i]);
        note_.bytes_written += numel(c.in_types[i].sizes) * itemsize(c.out_types[0].dtype);
      }
      place.offset += from.size * to.inner * itemsize(c.out_types[0].dtype);
    }
  }

  /// What the entries move; and what one kernel per op would.
  void count_bytes() {
    const auto count = [](int64_t& total, int64_t n) {  // up to the most that it holds
      if (__builtin_add_overflow(total, n, &total)) total = INT64_MAX;
    };
    for (const EntryNote& n : plan_.notes) {
      count(plan_.bytes_moved, n.bytes_read);
      count(plan_.bytes_moved, n.bytes_written);
    }
    for (size_t i = 0; i < p_.g.nodes.size(); ++i) {
      const int32_t gi = g_.group_of[i];
      if (gi < 0) continue;
      for (const int32_t v : p_.g.nodes[i].in)
        if (v >= 0 && p_.value_class(v) == ValueClass::memory) count(plan_.bytes_unfused, bytes(v));
      for (const int32_t v : p_.g.nodes[i].out) count(plan_.bytes_unfused, bytes(v));
    }
  }

  const Prepared& p_;
  const Grouping& g_;
  const bool join_, host_;
  const int64_t non_temporal_nbytes_;
  Placement placed_;
  std::vector<Unit>& units_;
  std::vector<Home>& homes_;
  Schedule schedule_;
  int64_t scratch_ = 0;  // where in the arena an entry's own memory begins: behind all values
  std::unordered_map<std::string, int32_t> kernel_ids_;
  EntryNote note_;                                // of the entry being made
  std::unordered_map<int32_t, size_t> entry_of_;  // per group that has one
  Plan plan_;
};

}  // namespace

Plan build_plan(const Prepared& p, const Grouping& grouping, bool join, bool host,
                int64_t non_temporal_nbytes) {
  return Planner(p, grouping, join, host, non_temporal_nbytes).build();
}

int64_t first_index(const Entry& e, const KernelCall& c, int64_t part, int64_t parts) {
  if (c.range >= parts) {
    const int64_t even = c.range / parts * part + std::min(part, c.range % parts);
    const bool lines = c.work == 1 && part < parts && c.range >= parts * 64 * kLanes;
    return lines ? even / kLanes * kLanes : even;
  }
  const int64_t before = part * e.work / parts - c.start;
  return before <= 0 ? 0 : std::min(c.range, (before + c.work - 1) / c.work);
}

}  // namespace tandem::jit
