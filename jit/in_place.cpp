#include "tandem/jit/in_place.h"

#include <algorithm>

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

bool same_strides(const Dims& sizes, const Dims& a, const Dims& b) {
  for (int d = 0; d < sizes.rank(); ++d)
    if (sizes[d] > 1 && a[d] != b[d]) return false;
  return true;
}

/// Operands that are all of a root or parts of one that lie where the result has them: operand -> its root.
std::vector<int32_t> kept_operands(const Prepared& p, const Node& n) {
  std::vector<int32_t> kept(n.in.size(), -1);
  const TensorType& result = p.g.type(n.out[0]);
  const bool joins = n.op == OpId::cat;
  const int axis = joins ? normalize_axis(n.words[0], result.sizes.rank(), "cat", n.where) : 0;
  int64_t start = 0;
  for (size_t k = 0; k < (joins ? n.in.size() : 1); ++k) {
    const int32_t v = n.in[k];
    if (v < 0 || p.value_class(v) != ValueClass::memory) continue;
    if (same_place(p.layout(v), p.g.type(p.root(v)), result, axis, start)) kept[k] = p.root(v);
    if (joins) start += p.g.type(v).sizes[axis];
  }
  return kept;
}

}  // namespace

bool same_place(const Layout& layout, const TensorType& root, const TensorType& result, int axis,
                int64_t start) {
  const Dims strides = contiguous_strides(result.sizes);
  return numel(root.sizes) == numel(result.sizes) && root.dtype == result.dtype && numel(layout.sizes) > 0 &&
         layout.sizes.rank() == result.sizes.rank() && same_strides(layout.sizes, layout.strides, strides) &&
         layout.offset == start * (strides.empty() ? 0 : strides[axis]);
}

std::vector<int32_t> changed_roots(const Prepared& p, int32_t node) {
  const Node& n = p.g.nodes[at(node)];
  if (n.leaf != Leaf::op || p.absorbed[at(node)] || p.parts[at(n.out[0])].whole >= 0) return {};
  if (ops::def(n.op).kind != OpKind::scatter && n.op != OpId::cat) return {};
  const std::vector<int32_t> kept = kept_operands(p, n);
  std::vector<int32_t> roots;
  for (const int32_t root : kept) {
    if (root < 0 || std::find(roots.begin(), roots.end(), root) != roots.end()) continue;
    bool good = p.parts[at(root)].whole < 0;
    for (size_t k = 0; k < n.in.size() && good; ++k) {
      const int32_t v = n.in[k];
      if (kept[k] == root || v < 0 || p.value_class(v) != ValueClass::memory) continue;
      good = p.root(v) != root && p.parts[at(p.root(v))].whole != root;
    }
    if (good) roots.push_back(root);
  }
  return roots;
}

}  // namespace tandem::jit
