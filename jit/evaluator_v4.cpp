// The evaluator's loops for AVX-512 (see cmake/library.cmake for the flags).
#include "tandem/jit/evaluator_chunks.h"

namespace tandem::jit {

namespace {
#include "tandem/jit/prelude.h"

#include "tandem/jit/evaluator_chunks.inc"
}  // namespace

const ChunkFunctions kChunksV4 = {"v4", unary, binary, ternary, cast, fill, iota, reducer};

}  // namespace tandem::jit
