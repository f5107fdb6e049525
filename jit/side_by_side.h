// Rows that lie side by side in memory: where the elements of a row are apart, but those of neighbouring rows
// next to each other, the C printer walks 16 rows at a time, in the tree of rows. For the CPU; values, any
// thread.
#pragma once

namespace tandem::jit {

struct LoweredKernel;
struct Prepared;

/// Marks a row kernel whose rows lie so (Kernel::side_by_side): along the last kept dimension each operand
/// and result of its elements moves by one or not at all, and along the reduced ones none moves by one. A
/// pointwise kernel whose last dimension is short becomes one of rows along the dimension before, where an
/// operand is the same for all of these: it is loaded once. Not where the kernel asks for an element's
/// position or looks operands up.
void mark_side_by_side(LoweredKernel& l, const Prepared& p);

}  // namespace tandem::jit
