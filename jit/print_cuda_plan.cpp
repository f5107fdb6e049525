// A reduction's result is known after the walk that accumulates it, so every value has a phase: the number of
// walks that must be done before it can be computed. Walk p computes what the reductions of phase p need.
// What nothing but a row's stores needs is left to the thread that makes them.
#include "tandem/jit/print_cuda_plan.h"

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem::jit {

namespace {

using ops::ScalarNode;
using ops::ScalarOp;

size_t at(int64_t i) { return static_cast<size_t>(i); }

class Planner {
 public:
  explicit Planner(const Kernel& k) : k_(k) {}

  CudaPlan plan() {
    check();
    const size_t n = at(k_.scalars.size());
    p_.level.assign(n, CudaLevel::call);
    p_.live.assign(n, false);
    p_.load_used.assign(k_.loads.size(), false);
    phase_.assign(n, 0);
    for (int32_t i = 0; i < k_.scalars.size(); ++i) classify(i);
    for (const Store& s : k_.stores) {
      TANDEM_INTERNAL(!of_row(s) || p_.level[at(s.value)] != CudaLevel::element,
                      "a row's store of an element's value");
      mark_live(s.value);
    }
    for (const Across& c : k_.across) mark_live(c.input);
    make_walks();
    return std::move(p_);
  }

 private:
  void check() const {
    TANDEM_INTERNAL(k_.kind != KernelKind::pointwise || (k_.reduced_rank == 0 && k_.reductions.empty()),
                    "a pointwise kernel with reductions");
    TANDEM_INTERNAL(k_.kind == KernelKind::pointwise || k_.reduced_rank > 0,
                    "a kernel with nothing to reduce");
    TANDEM_INTERNAL(k_.kind != KernelKind::column || k_.kept_rank > 0, "a column kernel without columns");
    TANDEM_INTERNAL(k_.across.empty() || (k_.kind == KernelKind::row && k_.reduced_rank == 1),
                    "reductions across what are no rows of one dimension");
    for (const Load& l : k_.loads)
      TANDEM_INTERNAL(k_.across.empty() || l.index < 0, "reductions across rows of indexed operands");
    for (const Store& s : k_.stores)
      TANDEM_INTERNAL(s.dtype == k_.scalars[s.value].type, "a store of another type than its value");
    for (const Reduction& r : k_.reductions) {
      const DType in = k_.scalars[r.input].type;
      const bool index = r.op == ReduceOp::argmax || r.op == ReduceOp::argmin;
      TANDEM_INTERNAL(index ? r.type == DType::int64 : r.type == in,
                      "a reduction in another type than its operand");
      TANDEM_INTERNAL(in == DType::float32 || in == DType::float64 || in == DType::int64,
                      "a reduction of a narrow type");
    }
  }

  bool of_row(const Store& s) const { return s.row_level && k_.kind != KernelKind::pointwise; }

  CudaLevel load_level(const Load& l) const {
    if (k_.kind == KernelKind::pointwise) return CudaLevel::element;
    // What does not move along the one reduced dimension of a row is of the row.
    const bool still = k_.kind == KernelKind::row && k_.reduced_rank == 1 && l.inner == Inner::constant;
    return l.row_level || still ? CudaLevel::row : CudaLevel::element;
  }

  void classify(int32_t i) {
    const ScalarNode& n = k_.scalars[i];
    CudaLevel& level = p_.level[at(i)];
    int& phase = phase_[at(i)];
    if (n.op == ScalarOp::load) {
      level = load_level(k_.loads[at(n.bits)]);
    } else if (n.op == ScalarOp::index) {
      level = CudaLevel::element;
    } else if (n.op == ScalarOp::reduced) {
      const int32_t input = k_.reductions[at(n.bits)].input;
      TANDEM_INTERNAL(input < i, "a reduction that is read before its operand");
      level = CudaLevel::row;
      phase = phase_[at(input)] + 1;
    }
    for_inputs(k_, i, [&](int32_t in) {
      level = std::max(level, p_.level[at(in)]);
      phase = std::max(phase, phase_[at(in)]);
    });
  }

  void mark_live(int32_t root) {
    std::vector<int32_t> todo = {root};
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (p_.live[at(i)]) continue;
      p_.live[at(i)] = true;
      const ScalarNode& n = k_.scalars[i];
      if (n.op == ScalarOp::load) p_.load_used[at(n.bits)] = true;
      if (n.op == ScalarOp::index) p_.uses_index = true;
      if (n.op == ScalarOp::reduced) todo.push_back(k_.reductions[at(n.bits)].input);
      for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
    }
  }

  void make_walks() {
    std::vector<bool> reduction_live(k_.reductions.size(), false);
    int last_walk = 0;
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!p_.live[at(i)]) continue;
      const ScalarNode& n = k_.scalars[i];
      if (n.op != ScalarOp::reduced) continue;
      reduction_live[at(n.bits)] = true;
      last_walk = std::max(last_walk, phase_[at(i)] - 1);
    }
    for (const Store& s : k_.stores)
      if (!of_row(s)) last_walk = std::max(last_walk, phase_[at(s.value)]);
    for (const Across& c : k_.across) last_walk = std::max(last_walk, phase_[at(c.input)]);
    p_.walks.resize(at(last_walk + 1));

    for (size_t r = 0; r < k_.reductions.size(); ++r)
      if (reduction_live[r])
        p_.walks[at(phase_[at(k_.reductions[r].input)])].reductions.push_back(static_cast<int32_t>(r));
    for (size_t s = 0; s < k_.stores.size(); ++s) {
      auto& list = of_row(k_.stores[s]) ? p_.row_stores : p_.walks[at(last_walk)].stores;
      list.push_back(static_cast<int32_t>(s));
    }
    for (size_t c = 0; c < k_.across.size(); ++c)
      p_.walks[at(last_walk)].across.push_back(static_cast<int32_t>(c));
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (p_.live[at(i)] && p_.level[at(i)] == CudaLevel::call) p_.call.push_back(i);
    std::vector<bool> walked(at(k_.scalars.size()), false), loaded = walked;
    for (CudaWalk& w : p_.walks) fill(w, walked);
    for (int32_t i = 0; i < k_.scalars.size(); ++i)
      if (of_stores(i, walked) && reads_memory(i) && phase_[at(i)] == 0) need(i, loaded);
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!p_.live[at(i)] || p_.level[at(i)] != CudaLevel::row) continue;
      auto& list = walked[at(i)]   ? p_.walks[at(phase_[at(i)])].before
                   : loaded[at(i)] ? p_.row_loads
                                   : p_.row_values;
      list.push_back(i);
    }
  }

  bool reads_memory(int32_t i) const {
    const ScalarNode& n = k_.scalars[i];
    return n.op == ScalarOp::load && k_.loads[at(n.bits)].index != kCounts;
  }
  bool of_stores(int32_t i, const std::vector<bool>& walked) const {
    return p_.live[at(i)] && p_.level[at(i)] == CudaLevel::row && !walked[at(i)];
  }

  // Marks a node and all that it is computed from.
  void need(int32_t root, std::vector<bool>& needed) const {
    std::vector<int32_t> todo = {root};
    while (!todo.empty()) {
      const int32_t i = todo.back();
      todo.pop_back();
      if (needed[at(i)]) continue;
      needed[at(i)] = true;
      for_inputs(k_, i, [&](int32_t in) { todo.push_back(in); });
    }
  }

  // The element's values that a walk needs, all computed again; `walked`: all that walks need.
  void fill(CudaWalk& walk, std::vector<bool>& walked) const {
    std::vector<bool> needed(at(k_.scalars.size()), false);
    for (const int32_t r : walk.reductions) need(k_.reductions[at(r)].input, needed);
    for (const int32_t s : walk.stores) need(k_.stores[at(s)].value, needed);
    for (const int32_t c : walk.across) need(k_.across[at(c)].input, needed);
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      if (!needed[at(i)]) continue;
      walked[at(i)] = true;
      if (p_.level[at(i)] == CudaLevel::element) walk.nodes.push_back(i);
    }
  }

  const Kernel& k_;
  CudaPlan p_;
  std::vector<int> phase_;
};

}  // namespace

CudaPlan plan_cuda(const Kernel& k) { return Planner(k).plan(); }

}  // namespace tandem::jit
