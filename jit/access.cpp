// How a kernel's space walks memory.
#include "tandem/jit/lower.h"

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

}  // namespace tandem::jit
