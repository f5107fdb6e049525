// Indices that are checked twice: a lookup's, and again where its gradient is put back. One owner, one
// thread.
#pragma once

#include "tandem/jit/grouping.h"

namespace tandem::jit {

/// The gathers of a prepared graph so far, by the indices that they find good.
class CheckedIndices {
 public:
  explicit CheckedIndices(const Prepared& p) : p_(p) {}

  void note(int32_t gather) {
    const Node& n = p_.g.nodes[static_cast<size_t>(gather)];
    if (numel(p_.g.type(n.out[0]).sizes) > 0) checks_.push_back({gather, whole(n.in[1]), extent(n)});
  }

  /// The first gather that `may` allows, over the same indices and as long an axis as the scatter's; -1 for
  /// none.
  template <class F>
  int32_t find(const Node& scatter, F may) const {
    const int32_t indices = whole(scatter.in[1]);
    for (const Check& c : checks_)
      if (indices >= 0 && c.indices == indices && c.extent == extent(scatter) && may(c.node)) return c.node;
    return -1;
  }

 private:
  struct Check {
    int32_t node, indices;  // the root of the indices, all of it
    int64_t extent;
  };
  /// The root of which `v` shows every element; -1 if it does not.
  int32_t whole(int32_t v) const {
    if (p_.value_class(v) != ValueClass::memory) return -1;
    const ops::Layout& l = p_.layout(v);
    const bool all = l.offset == 0 && is_contiguous(l.sizes, l.strides) &&
                     numel(l.sizes) == numel(p_.g.type(p_.root(v)).sizes);
    return all ? p_.root(v) : -1;
  }
  int64_t extent(const Node& n) const { return p_.g.type(n.in[0]).sizes[gather_axis(p_.g, n)]; }

  const Prepared& p_;
  std::vector<Check> checks_;
};

}  // namespace tandem::jit
