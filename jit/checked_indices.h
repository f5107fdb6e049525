// Indices that are checked twice: a lookup's, and again where its gradient is put back, or those of several
// changes of the same rows. One owner, one thread.
#pragma once

#include "tandem/jit/grouping.h"

namespace tandem::jit {

/// The gathers and scatters of a prepared graph so far, by the indices that they find good.
class CheckedIndices {
 public:
  explicit CheckedIndices(const Prepared& p) : p_(p) {}

  void note(int32_t node) {
    const Node& n = p_.g.nodes[static_cast<size_t>(node)];
    if (numel(p_.g.type(n.out[0]).sizes) > 0) checks_.push_back({node, whole(n.in[1]), extent(n)});
  }

  /// The first of these that `may` allows, over the same indices and as long an axis as those of `n`; -1 for
  /// none.
  template <class F>
  int32_t find(const Node& n, F may) const {
    const int32_t indices = whole(n.in[1]);
    for (const Check& c : checks_)
      if (indices >= 0 && c.indices == indices && c.extent == extent(n) && may(c.node)) return c.node;
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
