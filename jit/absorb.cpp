// Copies that need not be made: a value that is joined to others, or only brought into another order, is
// put by its maker where the copy would put it; where it lies there in one piece, others read it there, too.
// Kernels store by any strides; own tiles write rows anywhere, cuBLASLt where the algorithm that it has for
// contiguous results can. The copy's node stays, without work, as what its readers wait for.
#include <algorithm>

#include "tandem/jit/cuda_product.h"
#include "tandem/jit/prepare.h"

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr int64_t kAligned = 64;  // bytes

class Absorber {
 public:
  Absorber(Prepared& p, Device device, bool products) : p_(p), device_(device), products_(products) {}

  void run() {
    p_.parts.resize(p_.g.values.size());
    p_.absorbed.assign(p_.g.nodes.size(), 0);
    // Backwards: what is joined first finds where the joined value lies.
    for (auto i = static_cast<int32_t>(p_.g.nodes.size()); i-- > 0;) {
      const Node& n = p_.g.nodes[at(i)];
      if (n.leaf != Leaf::op || n.out.size() != 1 || p_.constant[at(i)] || p_.absorbed[at(i)]) continue;
      if (n.op == OpId::cat) join(i, n);
      if (n.op == OpId::cast) reorder(i, n);
    }
  }

 private:
  OpKind kind(int32_t node) const { return ops::def(p_.g.nodes[at(node)].op).kind; }

  /// Where the memory of `root` lies: in the whole that it is a part of, or its own.
  Part place(int32_t root) const {
    const Part& part = p_.parts[at(root)];
    if (part.whole >= 0) return part;
    const Dims& sizes = p_.g.type(root).sizes;
    return {root, {sizes, contiguous_strides(sizes), 0}};
  }

  /// Whether a maker other than node `i` may fill the value.
  bool free(int32_t root) const {
    const auto& to = p_.destinations[at(root)];
    return to.empty() || (to.size() == 1 && to[0].output);
  }

  /// Whether `root` is made by a kernel or a product, and goes nowhere else.
  bool movable(int32_t root) const {
    const int32_t maker = p_.values_node(root);
    const Node& n = p_.g.nodes[at(maker)];
    if (n.leaf != Leaf::op || p_.constant[at(maker)] || p_.absorbed[at(maker)]) return false;
    return p_.destinations[at(root)].empty() && numel(p_.g.type(root).sizes) > 0;
  }
  bool only_for(int32_t root, int32_t i) const { return p_.users[at(root)] == std::vector<int32_t>{i}; }

  bool aligned(int32_t root, const Layout& part) const {
    return part.offset * itemsize(p_.g.type(root).dtype) % kAligned == 0;
  }
  /// Natives write in one piece, among them joins that remain.
  bool native_goes(int32_t maker, int32_t root, const Layout& part) const {
    return ops::is_native(kind(maker)) && is_contiguous(part.sizes, part.strides) && aligned(root, part);
  }

  /// Whether others may read `root` where it lies as a part: as if it had memory of its own, which begins as
  /// any does where libraries ask how it is aligned.
  bool readable(int32_t root, const Layout& part) const {
    if (!is_contiguous(part.sizes, part.strides)) return false;
    const auto& users = p_.users[at(root)];
    return aligned(root, part) || std::all_of(users.begin(), users.end(),
                                              [&](int32_t u) { return kernel(u) || p_.absorbed[at(u)]; });
  }

  /// A product's result by these strides.
  bool product_goes(int32_t maker, const Layout& layout) const {
    const Node& n = p_.g.nodes[at(maker)];
    if (!products_ || kind(maker) != OpKind::contraction) return false;
    Contraction c;
    if (contraction_of(p_, n, c, &layout) >= 0 || c.call.c_col != 1) return false;
    if (device_.type == DeviceType::cpu)
      return c.provider == ops::Provider::tiles || c.provider == ops::Provider::dots;
    Contraction packed;
    if (contraction_of(p_, n, packed) >= 0) return false;
    const bool bias = n.op == OpId::linear && n.in[2] >= 0;
    return library_writes(cuda::Runtime::of(device_), packed, c, layout.offset, bias);
  }

  bool kernel(int32_t maker) const {
    const OpKind k = kind(maker);
    return k == OpKind::pointwise || k == OpKind::reduction || k == OpKind::random || k == OpKind::fill ||
           k == OpKind::gather;
  }

  void join(int32_t i, const Node& n) {
    const int32_t whole = n.out[0];
    if (!free(whole)) return;
    const Part to = place(whole);
    const Dims& sizes = p_.g.type(whole).sizes;
    const int axis = normalize_axis(n.words[0], sizes.rank(), "cat", n.where);
    std::vector<Part> parts;
    Layout here = to.layout;
    for (size_t k = 0; k < n.in.size(); ++k) {
      const int32_t v = n.in[k], root = p_.root(v);
      const Layout& l = p_.layout(v);
      here.sizes = p_.g.type(v).sizes;
      Part part{to.whole, {p_.g.type(root).sizes, {}, here.offset}};
      const bool once =
          std::count_if(n.in.begin(), n.in.end(), [&](int32_t w) { return p_.root(w) == root; }) == 1;
      if (!once || !movable(root) || p_.parts[at(root)].whole >= 0 ||
          p_.g.type(v).dtype != p_.g.type(whole).dtype || l.offset != 0 ||
          !is_contiguous(l.sizes, l.strides) || numel(l.sizes) != numel(part.layout.sizes) ||
          !reshape_strides(here.sizes, here.strides, part.layout.sizes, part.layout.strides))
        return;
      if (!only_for(root, i) && !readable(root, part.layout)) return;
      const int32_t maker = p_.values_node(root);
      if (!kernel(maker) && !product_goes(maker, part.layout) && !native_goes(maker, root, part.layout))
        return;
      parts.push_back(std::move(part));
      here.offset += here.sizes[axis] * here.strides[axis];
    }
    for (size_t k = 0; k < n.in.size(); ++k) p_.parts[at(p_.root(n.in[k]))] = std::move(parts[k]);
    p_.absorbed[at(i)] = 1;
  }

  /// A cast to the same type of a product's or joined result whose axes were exchanged. For products and
  /// natives only: kernels would read a product's result in the other order themselves.
  void reorder(int32_t i, const Node& n) {
    const int32_t v = n.in[0], y = n.out[0];
    if (p_.value_class(v) != ValueClass::memory || p_.g.type(v).dtype != p_.g.type(y).dtype) return;
    const int32_t root = p_.root(v), maker = p_.values_node(root);
    const bool joined = p_.g.nodes[at(maker)].leaf == Leaf::op && p_.g.nodes[at(maker)].op == OpId::cat;
    AxisMap map;
    if (!movable(root) || !only_for(root, i) || !free(y) || !(joined || kind(maker) == OpKind::contraction) ||
        numel(p_.layout(v).sizes) != numel(p_.g.type(root).sizes) ||  // a copy that repeats elements
        !axes_of_root(p_.g.type(root).sizes, p_.layout(v), map))
      return;
    const auto copied = [&](int32_t u) { return kind(u) == OpKind::contraction || ops::is_native(kind(u)); };
    const auto& users = p_.users[at(y)];
    if (joined ? std::none_of(users.begin(), users.end(), copied)
               : !std::all_of(users.begin(), users.end(), copied))
      return;
    const Part to = place(y);
    const Dims& sizes = p_.g.type(root).sizes;
    Part part{to.whole, {sizes, contiguous_strides(sizes), to.layout.offset}};
    for (int d = 0; d < p_.layout(v).sizes.rank(); ++d)
      if (map[d] >= 0) part.layout.strides[map[d]] = to.layout.strides[d];
    if (!joined && !product_goes(maker, part.layout)) return;
    p_.parts[at(root)] = std::move(part);
    if (joined) {
      join(maker, p_.g.nodes[at(maker)]);
      if (!p_.absorbed[at(maker)]) {
        p_.parts[at(root)] = {};
        return;
      }
    }
    p_.absorbed[at(i)] = 1;
  }

  Prepared& p_;
  const Device device_;
  const bool products_;  // whether they may lie elsewhere
};

}  // namespace

void absorb_copies(Prepared& p, Device device, bool products) { Absorber(p, device, products).run(); }

}  // namespace tandem::jit
