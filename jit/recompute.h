// Values that kernels had better compute again than load: looked for after a first grouping, which says what
// would be stored for whom. A function of values, any thread.
#pragma once

#include "tandem/jit/grouping.h"

namespace tandem::jit {

/// `g` with copies of the nodes that readers are to compute for themselves (Node::again), if any; grouped
/// again, these join their readers. `p` and `r`: `g` prepared and grouped. `host`: for the CPU; on a device
/// sums over columns load what there is. False, and no change, if none pays.
bool recompute_for_readers(Graph& g, const Prepared& p, const Grouping& r, bool host);

}  // namespace tandem::jit
