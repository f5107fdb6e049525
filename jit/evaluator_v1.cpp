// The evaluator's loops for x86-64 as it began (see cmake/library.cmake for the flags).
#include "tandem/jit/evaluator_chunks.h"

namespace tandem::jit {

namespace {
#include "tandem/jit/prelude.h"

#include "tandem/jit/evaluator_chunks.inc"
}  // namespace

const ChunkFunctions kChunksV1 = {"v1", unary, binary, ternary, cast, fill, iota, reducer};

}  // namespace tandem::jit
