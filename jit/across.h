// Sums over columns that are made in a walk over rows: a column kernel that reads what a pointwise or row
// kernel reads or writes leaves its walk to that kernel, which keeps the results of each block of rows
// (Kernel::across); what is left of the column kernel joins the blocks. On the CPU large column kernels that
// find no such kernel do their own walk so: threads then have rows, not columns, of one another's pages.
// Values; built on one thread.
#pragma once

#include "tandem/jit/placement.h"

namespace tandem::jit {

/// Gives units the column kernels whose walks theirs can do (Unit::columns); those make no entry of their
/// own. A column kernel that walks by itself gets a further unit, of its group, that joins. Bits stay: blocks
/// of rows are the leaves of the columns' tree. Before units that are alike are joined. `host`: for the CPU;
/// on CUDA only where blocks of rows fill a card.
void attach_columns(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping, bool host);

}  // namespace tandem::jit
