// Checks and result types of joining, index ops, fills and random ops.
#include <algorithm>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

void infer_fill(const InferCall& call, DType dtype, const Dims& sizes, std::vector<TensorType>& out) {
  for (const int64_t size : sizes)
    if (size < 0) fail_call(call, "negative size in " + to_string(sizes));
  checked_numel(sizes);
  out.push_back({dtype, cpu, false, sizes});
}

DType dtype_attribute(const InferCall& call, int attr) {
  const int64_t t = call.integer(attr);
  if (t < 0 || t >= kDTypeCount) fail_call(call, "no such type: " + std::to_string(t));
  return static_cast<DType>(t);
}

void need_rank(const InferCall& call, int i, const char* what) {
  if (operand(call, i).sizes.empty())
    fail_call(call, std::string(what) + " has rank 0: " + operand_text(call));
}

/// Operands 0 and 2 of the scatters.
void need_same_type(const InferCall& call, int i, int j) {
  if (operand(call, i).dtype != operand(call, j).dtype)
    fail_call(call, "operands " + std::to_string(i) + " and " + std::to_string(j) +
                        " have different types: " + operand_text(call) + "; cast one of them");
}

/// The index (operand 1) lies within operand 0 but along attribute 0's axis.
void need_index_within(const InferCall& call) {
  const Dims& sizes = operand(call, 0).sizes;
  const Dims& index = operand(call, 1).sizes;
  const int axis = axis_of(call, 0, sizes.rank());
  if (index.rank() != sizes.rank())
    fail_call(call, "operand and index must have one rank, found " + operand_text(call));
  for (int i = 0; i < sizes.rank(); ++i)
    if (i != axis && index[i] > sizes[i])
      fail_call(call, "the index is larger than the operand along axis " + std::to_string(i) + ": " +
                          operand_text(call));
}

/// Positions index (n) along an axis of x are changed by src.
void along_index(const InferCall& call, std::vector<TensorType>& out) {
  need_index(call, 1);
  need_rank(call, 0, "the operand");
  need_same_type(call, 0, 2);
  const TensorType& x = operand(call, 0);
  const TensorType& index = operand(call, 1);
  Dims expected = x.sizes;
  if (index.sizes.rank() != 1)
    fail_call(call, "the index must have rank 1, found " + operand_text(call) + "; use scatter_add");
  expected[axis_of(call, 0, x.sizes.rank())] = index.sizes[0];
  if (operand(call, 2).sizes != expected)
    fail_call(call,
              "the added tensor must have sizes " + to_string(expected) + ", found " + operand_text(call));
  out.push_back(result_like(call, 0, x.dtype, x.sizes));
}

/// Elements of x that index names along an axis are changed by src.
void at_index(const InferCall& call, std::vector<TensorType>& out) {
  need_index(call, 1);
  need_rank(call, 0, "the operand");
  need_same_type(call, 0, 2);
  const TensorType& x = operand(call, 0);
  if (operand(call, 1).sizes != operand(call, 2).sizes)
    fail_call(call, "index and added tensor must have the same sizes, found " + operand_text(call) +
                        "; slice the larger");
  need_index_within(call);
  out.push_back(result_like(call, 0, x.dtype, x.sizes));
}

}  // namespace

void check::cat(const InferCall& call, std::vector<TensorType>& out) {
  const TensorType& first = operand(call, 0);
  if (first.sizes.empty()) fail_call(call, "tensors of rank 0 cannot be joined; use stack");
  const int axis = axis_of(call, 0, first.sizes.rank());
  Dims sizes = first.sizes;
  for (size_t i = 1; i < call.in.size(); ++i) {
    Dims other = call.in[i].sizes;
    if (other.rank() == sizes.rank()) {
      sizes[axis] = checked_add(sizes[axis], other[axis], "cat: size", call.where);
      other[axis] = sizes[axis];
    }
    if (other != sizes)
      fail_call(call, "tensor " + std::to_string(i) + " is " + to_string(call.in[i]) + ", the first is " +
                          to_string(first) + "; they may differ along axis " + std::to_string(axis) +
                          " alone");
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, promoted_type(call, 0, static_cast<int>(call.in.size())), sizes));
}

void check::pad(const InferCall& call, std::vector<TensorType>& out) {
  need_rank(call, 0, "the operand");
  const TensorType& x = operand(call, 0);
  const int axis = axis_of(call, 0, x.sizes.rank());
  const int64_t before = call.integer(1), after = call.integer(2);
  if (before < 0 || after < 0)
    fail_call(call,
              "negative padding (" + std::to_string(before) + ", " + std::to_string(after) + "); use slice");
  Dims sizes = x.sizes;
  sizes[axis] =
      checked_add(checked_add(sizes[axis], before, "pad: size", call.where), after, "pad: size", call.where);
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void check::index_select(const InferCall& call, std::vector<TensorType>& out) {
  need_index(call, 1);
  need_rank(call, 0, "the operand");
  const TensorType& x = operand(call, 0);
  const TensorType& index = operand(call, 1);
  if (index.sizes.rank() != 1)
    fail_call(call, "the index must have rank 1, found " + operand_text(call) + "; use embedding or gather");
  Dims sizes = x.sizes;
  sizes[axis_of(call, 0, x.sizes.rank())] = index.sizes[0];
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void check::gather(const InferCall& call, std::vector<TensorType>& out) {
  need_index(call, 1);
  need_rank(call, 0, "the operand");
  const TensorType& x = operand(call, 0);
  const TensorType& index = operand(call, 1);
  need_index_within(call);
  out.push_back(result_like(call, 0, x.dtype, index.sizes));
}

void check::index_add(const InferCall& call, std::vector<TensorType>& out) { along_index(call, out); }
void check::index_copy(const InferCall& call, std::vector<TensorType>& out) { along_index(call, out); }
void check::scatter_add(const InferCall& call, std::vector<TensorType>& out) { at_index(call, out); }
void check::scatter(const InferCall& call, std::vector<TensorType>& out) { at_index(call, out); }

void check::index_fill(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  need_index(call, 1);
  need_rank(call, 0, "the operand");
  const TensorType& x = operand(call, 0);
  axis_of(call, 0, x.sizes.rank());
  if (operand(call, 1).sizes.rank() != 1)
    fail_call(call, "the index must have rank 1, found " + operand_text(call) + "; use scatter");
  out.push_back(x);
}

void check::cumsum(const InferCall& call, std::vector<TensorType>& out) {
  const TensorType& x = operand(call, 0);
  axis_of(call, 0, x.sizes.rank());
  out.push_back(result_like(call, 0, is_floating(x.dtype) ? x.dtype : DType::int64, x.sizes));
}

void check::embedding(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  need_index(call, 1);
  const TensorType& weight = operand(call, 0);
  if (weight.sizes.rank() != 2) fail_call(call, "the weight must be (V, D), found " + operand_text(call));
  Dims sizes = operand(call, 1).sizes;
  sizes.push_back(weight.sizes[1]);
  checked_numel(sizes);
  out.push_back(result_like(call, 0, weight.dtype, sizes));
}

void check::masked_fill(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  need_tensor(call, 1);
  const TensorType& x = operand(call, 0);
  const TensorType& value = operand(call, 2);
  if (operand(call, 1).dtype != DType::bool_)
    fail_call(call, "the mask must be bool, found " + operand_text(call));
  if (!value.number && numel(value.sizes) != 1)
    fail_call(call,
              "the value must be a number or have one element, found " + operand_text(call) + "; use where");
  if (is_floating(value.dtype) && !is_floating(x.dtype))
    fail_call(call, "a floating value does not fit into " + to_string(x) + "; cast the tensor first");
  out.push_back(
      result_like(call, 0, x.dtype, broadcast(x.sizes, operand(call, 1).sizes, call.op.name, call.where)));
}

void check::full(const InferCall& call, std::vector<TensorType>& out) {
  infer_fill(call, dtype_attribute(call, 0), call.list(2), out);
}

void check::arange(const InferCall& call, std::vector<TensorType>& out) {
  infer_fill(call, dtype_attribute(call, 0), {call.integer(1)}, out);
}

void check::linspace(const InferCall& call, std::vector<TensorType>& out) {
  infer_fill(call, dtype_attribute(call, 0), {call.integer(1)}, out);
}

void check::rand(const InferCall& call, std::vector<TensorType>& out) {
  const DType t = dtype_attribute(call, 0);
  if (t != DType::float32 && t != DType::float64)
    fail_call(call, std::string("draws float32 or float64, not ") + name(t) + "; cast the result");
  infer_fill(call, t, call.list(3), out);
}

void check::randn(const InferCall& call, std::vector<TensorType>& out) {
  const DType t = dtype_attribute(call, 0);
  if (!is_floating(t)) fail_call(call, std::string("needs a floating type, not ") + name(t));
  infer_fill(call, t, call.list(3), out);
}

void check::bernoulli_mask(const InferCall& call, std::vector<TensorType>& out) {
  infer_fill(call, DType::bool_, call.list(3), out);
}

}  // namespace tandem::ops
