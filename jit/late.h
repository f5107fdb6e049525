// Values that are better computed late. A function of a prepared graph, any thread.
#pragma once

#include "tandem/jit/prepare.h"

namespace tandem::jit {

/// Whether a pointwise node long behind its operands had better read them again there than be computed beside
/// them and be kept, nearly as large, until it is needed: others read them at that time, so they are kept
/// anyway. (The mask of a relu's gradient is one: the gradient of the convolution behind it, which comes
/// first, reads the relu's result.)
bool reads_again(const Prepared& p, int32_t node);

}  // namespace tandem::jit
