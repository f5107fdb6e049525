// Two walks made one: a column kernel's walk appended to that of a pointwise or row kernel over the same rows
// and columns, and what is left of the column kernel. Values, any thread.
#pragma once

#include "tandem/jit/lower.h"

namespace tandem::jit {

struct MergedWalks {
  LoweredKernel host;     // the other kernel, as a row kernel that leaves results of blocks of rows
  LoweredKernel joining;  // a column kernel of these
};

/// False if the two do not go together, or nothing is saved: the column kernel must read something where the
/// host reads or stores it. It has one kept dimension, neither kernel an indexed load.
bool merge_walks(const LoweredKernel& host, const LoweredKernel& column, MergedWalks& merged);
/// A column kernel's own walk, by rows, as the host. False if that is none; likewise.
bool walk_by_rows(const LoweredKernel& column, MergedWalks& merged);
/// Takes a store away.
void drop_store(LoweredKernel& l, size_t store);

}  // namespace tandem::jit
