#include "tandem/jit/side_by_side.h"

#include <algorithm>

#include "tandem/jit/lower.h"

namespace tandem::jit {

namespace {

constexpr int64_t kFewestRows = 8;  // side by side: fewer would leave most lanes empty
constexpr int64_t kShort = 16;  // dimension, of pointwise kernels: longer ones are walked well as they are
constexpr int64_t kFewestOuter = 4;  // positions of the other dimensions, for threads to share

bool asks_for_positions(const Kernel& k) {
  for (int32_t i = 0; i < k.scalars.size(); ++i)
    if (k.scalars[i].op == ops::ScalarOp::index) return true;
  return std::any_of(k.loads.begin(), k.loads.end(), [](const Load& l) { return l.index >= 0; });
}

class Marker {
 public:
  Marker(LoweredKernel& l, const Prepared& p) : l_(l), k_(l.kernel), p_(p) {}

  void run() {
    if (!k_.across.empty() || asks_for_positions(k_)) return;
    if (k_.kind == KernelKind::pointwise && repeats_along_rows()) make_rows();
    if (k_.kind != KernelKind::row || k_.kept_rank < 1 || k_.reduced_rank < 1 || !lie_side_by_side()) return;
    k_.side_by_side = true;
    for (size_t s = 0; s < slots(); ++s) {
      const int64_t across = step(s, kept());
      const Inner how = across == 0 ? Inner::constant : across == 1 ? Inner::contiguous : Inner::strided;
      (s < k_.loads.size() ? k_.loads[s].inner : k_.stores[s - k_.loads.size()].inner) = how;
    }
  }

 private:
  size_t rank() const { return l_.dims.size(); }
  size_t kept() const { return static_cast<size_t>(k_.kept_rank) - 1; }
  size_t slots() const { return k_.loads.size() + k_.stores.size(); }
  bool row_level(size_t s) const {
    return s < k_.loads.size() ? k_.loads[s].row_level : k_.stores[s - k_.loads.size()].row_level;
  }
  int64_t& step(size_t slot, size_t dim) const { return l_.strides[slot * rank() + dim]; }

  bool lie_side_by_side() const {
    if (l_.dims[kept()] < kFewestRows || l_.dims.back() < 2) return false;
    bool any = false;
    for (size_t s = 0; s < slots(); ++s) {
      if (row_level(s)) continue;
      const int64_t across = step(s, kept());
      if (step(s, rank() - 1) == 1 || (across != 1 && (across != 0 || s >= k_.loads.size()))) return false;
      any = any || across == 1;
    }
    return any;
  }

  /// Results of products are left to kernels that follow these row by row.
  bool repeats_along_rows() const {
    if (rank() < 3 || l_.dims.back() < kFewestRows || l_.dims.back() > kShort) return false;
    if (l_.dims[rank() - 2] < kFewestRows || l_.range / l_.dims.back() / l_.dims[rank() - 2] < kFewestOuter)
      return false;
    bool any = false;
    for (size_t s = 0; s < slots(); ++s) {
      const int64_t across = step(s, rank() - 1), along = step(s, rank() - 2);
      if (along == 1 || (across != 1 && (across != 0 || s >= k_.loads.size()))) return false;
      any = any || (s < k_.loads.size() && along == 0 && across == 1);
      const Node& maker = p_.g.node_of(l_.slots[s].value);
      if (maker.leaf == Leaf::op && ops::def(maker.op).kind == ops::OpKind::contraction) return false;
    }
    return any;
  }

  /// The last dimension but one becomes the reduced one of a row kernel.
  void make_rows() {
    const size_t last = rank() - 1, before = last - 1;
    for (size_t s = 0; s < slots(); ++s) {
      std::swap(step(s, before), step(s, last));
      if (s < k_.loads.size()) k_.loads[s].row_level = step(s, last) == 0;
    }
    std::swap(l_.dims[before], l_.dims[last]);
    k_.kind = KernelKind::row;
    --k_.kept_rank, ++k_.reduced_rank;
    l_.range /= l_.dims[last];
    l_.work *= l_.dims[last];
  }

  LoweredKernel& l_;
  Kernel& k_;
  const Prepared& p_;
};

}  // namespace

void mark_side_by_side(LoweredKernel& l, const Prepared& p) { Marker(l, p).run(); }

}  // namespace tandem::jit
