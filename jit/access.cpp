// How a kernel's space walks memory, and what follows from it.
#include "tandem/jit/lower.h"

#include <algorithm>
#include <bit>

namespace tandem::jit {

using ops::Layout;

namespace {
constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
Layout contiguous_layout(const Dims& sizes) { return {sizes, contiguous_strides(sizes), 0}; }
}  // namespace

SpaceStrides walk(const Axes& axes, const Layout& layout) {
  SpaceStrides s{};
  const bool empty =
      numel(layout.sizes) == 0;  // strides say nothing then, but what has axes must not look broadcast
  for (int d = 0; d < layout.sizes.rank(); ++d)
    if (axes[at(d)] >= 0 && layout.sizes[d] != 1) s[at(axes[at(d)])] += empty ? 1 : layout.strides[d];
  return s;
}

Layout target_layout(const Prepared& p, const StoreTarget& target) {
  const Dims& sizes = p.g.type(target.value).sizes;
  if (const Part& part = p.parts[at(target.value)]; part.whole >= 0)
    return {part.layout.sizes, part.layout.strides, 0};
  if (target.destination < 0) return contiguous_layout(sizes);
  const Destination& d = p.destinations[at(target.value)][at(target.destination)];
  if (d.output) return contiguous_layout(sizes);
  const Layout& input = p.layout(p.g.inputs[at(d.index)].value);
  // A value of another shape goes to contiguous memory only.
  return input.sizes == sizes ? Layout{sizes, input.strides, 0} : contiguous_layout(sizes);
}

SpaceStrides read_strides(const Prepared& p, const Grouping& grouping, int32_t node, int k) {
  const Node& n = p.g.nodes[at(node)];
  const Layout& layout = p.layout(n.in[at(k)]);
  const Axes& own = grouping.axes[at(node)];
  Axes axes;
  axes.fill(-1);
  for (int d = 0; d < layout.sizes.rank(); ++d)
    if (layout.sizes[d] != 1) axes[at(d)] = own[at(walked_axis(p.g, n, k, d))];
  return walk(axes, layout);
}

SpaceStrides store_strides(const Prepared& p, const Grouping& grouping, const StoreTarget& target) {
  Axes axes;
  axes_of_value(p, grouping, target.value, axes);
  return walk(axes, target_layout(p, target));
}

bool counts(const Prepared& p, int32_t v) {
  const int32_t maker = p.values_node(p.root(v));
  const Node& n = p.g.nodes[at(maker)];
  const DType type = p.g.type(v).dtype;  // one that holds each position of a constant
  if (n.leaf != Leaf::op || !p.constant[at(maker)] || p.layout(v).offset != 0 ||
      !(type == DType::int32 || type == DType::int64 || type == DType::float32 || type == DType::float64))
    return false;
  if (n.op == OpId::cast) {
    if (p.value_class(n.in[0]) != ValueClass::memory) return false;
    const Layout& from = p.layout(n.in[0]);
    return is_contiguous(from.sizes, from.strides) && counts(p, n.in[0]);
  }
  const auto is = [&](size_t k, double x) {
    const Node& number = p.g.node_of(n.in[k]);
    return number.leaf == Leaf::constant && std::bit_cast<double>(number.bits) == x;
  };
  return n.op == OpId::arange && is(0, 0) && is(1, 1);
}

bool has_numbers_of_rows(const Dims& space, int last, const std::vector<SpaceStrides>& loads,
                         const std::vector<SpaceStrides>& stores) {
  constexpr int64_t kFewestRows = 1024, kShortest = 128;  // fewer leave most of a card idle
  constexpr int kSeveral = 3;
  const int64_t n = space[last];
  if (n < kShortest || numel(space) / n < kFewestRows) return false;
  const auto step = [&](const SpaceStrides& s) { return s[at(last)]; };
  const auto of_row = [&](const SpaceStrides& s) { return step(s) == 0 && s != SpaceStrides{}; };
  return std::all_of(stores.begin(), stores.end(), [&](const auto& s) { return step(s) == 1; }) &&
         std::all_of(loads.begin(), loads.end(),
                     [&](const auto& s) { return step(s) == 0 || step(s) == 1; }) &&
         std::count_if(loads.begin(), loads.end(), of_row) >= kSeveral;
}

}  // namespace tandem::jit
