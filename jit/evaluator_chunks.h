// What the chunk evaluator calls: loops over up to a few thousand elements, one per scalar function, type and
// operand shape, compiled once per instruction set. Pure functions, any thread. Addresses need no alignment;
// results may replace an operand in place.
#pragma once

#include <cstdint>

#include "tandem/ops/scalar.h"

namespace tandem::jit {

using Unary = void (*)(void* out, const void* a, int64_t n);
using Binary = void (*)(void* out, const void* a, const void* b, int64_t n);
using Ternary = void (*)(void* out, const void* a, const void* b, const void* c, int64_t n);

/// One kind of reduction of one type, in the trees of kernel.h. `indices` belongs to argmax and argmin alone.
struct Reducer {
  /// `rows` rows of n elements, n at most kRowBlock; `out`: one value, or index, each.
  void (*rows)(void* out, const void* x, int64_t rows, int64_t n);
  /// Longer rows: a block is begun, added to in pieces (`first` a multiple of kLanes) and joined to the
  /// totals.
  void (*lanes_begin)(void* state);
  void (*lanes_add)(void* state, const void* x, int64_t n, int64_t first);
  void (*lanes_end)(void* value, int64_t* index, const void* state, bool first_block);
  /// Columns: x has `rows` rows of `columns` elements; `first` is the first row's position.
  void (*columns_begin)(void* values, int64_t* indices, int64_t columns);
  void (*columns_add)(void* values, int64_t* indices, const void* x, int64_t rows, int64_t columns,
                      int64_t first);
  void (*columns_join)(void* values, int64_t* indices, const void* more, const int64_t* more_indices,
                       int64_t columns);
};
inline constexpr int64_t kLaneState = 2048;  // bytes of `state`

/// Bits of `uniform`: operand k is one element for all. Null where there is no such loop: for 0, the function
/// does not exist in this type; else a chunk filled with the element does it.
struct ChunkFunctions {
  const char* name;
  Unary (*unary)(ops::ScalarOp op, DType type);
  Binary (*binary)(ops::ScalarOp op, DType type, unsigned uniform);  // 0 .. 2
  Ternary (*ternary)(ops::ScalarOp op, DType type,
                     unsigned uniform);  // 0 .. 6; random functions: seed and offset are uniform
  Unary (*cast)(DType from, DType to);
  Unary (*fill)(int64_t itemsize);  // `a`: one element
  void (*iota)(int64_t* out, int64_t first, int64_t n);
  const Reducer* (*reducer)(ops::ReduceOp op, DType type);  // float32, float64, int64
};

extern const ChunkFunctions kChunksV1, kChunksV3, kChunksV4;
/// For x86-64 as it began, with AVX2 and FMA, with AVX-512: the best that this processor runs.
const ChunkFunctions& chunk_functions();
/// Those that this processor runs, from the oldest.
int runnable_chunk_functions(const ChunkFunctions* out[3]);

}  // namespace tandem::jit
