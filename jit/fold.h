// Local simplifications, for the pass `fold`: what one node can become when its operands are known. Free
// functions over values, any thread.
#pragma once

#include "tandem/jit/graph.h"

namespace tandem::jit {

/// A value of `g` that equals, bit for bit, the only result (of type `type`) of node `n`, whose operands are
/// values of `g`; the value may be appended. -1 if `n` stays as it is.
int32_t folded(Graph& g, const Node& n, const TensorType& type);

}  // namespace tandem::jit
