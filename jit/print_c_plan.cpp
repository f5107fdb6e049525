// Passes. A reduction's result is known after the walk that accumulates it, so every value has a phase: the
// number of walks that must be done before it can be computed. Pass p computes the values that the reductions
// of phase p need; full-level stores wait for the last walk. A value that an earlier pass computed is
// computed again, unless it took an expensive function: then the topmost such value is kept in a buffer as
// long as the row.
#include "tandem/jit/print_c_plan.h"

#include <algorithm>

namespace tandem::jit {

namespace {

using ops::ScalarNode;
using ops::ScalarOp;

constexpr size_t kMaxBuffered = 4;

size_t at(int32_t i) { return static_cast<size_t>(i); }

class Planner {
 public:
  Planner(const Kernel& k, std::string* why)
      : k_(k), kind_(vectors_of_kept(k) ? KernelKind::column : k.kind), why_(why) {}

  CPlan plan() {
    check();
    if (!why_->empty()) return {};
    const size_t n = at(k_.scalars.size());
    p_.loops.assign(n, 0);
    phase_.assign(n, 0);
    costly_.assign(n, false);
    p_.live.assign(n, false);
    p_.load_used.assign(k_.loads.size(), false);
    for (int32_t i = 0; i < k_.scalars.size(); ++i) classify(i);
    for (const Store& s : k_.stores) {
      if (kind_ != KernelKind::pointwise && s.row_level && inside(s.value))
        *why_ = "a row-level store of a full-level value";
      mark_live(s.value);
    }
    for (const Across& c : k_.across) mark_live(c.input);
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (p_.live[at(i)] && k_.scalars[i].op == ScalarOp::index && kind_ == KernelKind::column)
        *why_ = "the linear index in a column kernel";
    if (!why_->empty()) return {};
    make_passes();
    find_uses();
    return std::move(p_);
  }

 private:
  void check() {
    const auto refuse = [&](const char* text) {
      if (why_->empty()) *why_ = text;
    };
    if (kind_ == KernelKind::row && k_.reduced_rank < 1) refuse("a row kernel without reduced dimensions");
    if (several_reduced() && std::any_of(k_.loads.begin(), k_.loads.end(),
                                         [](const Load& l) { return l.index >= 0 && !l.row_level; }))
      refuse("a row kernel that looks up along several reduced dimensions");
    if (kind_ == KernelKind::column && (k_.kept_rank < 1 || k_.reduced_rank < 1))
      refuse("a column kernel without kept or without reduced dimensions");
    if (kind_ == KernelKind::pointwise && (k_.reduced_rank != 0 || !k_.reductions.empty()))
      refuse("a pointwise kernel with reductions");
    for (const Store& s : k_.stores)
      if (s.dtype != k_.scalars[s.value].type) refuse("a store of another type than its value");
    if (!k_.across.empty() && kind_ != KernelKind::row)
      refuse("reductions over rows in a kernel without rows");
    for (const Reduction& r : k_.reductions) {
      const DType input = k_.scalars[r.input].type;
      const bool finds_index = r.op == ReduceOp::argmax || r.op == ReduceOp::argmin;
      if (finds_index ? r.type != DType::int64 : input != r.type)
        refuse("a reduction in another type than its operand");
      if (input != DType::float32 && input != DType::float64 && input != DType::int64 && !finds_index)
        refuse("a reduction of a narrow type");
    }
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      const ScalarNode& n = k_.scalars[i];
      const auto narrow = [](DType t) { return t == DType::float16 || t == DType::bfloat16; };
      if (narrow(n.type) && n.op != ScalarOp::load && n.op != ScalarOp::cast)
        refuse("arithmetic in a half type");
      for (int j = 0; j < ops::arity(n.op); ++j)
        if (narrow(k_.scalars[n.in[j]].type) && n.op != ScalarOp::cast) refuse("arithmetic on a half type");
      if (n.op == ScalarOp::reduced && k_.reductions[at(static_cast<int32_t>(n.bits))].input >= i)
        refuse("a reduction that is read before its operand");
    }
  }

  bool several_reduced() const { return kind_ == KernelKind::row && k_.reduced_rank > 1; }

  uint8_t access_loops(Inner inner, bool row_level) const {
    const uint8_t lane = inner == Inner::constant ? 0 : kLane;
    switch (kind_) {
      case KernelKind::pointwise:
        return kOuter | lane;
      case KernelKind::row:
        return row_level || (!lane && !several_reduced()) ? kOuter : kOuter | kReduced | kLane;
      case KernelKind::column:
        return static_cast<uint8_t>(kOuter | lane | (row_level ? 0 : kReduced));
    }
    return 0;
  }

  void classify(int32_t i) {
    const ScalarNode& n = k_.scalars[i];
    uint8_t& loops = p_.loops[at(i)];
    const auto join = [&](int32_t in) {
      loops |= p_.loops[at(in)];
      phase_[at(i)] = std::max(phase_[at(i)], phase_[at(in)]);
      if (costly_[at(in)]) costly_[at(i)] = true;
    };
    if (n.op == ScalarOp::load) {
      const Load& l = k_.loads[at(static_cast<int32_t>(n.bits))];
      loops = access_loops(l.inner, l.row_level);
      if (l.index >= 0) join(l.index);
    } else if (n.op == ScalarOp::index) {
      loops = kind_ == KernelKind::pointwise ? kOuter | kLane : kOuter | kReduced | kLane;
    } else if (n.op == ScalarOp::reduced) {
      loops = kind_ == KernelKind::column ? kOuter | kLane : kOuter;
      phase_[at(i)] = phase_[at(k_.reductions[at(static_cast<int32_t>(n.bits))].input)] + 1;
    }
    for (int j = 0; j < ops::arity(n.op); ++j) join(n.in[j]);
    if (is_random(n.op) && ((p_.loops[at(n.in[1])] | p_.loops[at(n.in[2])]) & kLane) && why_->empty())
      *why_ = "random draws whose seed or offset varies";
    if (is_costly(n.op)) costly_[at(i)] = true;
    if (!inside(i)) costly_[at(i)] = false;  // computed once a row: nothing to gain
    // In a row kernel the lanes are the reduced dimension: what depends on one depends on the other.
    if (kind_ == KernelKind::row && (loops & (kReduced | kLane))) loops |= kReduced | kLane;
  }

  bool inside(int32_t node) const {
    return (p_.loops[at(node)] & (kind_ == KernelKind::pointwise ? kLane : kReduced)) != 0;
  }

  void mark_live(int32_t root) {
    std::vector<int32_t> todo = {root};
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (p_.live[at(i)]) continue;
      p_.live[at(i)] = true;
      const ScalarNode& n = k_.scalars[i];
      if (n.op == ScalarOp::load) p_.load_used[at(static_cast<int32_t>(n.bits))] = true;
      if (n.op == ScalarOp::reduced) todo.push_back(k_.reductions[at(static_cast<int32_t>(n.bits))].input);
      for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
    }
  }

  void make_passes() {
    std::vector<bool> reduction_live(k_.reductions.size(), false);
    int last_value = 0, last_walk = -1;
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!p_.live[at(i)]) continue;
      last_value = std::max(last_value, phase_[at(i)]);
      const ScalarNode& n = k_.scalars[i];
      if (n.op == ScalarOp::reduced) {
        reduction_live[at(static_cast<int32_t>(n.bits))] = true;
        last_walk = std::max(last_walk, phase_[at(i)] - 1);
      }
    }
    for (const Store& s : k_.stores)
      if (!s.row_level || kind_ == KernelKind::pointwise)
        last_walk = std::max(last_walk, phase_[at(s.value)]);
    for (const Across& c : k_.across) last_walk = std::max(last_walk, phase_[at(c.input)]);
    p_.passes.resize(at(std::max(last_value, last_walk)) + 1);
    if (!k_.across.empty()) p_.passes[at(last_walk)].across = true;

    for (size_t r = 0; r < k_.reductions.size(); ++r)
      if (reduction_live[r])
        p_.passes[at(phase_[at(k_.reductions[r].input)])].reductions.push_back(static_cast<int32_t>(r));
    for (size_t s = 0; s < k_.stores.size(); ++s) {
      if (k_.stores[s].row_level && kind_ != KernelKind::pointwise) {
        p_.row_stores.push_back(static_cast<int32_t>(s));
      } else {
        p_.passes[at(last_walk)].stores.push_back(static_cast<int32_t>(s));
      }
    }
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!p_.live[at(i)] || inside(i)) continue;
      if (p_.loops[at(i)] == 0) {
        p_.whole.push_back(i);
      } else if (kind_ != KernelKind::row && p_.loops[at(i)] == kOuter) {
        p_.outer.push_back(i);
      } else if (kind_ == KernelKind::row) {
        p_.passes[at(phase_[at(i)])].before.push_back(i);
      }
    }
    computed_.assign(at(k_.scalars.size()), false);
    for (size_t p = 0; p < p_.passes.size(); ++p) fill(p);
    if (kind_ != KernelKind::column) return;
    for (CPass& pass : p_.passes) {
      std::vector<int32_t> roots = pass.nodes;
      for (const int32_t r : pass.reductions) roots.push_back(k_.reductions[at(r)].input);
      for (const int32_t s : pass.stores) roots.push_back(k_.stores[at(s)].value);
      pass.before = column_values(std::move(roots));
    }
    std::vector<int32_t> roots;
    for (const int32_t s : p_.row_stores) roots.push_back(k_.stores[at(s)].value);
    p_.row_values = column_values(std::move(roots));
  }

  // The vectors outside the walk that `roots` are or need.
  std::vector<int32_t> column_values(std::vector<int32_t> roots) const {
    std::vector<bool> seen(at(k_.scalars.size()), false);
    std::vector<int32_t> result;
    while (!roots.empty()) {
      const int32_t i = roots.back();
      roots.pop_back();
      if (seen[at(i)]) continue;
      seen[at(i)] = true;
      if (!inside(i) && p_.is_vector(i)) result.push_back(i);
      for_inputs(k_, i, [&](int32_t in) { roots.push_back(in); });
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  void fill(size_t index) {
    CPass& pass = p_.passes[index];
    std::vector<bool> needed(at(k_.scalars.size()), false), reread(at(k_.scalars.size()), false);
    std::vector<int32_t> todo;
    for (const int32_t r : pass.reductions) todo.push_back(k_.reductions[at(r)].input);
    for (const int32_t s : pass.stores) todo.push_back(k_.stores[at(s)].value);
    if (pass.across)
      for (const Across& c : k_.across) todo.push_back(c.input);
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (!inside(i) || needed[at(i)]) continue;
      needed[at(i)] = true;
      if (kind_ == KernelKind::row && computed_[at(i)] && costly_[at(i)] && keep(i)) {
        reread[at(i)] = true;
      } else {
        for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
      }
    }
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!needed[at(i)]) continue;
      pass.nodes.push_back(i);
      if (reread[at(i)]) pass.rereads.push_back({i, below(i, needed)});
      computed_[at(i)] = true;
    }
  }

  bool keep(int32_t node) {
    if (std::find(p_.buffered.begin(), p_.buffered.end(), node) != p_.buffered.end()) return true;
    if (p_.buffered.size() == kMaxBuffered) return false;
    p_.buffered.push_back(node);
    for (CPass& pass : p_.passes) {
      if (std::find(pass.nodes.begin(), pass.nodes.end(), node) == pass.nodes.end()) continue;
      pass.written.insert(std::upper_bound(pass.written.begin(), pass.written.end(), node), node);
      break;
    }
    return true;
  }

  std::vector<int32_t> below(int32_t node, const std::vector<bool>& needed) const {
    std::vector<int32_t> result, todo;
    const auto push = [&](int32_t in) {
      if (inside(in) && !needed[at(in)]) todo.push_back(in);
    };
    for_inputs(k_, node, push);
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (std::find(result.begin(), result.end(), i) != result.end()) continue;
      result.push_back(i);
      for_inputs(k_, i, push);
    }
    std::sort(result.begin(), result.end());
    return result;
  }

  void find_uses() {
    p_.as_vector.assign(at(k_.scalars.size()), false);
    p_.as_divisor.assign(at(k_.scalars.size()), false);
    const auto use = [&](int32_t in) {
      if (!p_.is_vector(in)) p_.as_vector[at(in)] = true;
    };
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!p_.live[at(i)]) continue;
      const ScalarNode& n = k_.scalars[i];
      // Seeds and offsets of random functions are given as one scalar each.
      const int vectors = is_random(n.op) || p_.divides_by_whole(k_, i) ? 1 : ops::arity(n.op);
      for (int j = 0; j < vectors && p_.is_vector(i); ++j) use(n.in[j]);
      if (p_.divides_by_whole(k_, i)) p_.as_divisor[at(n.in[1])] = true;
      if (n.op == ScalarOp::reduced) use(k_.reductions[at(static_cast<int32_t>(n.bits))].input);
    }
    for (const Store& s : k_.stores)
      if (!(s.row_level && kind_ == KernelKind::row)) use(s.value);
    for (const Across& c : k_.across) use(c.input);
  }

  const Kernel& k_;
  const KernelKind kind_;  // how it is walked
  std::string* why_;
  CPlan p_;
  std::vector<int> phase_;
  std::vector<bool> costly_, computed_;
};

}  // namespace

bool CPlan::divides_by_whole(const Kernel& k, int32_t node) const {
  const ScalarNode& n = k.scalars[node];
  return n.op == ScalarOp::div && n.type == DType::float32 && is_vector(node) && loops[at(n.in[1])] == 0;
}

bool is_random(ScalarOp op) {
  return op == ScalarOp::uniform || op == ScalarOp::uniform16 || op == ScalarOp::normal;
}
bool is_costly(ScalarOp op) { return is_random(op) || (op >= ScalarOp::exp && op <= ScalarOp::pow); }

CPlan plan_c(const Kernel& k, std::string* why) {
  why->clear();
  return Planner(k, why).plan();
}

}  // namespace tandem::jit
