// The shortest way for the most frequent eager calls: a pointwise op of one scalar function over contiguous
// float tensors of equal shape needs no key, no plan and no inference. Bit-equal to the general way, whose
// chunk functions it calls.
#pragma once

#include "tandem/eager/dispatch.h"

namespace tandem::eager {

/// Runs the call if it is such a one.
bool direct(const Call& call, Ref<TensorImpl>* results);
/// The same while a profile runs, for a caller that times it.
bool direct_timed(const Call& call, Ref<TensorImpl>* results);

}  // namespace tandem::eager
