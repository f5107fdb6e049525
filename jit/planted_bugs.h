// Bugs that a test build (TANDEM_TEST_SWITCHES) can plant, one at a time, to show that the tests of random
// graphs notice them. Elsewhere `planted` is a constant. Set before graphs are built and read on many
// threads.
#pragma once

namespace tandem::jit {

enum class PlantedBug {
  none,
  attributes_ignored,   // common_subexpressions: nodes that differ in attributes alone become one
  writes_dropped,       // dead_code: writes are no reason to live
  times_zero,           // fold: x * 0 is 0, whatever x
  reduction_order,      // grouping: a fused reduction walks its axes in the order of its group
  broadcast_axis,       // lowering: axes of a smaller operand count from the front
  arena_overlap,        // arena: memory is free one entry too early
  write_before_read,    // plan: an input is overwritten although a later entry reads it
  permutation_ignored,  // prepare: a permuted view walks memory in order
  numbers_swapped,      // plan: a fused kernel is given its numbers in another order
  rounding_skipped,     // lowering: inside a kernel halves stay float32
  count_
};

#ifdef TANDEM_TEST_SWITCHES
extern PlantedBug planted_bug;
inline bool planted(PlantedBug bug) { return planted_bug == bug; }
#else
constexpr bool planted(PlantedBug) { return false; }
#endif

}  // namespace tandem::jit
