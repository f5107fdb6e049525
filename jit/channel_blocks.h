// Channels in blocks: between convolutions of the CPU's library and what else can read them, values (N, C,
// *in) become (N, C / b, *in, b), as the library computes them, so that calls need not bring them there and
// back. Convolutions and max pooling take such operands (ops/convolution.def, pooling.def), pointwise ops
// any, and sums over positions are those of the same value, transposed; copies are made by the kernels below.
// Values only, any thread.
#pragma once

#include "tandem/jit/graph.h"

namespace tandem::jit {

/// An Error if a call of `g` has operands in blocks that cannot be computed so: blocks are the CPU's, in
/// convolutions those of shapes that its library computes.
void check_channel_blocks(const Graph& g, Device device);

/// A graph after the passes, for the CPU. Exact.
Graph with_channel_blocks(const Graph& g);

/// (N, C, *in) to (N, C / block, *in, block); block is 8 or 16.
OpId to_blocks(int64_t block);
/// (N, C / b, *in, b) to (N, C, *in).
OpId from_blocks();
/// Whether `op` is one of these, none of which throws.
bool lays_out_channels(OpId op);

}  // namespace tandem::jit
