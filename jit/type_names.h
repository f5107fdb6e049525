// What the prelude of printed kernels calls the types of elements. Pure functions; any thread.
#pragma once

#include "tandem/core/dtype.h"

namespace tandem::jit {

/// Names of the prelude's types for one element and for a vector of them.
const char* c_scalar(DType t);
const char* c_vector(DType t);
/// The short name that the prelude's functions carry: "f32".
const char* c_suffix(DType t);

}  // namespace tandem::jit
