// From a group to a Kernel and what binds it to memory: which value each buffer holds, sizes, strides,
// numbers. Values; built on one thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/grouping.h"
#include "tandem/jit/kernel.h"

namespace tandem::jit {

/// Where a store goes: the value's home, or one of its other destinations.
struct StoreTarget {
  int32_t value;        // a root that the group computes
  int32_t destination;  // -1: its home; else index into Prepared::destinations[value]
};

/// One buffer of a kernel, in the order of loads, then stores.
struct Slot {
  int32_t value;             // a root
  int32_t destination = -1;  // as in StoreTarget
  int64_t offset = 0;        // elements
  bool store = false;
};

struct LoweredKernel {
  Kernel kernel;
  std::vector<int64_t> dims, strides;  // KernelArgs
  std::vector<Slot> slots;             // one per buffer
  std::vector<int32_t> numbers;  // values of leaf `number` or `count`, in the order of the kernel's numbers
  int64_t range = 0;             // of the kept dimensions
  int64_t work = 1;              // elements per index of `range`
  int64_t bytes = 0;             // loaded and stored, each access counted once
  int64_t bytes_stored = 0;      // of them
  std::vector<int64_t> load_bytes;  // of each load
  // Results of blocks of rows (Kernel::across), which the kernel leaves or joins: buffers behind those of
  // `slots`, in bytes from the start of the entry's own memory, of which it needs `scratch`.
  std::vector<int64_t> partials;
  int64_t scratch = 0;
};

/// `stores`: what the group must put into memory.
LoweredKernel lower(const Prepared& p, const Grouping& grouping, int32_t group,
                    const std::vector<StoreTarget>& stores);

/// A kernel for one constant.
LoweredKernel lower_constant(const Prepared& p, int32_t node);
/// A kernel that copies a value from its home (contiguous) to a destination.
LoweredKernel lower_copy(const Prepared& p, const StoreTarget& to);

/// Strides per axis of the group's space with which node `n` reads operand `k`, or with which the memory of a
/// destination (or, contiguous, of the value itself) is walked.
using SpaceStrides = std::array<int64_t, kMaxRank>;
SpaceStrides read_strides(const Prepared& p, const Grouping& grouping, int32_t node, int k);
SpaceStrides store_strides(const Prepared& p, const Grouping& grouping, const StoreTarget& target);
/// How the memory that a store goes to lies, with the sizes of the value.
ops::Layout target_layout(const Prepared& p, const StoreTarget& target);
/// Strides per axis of a space for a layout whose axes lie at `axes`.
SpaceStrides walk(const Axes& axes, const ops::Layout& layout);

/// Whether element i of the memory that `v` begins with is i, in the type of `v`: a constant 0, 1, 2...
bool counts(const Prepared& p, int32_t v);
/// Whether a pointwise kernel is walked by rows along axis `last`, though it reduces nothing: several
/// operands are a number a row, which a thread of CUDA then loads once for all its elements of the row.
bool has_numbers_of_rows(const Dims& space, int last, const std::vector<SpaceStrides>& loads,
                         const std::vector<SpaceStrides>& stores);

}  // namespace tandem::jit
