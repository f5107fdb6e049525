// Kernels behind a product: on the CPU own tiles make rows of a product in any order, so a kernel that needs
// of it only the row that it works on runs over each block of rows while they are in the cache, in the
// product's entry. Values; built on one thread.
#pragma once

#include "tandem/jit/placement.h"

namespace tandem::jit {

/// The rows of a product's result over all its matrices, in the order of its memory; 0 if no kernel may
/// follow it by rows: only own tiles give an element the same bits in every block.
int64_t rows_of(const Contraction& c);

/// Gives products the kernels that can follow them (Unit::tails); those units make no entry of their own.
void attach_tails(const Prepared& p, const Grouping& grouping, std::vector<Unit>& units);

}  // namespace tandem::jit
