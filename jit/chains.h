// Small kernels that need one another in one launch: a thread block runs them one after the other, where the
// card would begin a launch for each, which takes longer than what they do. Values; built on one thread.
#pragma once

#include "tandem/jit/placement.h"

namespace tandem::jit {

/// Gives units the small kernels that wait for theirs (Unit::chain); those make no entry of their own. For
/// CUDA, after units that are alike are joined. Bits stay: a kernel's results do not depend on its grid.
void attach_chains(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping);

}  // namespace tandem::jit
