// The evaluator's loops by themselves, for contiguous operands of one type: what eager calls for the smallest
// tensors. Pure functions, any thread; `dst` may be an operand.
#pragma once

#include <cstdint>

#include "tandem/ops/scalar.h"

namespace tandem::jit {

using DirectUnary = void (*)(void* dst, const void* a, int64_t n);
using DirectBinary = void (*)(void* dst, const void* a, const void* b, int64_t n);

/// Writes one value for each of `rows` rows of n elements, n at most kRowBlock.
using DirectReduction = void (*)(void* dst, const void* x, int64_t rows, int64_t n);

/// dst[i] = op(a[i]) and op(a[i], b[i]), operands of type `t`; comparisons give bool. Null where there is no
/// such loop.
DirectUnary direct_unary(ops::ScalarOp op, DType t);
DirectBinary direct_binary(ops::ScalarOp op, DType t);
/// The same with one element for all for `a` or for `b`.
DirectBinary direct_binary_first(ops::ScalarOp op, DType t);
DirectBinary direct_binary_second(ops::ScalarOp op, DType t);
DirectReduction direct_reduction(ops::ReduceOp op, DType t);

}  // namespace tandem::jit
