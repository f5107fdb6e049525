// Padding under PyTorch's name. Included by functions.h. Stateless; any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// What is put around a tensor: a number; its elements mirrored at those of its edges; those of its edges;
/// or those of the other end, as if it went round.
enum class PadMode : uint8_t { constant, reflect, replicate, circular };

/// x with `sizes` {before, after} more positions at the last axis, {before, after} at the one before it, ...;
/// negative ones cut positions off. `value` is constant's alone. Errors: sizes that are no pairs or too many;
/// more than an axis has to mirror (its size - 1) or to go round (its size); nothing to repeat.
Tensor pad(const Tensor& x, const Dims& sizes, PadMode mode = PadMode::constant, AnyNumber value = 0,
           Location where = Location::here());

}  // namespace tandem
