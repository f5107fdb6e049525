// Natives that change a part of a value and leave the rest of it as it is (scatters; joins of what lies
// around that part with something new, which in-place ops on slices become): they may do so in the memory of
// the value, where nobody reads it any more. Values only, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "tandem/jit/prepare.h"

namespace tandem::jit {

/// Whether an operand of `layout` in a root of `root` lies there as it does in the join, from `start` on
/// along `axis`.
bool same_place(const ops::Layout& layout, const TensorType& root, const TensorType& result, int axis,
                int64_t start);

/// The roots of which the node changes a part, and which it does not read otherwise.
std::vector<int32_t> changed_roots(const Prepared& p, int32_t node);

}  // namespace tandem::jit
