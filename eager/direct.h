// The shortest way for the most frequent eager calls: a pointwise op of one scalar function over contiguous
// float tensors of equal shape needs no key, no plan and no inference. Bit-equal to the general way, whose
// chunk functions it calls.
#pragma once

#include "tandem/eager/dispatch.h"

namespace tandem::eager {

/// Runs the call if it is such a one.
bool direct(const Call& call, Ref<TensorImpl>* results);

}  // namespace tandem::eager
