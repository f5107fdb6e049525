#include "tandem/jit/evaluator_chunks.h"

#include "tandem/jit/evaluator_direct.h"

namespace tandem::jit {

int runnable_chunk_functions(const ChunkFunctions* out[3]) {
  int n = 0;
  out[n++] = &kChunksV1;
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (v3) out[n++] = &kChunksV3;
  if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    out[n++] = &kChunksV4;
  return n;
}

const ChunkFunctions& chunk_functions() {
  static const ChunkFunctions* const best = [] {
    const ChunkFunctions* all[3];
    return all[runnable_chunk_functions(all) - 1];
  }();
  return *best;
}

DirectUnary direct_unary(ops::ScalarOp op, DType t) { return chunk_functions().unary(op, t); }
DirectBinary direct_binary(ops::ScalarOp op, DType t) { return chunk_functions().binary(op, t, 0); }
DirectBinary direct_binary_first(ops::ScalarOp op, DType t) { return chunk_functions().binary(op, t, 1); }
DirectBinary direct_binary_second(ops::ScalarOp op, DType t) { return chunk_functions().binary(op, t, 2); }
DirectReduction direct_reduction(ops::ReduceOp op, DType t) {
  const Reducer* r = chunk_functions().reducer(op, t);
  return r ? r->rows : nullptr;
}

}  // namespace tandem::jit
