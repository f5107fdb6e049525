// The sizes before, along and behind an axis, as native kernels walk over contiguous memory. A value; any
// thread.
#pragma once

#include "tandem/core/dims.h"

namespace tandem::ops {

struct AxisSplit {
  int64_t outer = 1, size = 1, inner = 1;
};
/// Running sums begin from 0 at every so many elements, and have the sum of the blocks before added: all
/// devices do, so that a long line need not be one chain of additions.
inline constexpr int64_t kScanBlock = 64;
/// A scalar is one element.
AxisSplit split_axis(const Dims& sizes, int64_t axis);

}  // namespace tandem::ops
