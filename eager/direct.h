// The shortest way for the most frequent eager calls, which needs no key, no plan and no inference: on small
// contiguous float tensors a pointwise op of one scalar function, also in place or with a number, and a
// reduction of all elements; of any contiguous tensor a view of other sizes. Bit-equal to the general way,
// whose chunk functions it calls; what it does not know, errors included, is left to that. Any thread.
#pragma once

#include "tandem/eager/dispatch.h"

namespace tandem::eager {

/// Runs the call if it is such a one.
bool direct(const Call& call, Ref<TensorImpl>* results);
/// The same while a profile runs, for a caller that times it.
bool direct_timed(const Call& call, Ref<TensorImpl>* results);

}  // namespace tandem::eager
