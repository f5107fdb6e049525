// Scatters of many indices: positions are sorted by where they fall, so that all that meets at one place lies
// together, in the order of the index. Values only, any thread.
#pragma once

#include <vector>

#include "tandem/jit/cuda_native_text.h"

namespace tandem::jit {

/// `indices` of `index_bytes` that fall on `keys` places; after sorting, `groups` warps read them again.
struct SortedIndices {
  int64_t indices = 0, keys = 0, index_bytes = 0, groups = 0;
};
/// Whether it costs less than reading `reads` indices, in bytes.
bool sorting_pays(const SortedIndices& s, int64_t reads);

/// `along`: index_add or index_copy, else scatter_add or scatter.
std::vector<NativeText> sorted_scatter(const NativeCallPlan& c, bool along);

}  // namespace tandem::jit
