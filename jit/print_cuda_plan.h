// What the CUDA printer decides before it writes: how often each scalar node is computed, and in which walk
// over the reduced dimensions. Values only; built for one call of print_cuda.
#pragma once

#include <cstdint>
#include <vector>

#include "tandem/jit/kernel.h"

namespace tandem::jit {

/// A value is the same for the whole call, for a row (or column), or differs from element to element. In a
/// pointwise kernel nothing is of a row.
enum class CudaLevel : uint8_t { call, row, element };

/// One walk over the reduced dimensions; a pointwise kernel has one over its elements. Lists ascend.
struct CudaWalk {
  std::vector<int32_t> before;      // values of the row that earlier walks make known, for walks from this on
  std::vector<int32_t> nodes;       // values of the element
  std::vector<int32_t> reductions;  // accumulated here
  std::vector<int32_t> stores;      // of elements: all in the last walk, as a result may replace an operand
  std::vector<int32_t> across;      // likewise
};

struct CudaPlan {
  std::vector<CudaLevel> level;  // of each node
  std::vector<int32_t> call;     // nodes of the whole call
  std::vector<CudaWalk> walks;
  // Of the row, for its stores alone: what is loaded for them before the walks, with the indices that takes,
  // and what is computed where they are made.
  std::vector<int32_t> row_loads, row_values;
  std::vector<int32_t> row_stores;
  std::vector<bool> live;  // of each node: some store needs it
  std::vector<bool> load_used;
  bool uses_index = false;
};

CudaPlan plan_cuda(const Kernel& k);

}  // namespace tandem::jit
