// Which nodes run together: each group becomes one kernel, product or native call. Groups never depend on
// each other in a circle. Values; built on one thread.
#pragma once

#include <array>
#include <vector>

#include "tandem/jit/prepare.h"

namespace tandem::jit {

enum class GroupKind : uint8_t { pointwise, row, column, product, native };

/// Axes of a group's space, one per axis of a value; -1 where the size is 1 or the value repeats.
using Axes = std::array<int8_t, kMaxRank>;

struct Group {
  GroupKind kind = GroupKind::pointwise;
  Dims space;               // the sizes other than 1 of its first node, in logical order
  uint32_t reduced = 0;     // axes of `space`, as bits; kernels walk the kept axes, then the reduced ones
  bool ordered = false;     // a node asks for the linear index: the kernel's order is the logical one
  bool may_fail = false;    // an index may be out of range
  bool unchecked = false;   // one that nothing before has found good
  int32_t checked_by = -1;  // of a scatter: node of another group that finds the same indices good before
  bool may_stop = false;    // on the host: a run may end here, by such an index or an own kernel's exception
  std::vector<int32_t> nodes;  // ascending

  bool is_kernel() const { return kind != GroupKind::product && kind != GroupKind::native; }
};

/// Whether no full-level node of a kernel may wait for its reductions: columns are walked once, and on a
/// device so are rows that are few and long, since parts of these, which all multiprocessors share, know
/// nothing of each other until a kernel's end.
inline bool walks_once(const Group& g, bool host) {
  constexpr int64_t kFewRows = 128, kLong = 1 << 16;
  if (g.kind != GroupKind::row || host) return g.kind == GroupKind::column;
  int64_t rows = 1, columns = 1;
  for (int d = 0; d < g.space.rank(); ++d) (g.reduced >> d & 1 ? columns : rows) *= g.space[d];
  return rows < kFewRows && columns >= kLong;
}

struct Grouping {
  std::vector<Group> groups;      // in the order of their first nodes
  std::vector<int32_t> group_of;  // per node; -1 for leaves, views, numbers and uniform tensors
  std::vector<Axes> axes;         // per node of a kernel: of the sizes that it walks (see walked_sizes)
};

/// `fuse`: false gives every node a group of its own. `host`: for the CPU, where own kernels run as their
/// twins.
Grouping group(const Prepared& p, bool fuse, bool host = true);

/// The sizes that a node walks: its result's; a reduction walks its operand's.
const Dims& walked_sizes(const Graph& g, const Node& n);
/// The walked axis that axis `d` of operand `k` corresponds to.
int walked_axis(const Graph& g, const Node& n, int k, int d);
/// The axes that a reduction reduces.
Dims reduced_axes(const Graph& g, const Node& n);
/// The axis along which a gather looks up.
int gather_axis(const Graph& g, const Node& n);
/// Axes of the group's space for `v`, a value or a view of one that a kernel of the grouping computes; false
/// when its elements do not correspond one to one with the space's.
bool axes_of_value(const Prepared& p, const Grouping& grouping, int32_t v, Axes& axes);

/// Whether the reduced axes of a space come behind all others.
bool trailing(uint32_t reduced, int rank);

/// The group that computes an operand; -1 if it comes from outside or is no memory.
int32_t maker_of(const Prepared& p, const Grouping& grouping, int32_t v);
/// How group `b`'s axes lie in `a`'s space, as far as values of one that the other reads tell: added to
/// `sigma`. False if they contradict it.
bool related_axes(const Prepared& p, const Grouping& grouping, int a, int b, Axes& sigma);
/// Whether two nodes read a common root in full with equal layouts; then `sigma` relates their groups.
bool same_walk(const Prepared& p, const Grouping& grouping, int32_t first, int32_t second, Axes& sigma);

/// Whether a pointwise group takes a product on to another product (`reads`: the roots that it reads). On the
/// CPU it runs behind the first, over rows that are in the cache (tails.h); a sum over its columns can wait,
/// and joins others of its kind.
bool takes_product_on(const Prepared& p, const Group& g, const std::vector<int32_t>& reads);

/// Gives the axes that nothing determines (-1, size not 1) the space's remaining ones in order: all of the
/// space
/// (`full`) or its kept axes. False if neither fits.
bool complete_axes(const Group& g, const Dims& sizes, Axes& axes, bool& full);

}  // namespace tandem::jit
