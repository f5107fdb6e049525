// What checks of calls share: messages that name op, operands and a hint. Stateless; any thread.
#pragma once

#include "tandem/core/error.h"
#include "tandem/ops/op.h"

namespace tandem::ops {

/// Throws `op: text` at the call's line.
[[noreturn, gnu::cold]] void fail_call(const InferCall& call, const std::string& text);
/// "float32(3, 4), int64(5,)".
std::string operand_text(const InferCall& call);

inline const TensorType& operand(const InferCall& call, int i) { return call.in[static_cast<size_t>(i)]; }
inline int axis_of(const InferCall& call, int attr, int rank) {
  return normalize_axis(call.integer(attr), rank, call.op.name, call.where);
}
void need_tensor(const InferCall& call, int i);
void need_floating(const InferCall& call, int i);
/// int32 or int64.
void need_index(const InferCall& call, int i);
/// A result on the device of operand i.
inline TensorType result_like(const InferCall& call, int i, DType dtype, const Dims& sizes) {
  return {dtype, operand(call, i).device, false, sizes};
}

/// Promotion of operands [first, last) as in PyTorch: tensors with axes before scalars before numbers.
DType promoted_type(const InferCall& call, int first, int last);
/// The sizes left by a reduction over `axes`.
Dims reduced_sizes(const Dims& sizes, const Dims& axes, bool keepdim);

}  // namespace tandem::ops
