// The message for an index or label that is out of range, made after a run has failed. Free function, any
// thread.
#pragma once

#include "tandem/eager/interceptor.h"

namespace tandem::eager {

/// "index 7 is out of range for axis 0 of float32(2, 3)"; "index out of range" if no operand is to blame (an
/// op inside of a gradient or a composite that is not known here).
std::string index_error(const Call& call);

}  // namespace tandem::eager
