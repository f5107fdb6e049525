// Checks and result types of scans and of what rearranges elements.
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// One result like the operand, along attribute 0's axis.
void scan(const InferCall& call, DType type, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  axis_of(call, 0, x.sizes.rank());
  out.push_back(result_like(call, 0, type, x.sizes));
}

void extremum(const InferCall& call, std::vector<TensorType>& out) {
  scan(call, operand(call, 0).dtype, out);
  out.push_back(result_like(call, 0, DType::int64, operand(call, 0).sizes));
}

void matrices(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  if (operand(call, 0).sizes.rank() < 2)
    fail_call(call, "needs matrices (..., R, C), found " + operand_text(call));
  out.push_back(operand(call, 0));
}

}  // namespace

void check::cumprod(const InferCall& call, std::vector<TensorType>& out) {
  const DType t = operand(call, 0).dtype;
  scan(call, is_floating(t) ? t : DType::int64, out);
}
void check::cummax(const InferCall& call, std::vector<TensorType>& out) { extremum(call, out); }
void check::cummin(const InferCall& call, std::vector<TensorType>& out) { extremum(call, out); }
void check::logcumsumexp(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  scan(call, operand(call, 0).dtype, out);
}
void check::argsort(const InferCall& call, std::vector<TensorType>& out) {
  scan(call, DType::int64, out);
  Dims& sizes = out.back().sizes;
  const int64_t count = call.integer(2), n = sizes.empty() ? 1 : sizes[axis_of(call, 0, sizes.rank())];
  if (count == -1) return;
  if (count < 0 || count > n || (count == 0 && sizes.empty()))
    fail_call(call, "count must be -1 or lie in [" + std::to_string(sizes.empty()) + ", " +
                        std::to_string(n) + "], found " + std::to_string(count));
  if (!sizes.empty()) sizes[axis_of(call, 0, sizes.rank())] = count;
}

void check::one_hot(const InferCall& call, std::vector<TensorType>& out) {
  need_index(call, 0);
  const int64_t classes = call.integer(0);
  if (classes < 0) fail_call(call, "a negative number of classes: " + std::to_string(classes));
  Dims sizes = operand(call, 0).sizes;
  if (sizes.rank() == kMaxRank) fail_call(call, "no room for another axis in " + operand_text(call));
  sizes.push_back(classes);
  checked_numel(sizes);
  out.push_back(result_like(call, 0, DType::int64, sizes));
}

void check::flip(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  normalize_axes(call.list(0), operand(call, 0).sizes.rank(), call.op.name, call.where);
  out.push_back(operand(call, 0));
}

void check::roll(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  if (x.sizes.empty()) fail_call(call, "the operand has rank 0: " + operand_text(call));
  axis_of(call, 1, x.sizes.rank());
  out.push_back(x);
}

void check::repeat(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  Dims sizes = call.list(0);
  const int fresh = sizes.rank() - x.sizes.rank();
  if (fresh < 0)
    fail_call(call, "repeats " + to_string(sizes) + " must be as many as the axes of " + to_string(x) +
                        ", or more");
  for (int i = 0; i < sizes.rank(); ++i) {
    if (sizes[i] < 0) fail_call(call, "a negative number of repeats in " + to_string(sizes));
    if (i >= fresh) sizes[i] = checked_mul(sizes[i], x.sizes[i - fresh], "repeat: size", call.where);
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void check::tril(const InferCall& call, std::vector<TensorType>& out) { matrices(call, out); }
void check::triu(const InferCall& call, std::vector<TensorType>& out) { matrices(call, out); }

void check::diag_embed(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& x = operand(call, 0);
  if (x.sizes.empty() || x.sizes.rank() == kMaxRank)
    fail_call(call, "needs at least one axis, and room for another, found " + operand_text(call));
  const int rank = x.sizes.rank() + 1;
  const int a = axis_of(call, 1, rank), b = axis_of(call, 2, rank);
  if (a == b) fail_call(call, "both axes are " + std::to_string(a));
  const int64_t offset = call.integer(0);
  if (offset == INT64_MIN) fail_call(call, "no such diagonal: " + std::to_string(offset));
  const int64_t n =
      checked_add(x.sizes.back(), offset < 0 ? -offset : offset, "diag_embed: size", call.where);
  Dims sizes;
  for (int i = 0, next = 0; i < rank; ++i) sizes.push_back(i == a || i == b ? n : x.sizes[next++]);
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

}  // namespace tandem::ops
