// Checks and result types of products, normalisation, losses and updates.
#include <algorithm>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

void need_one_type(const InferCall& call) {
  for (size_t i = 1; i < call.in.size(); ++i)
    if (call.present[i] && call.in[i].dtype != call.in[0].dtype)
      fail_call(call, "operands have different types: " + operand_text(call) + "; cast one of them");
}

void same_floating(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  out.push_back(operand(call, 0));
}

void along_axis(const InferCall& call, std::vector<TensorType>& out) {
  axis_of(call, 0, operand(call, 0).sizes.rank());
  same_floating(call, out);
}

void reduced_bool(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const Dims& sizes = operand(call, 0).sizes;
  const Dims axes = normalize_axes(call.list(1), sizes.rank(), call.op.name, call.where);
  out.push_back(result_like(call, 0, DType::bool_, reduced_sizes(sizes, axes, call.integer(0) != 0)));
}

void reduced_floating(const InferCall& call, int keepdim, std::vector<TensorType>& out) {
  need_floating(call, 0);
  const TensorType& x = operand(call, 0);
  const Dims axes = normalize_axes(call.list(keepdim + 1), x.sizes.rank(), call.op.name, call.where);
  out.push_back(result_like(call, 0, x.dtype, reduced_sizes(x.sizes, axes, call.integer(keepdim) != 0)));
}

/// Result of a loss with one value per element of `sizes`: none, mean or sum.
void loss(const InferCall& call, const Dims& sizes, std::vector<TensorType>& out) {
  const int64_t reduction = call.integer(0);
  if (reduction < 0 || reduction > 2) fail_call(call, "no such reduction: " + std::to_string(reduction));
  out.push_back(result_like(call, 0, operand(call, 0).dtype, reduction == 0 ? sizes : Dims{}));
}

/// A loss of two floating tensors of one type and size.
void pair_loss(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  need_floating(call, 1);
  need_one_type(call);
  if (operand(call, 0).sizes != operand(call, 1).sizes)
    fail_call(call, "sizes differ: " + operand_text(call) + "; expand one of them if that is meant");
  loss(call, operand(call, 0).sizes, out);
}

/// Operand i, if there, holds a number per channel of x (N, C, ...).
void need_per_channel(const InferCall& call, int i, const char* what) {
  if (!call.present[static_cast<size_t>(i)]) return;
  need_floating(call, i);
  const Dims expected{operand(call, 0).sizes[1]};
  if (operand(call, i).sizes != expected)
    fail_call(call, std::string(what) + " must have sizes " + to_string(expected) + ", found " +
                        operand_text(call));
}

void need_channels(const InferCall& call) {
  need_floating(call, 0);
  if (operand(call, 0).sizes.rank() < 2)
    fail_call(call, "x must be (N, C, ...), found " + operand_text(call));
}

/// Weight and bias (operands 1 on) have the sizes of the last axes of x, as many as attribute 1 says.
void last_axes_norm(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  const TensorType& x = operand(call, 0);
  const int64_t rank = call.integer(1);
  if (rank < 1 || rank > x.sizes.rank())
    fail_call(call, "normalised rank " + std::to_string(rank) + " does not fit " + to_string(x));
  Dims expected;
  for (auto i = x.sizes.rank() - static_cast<int>(rank); i < x.sizes.rank(); ++i)
    expected.push_back(x.sizes[i]);
  for (int i = 1; i < call.op.n_in; ++i) {
    if (!call.present[static_cast<size_t>(i)]) continue;
    need_floating(call, i);
    if (operand(call, i).sizes != expected)
      fail_call(call, std::string(i == 1 ? "weight" : "bias") + " must have sizes " + to_string(expected) +
                          ", found " + operand_text(call));
  }
  out.push_back(x);
}

/// What a gradient reads besides: halves are widened for it.
void two_statistics(const InferCall& call, const Dims& sizes, std::vector<TensorType>& out) {
  const DType type = operand(call, 0).dtype;
  out.insert(out.end(), 2, result_like(call, 0, type == DType::float64 ? type : DType::float32, sizes));
}

}  // namespace

void check::std(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 1, out); }
void check::norm(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 0, out); }
void check::norm_p(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 1, out); }
void check::logsumexp(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 0, out); }
void check::nansum(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 0, out); }
void check::count_nonzero(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const Dims& sizes = operand(call, 0).sizes;
  const Dims axes = normalize_axes(call.list(0), sizes.rank(), call.op.name, call.where);
  out.push_back(result_like(call, 0, DType::int64, reduced_sizes(sizes, axes, false)));
}
void check::mean(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 0, out); }
void check::var(const InferCall& call, std::vector<TensorType>& out) { reduced_floating(call, 1, out); }
void check::any(const InferCall& call, std::vector<TensorType>& out) { reduced_bool(call, out); }
void check::all(const InferCall& call, std::vector<TensorType>& out) { reduced_bool(call, out); }

void check::matmul(const InferCall& call, std::vector<TensorType>& out) {
  need_one_type(call);
  const Dims& a = operand(call, 0).sizes;
  const Dims& b = operand(call, 1).sizes;
  if (operand(call, 0).dtype == DType::bool_)
    fail_call(call, "is not defined for bool, found " + operand_text(call));
  if (a.empty() || b.empty()) fail_call(call, "an operand has rank 0: " + operand_text(call) + "; use mul");
  const int64_t inner_b = b[std::max(b.rank() - 2, 0)];
  if (a.back() != inner_b) {
    const bool transposed = b.rank() >= 2 && a.back() == b.back();
    fail_call(call, "inner sizes differ: " + to_string(a) + " x " + to_string(b) +
                        (transposed ? "; transpose the second?"
                                    : "; columns of the first must equal rows of the second"));
  }
  Dims batch_a, batch_b;
  for (int i = 0; i + 2 < a.rank(); ++i) batch_a.push_back(a[i]);
  for (int i = 0; i + 2 < b.rank(); ++i) batch_b.push_back(b[i]);
  Dims sizes;
  try {
    sizes = broadcast(batch_a, batch_b, "matmul");
  } catch (const Error&) {
    fail_call(call, "batch sizes do not broadcast: " + to_string(a) + " x " + to_string(b));
  }
  if (a.rank() >= 2) sizes.push_back(a[a.rank() - 2]);
  if (b.rank() >= 2) sizes.push_back(b.back());
  checked_numel(sizes);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::linear(const InferCall& call, std::vector<TensorType>& out) {
  need_one_type(call);
  const TensorType& x = operand(call, 0);
  const TensorType& w = operand(call, 1);
  if (x.dtype == DType::bool_) fail_call(call, "is not defined for bool, found " + operand_text(call));
  if (x.sizes.empty() || w.sizes.rank() != 2)
    fail_call(call, "expected x (..., K) and weight (N, K), found " + operand_text(call));
  if (x.sizes.back() != w.sizes[1]) {
    const bool transposed = x.sizes.back() == w.sizes[0];
    fail_call(call, "inner sizes differ: x " + to_string(x.sizes) + ", weight " + to_string(w.sizes) +
                        (transposed ? "; the weight is (N, K): transpose it?" : "; the weight is (N, K)"));
  }
  if (call.present[2] && operand(call, 2).sizes != Dims{w.sizes[0]})
    fail_call(call,
              "the bias must have sizes " + to_string(Dims{w.sizes[0]}) + ", found " + operand_text(call));
  Dims sizes = x.sizes;
  sizes[sizes.rank() - 1] = w.sizes[0];
  checked_numel(sizes);
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void check::softmax(const InferCall& call, std::vector<TensorType>& out) { along_axis(call, out); }
void check::log_softmax(const InferCall& call, std::vector<TensorType>& out) { along_axis(call, out); }
void check::gelu(const InferCall& call, std::vector<TensorType>& out) { same_floating(call, out); }
void check::dropout(const InferCall& call, std::vector<TensorType>& out) { same_floating(call, out); }

void check::layer_norm(const InferCall& call, std::vector<TensorType>& out) {
  last_axes_norm(call, out);
  Dims rows = out[0].sizes;
  for (auto i = rows.rank() - static_cast<int>(call.integer(1)); i < rows.rank(); ++i) rows[i] = 1;
  two_statistics(call, rows, out);
}
void check::rms_norm(const InferCall& call, std::vector<TensorType>& out) { last_axes_norm(call, out); }

void check::group_norm(const InferCall& call, std::vector<TensorType>& out) {
  need_channels(call);
  const TensorType& x = operand(call, 0);
  const int64_t groups = call.integer(1);
  if (groups < 1 || x.sizes[1] % groups != 0)
    fail_call(call, std::to_string(groups) + " groups do not divide the " + std::to_string(x.sizes[1]) +
                        " channels of " + to_string(x));
  need_per_channel(call, 1, "weight");
  need_per_channel(call, 2, "bias");
  out.push_back(x);
  two_statistics(call, {x.sizes[0], groups}, out);
}

void check::batch_norm(const InferCall& call, std::vector<TensorType>& out) {
  need_channels(call);
  constexpr const char* kNames[] = {"x", "mean", "var", "weight", "bias"};
  for (int i = 1; i < 5; ++i) need_per_channel(call, i, kNames[i]);
  out.push_back(operand(call, 0));
}

void check::batch_norm_train(const InferCall& call, std::vector<TensorType>& out) {
  need_channels(call);
  need_per_channel(call, 1, "weight");
  need_per_channel(call, 2, "bias");
  const TensorType& x = operand(call, 0);
  if (x.sizes[1] > 0 && numel(x.sizes) / x.sizes[1] == 1)
    fail_call(call, "more than one value per channel is needed in training, found " + operand_text(call));
  const DType wide = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  const TensorType statistics = result_like(call, 0, wide, {x.sizes[1]});
  out.insert(out.end(), {x, statistics, statistics, statistics});
}

void check::glu(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  const TensorType& x = operand(call, 0);
  if (x.sizes.empty()) fail_call(call, "the operand has rank 0: " + operand_text(call));
  Dims sizes = x.sizes;
  int64_t& size = sizes[axis_of(call, 0, sizes.rank())];
  if (size % 2 != 0) fail_call(call, "the axis must have an even size, found " + operand_text(call));
  size /= 2;
  out.push_back(result_like(call, 0, x.dtype, sizes));
}

void check::cross_entropy(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  need_index(call, 1);
  const Dims& logits = operand(call, 0).sizes;
  const Dims& labels = operand(call, 1).sizes;
  if (logits.rank() != 2) fail_call(call, "logits must be (N, C), found " + operand_text(call));
  if (labels != Dims{logits[0]})
    fail_call(call, "labels must be (N) for logits (N, C), found " + operand_text(call));
  if (logits[1] == 0) fail_call(call, "no classes in " + operand_text(call));
  loss(call, labels, out);
  two_statistics(call, labels, out);
}

void check::nll_loss(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  need_index(call, 1);
  const Dims& logp = operand(call, 0).sizes;
  if (logp.rank() != 2) fail_call(call, "log-probabilities must be (N, C), found " + operand_text(call));
  if (operand(call, 1).sizes != Dims{logp[0]})
    fail_call(call, "labels must be (N) for log-probabilities (N, C), found " + operand_text(call));
  need_per_channel(call, 2, "weight");
  loss(call, operand(call, 1).sizes, out);
}

void check::mse_loss(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }
void check::l1_loss(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }
void check::smooth_l1_loss(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }
void check::huber_loss(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }
void check::binary_cross_entropy(const InferCall& call, std::vector<TensorType>& out) {
  pair_loss(call, out);
}
void check::kl_div(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }
void check::soft_margin_loss(const InferCall& call, std::vector<TensorType>& out) { pair_loss(call, out); }

void check::binary_cross_entropy_with_logits(const InferCall& call, std::vector<TensorType>& out) {
  const bool weighed = call.present[2];
  if (weighed) {
    need_floating(call, 2);
    const Dims& sizes = operand(call, 0).sizes;
    if (broadcast(sizes, operand(call, 2).sizes, call.op.name, call.where) != sizes)
      fail_call(call, "the weight of positive cases does not broadcast to the logits: " + operand_text(call));
  }
  pair_loss(call, out);
}

void check::cosine_similarity(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  need_floating(call, 1);
  need_one_type(call);
  const TensorType& a = operand(call, 0);
  if (a.sizes != operand(call, 1).sizes || a.sizes.empty())
    fail_call(call, "two tensors of one size with at least one axis are needed, found " + operand_text(call));
  const Dims axes{axis_of(call, 0, a.sizes.rank())};
  out.push_back(result_like(call, 0, a.dtype, reduced_sizes(a.sizes, axes, false)));
}

void check::copy(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const TensorType& to = operand(call, 0);
  const TensorType& from = operand(call, 1);
  if (!from.number && broadcast(to.sizes, from.sizes, call.op.name, call.where) != to.sizes)
    fail_call(call, to_string(from) + " does not broadcast to " + to_string(to));
  out.push_back(to);
}

void check::full_like(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  out.push_back(operand(call, 0));
}

void check::update(const InferCall& call, std::vector<TensorType>& out) {
  const int guard = call.op.n_in - 1;
  for (int i = 0; i < guard; ++i) {
    need_floating(call, i);
    if (operand(call, i).sizes != operand(call, 0).sizes)
      fail_call(call, "parameter, gradient and state must have the same sizes, found " + operand_text(call));
  }
  if (call.present[static_cast<size_t>(guard)]) {
    need_floating(call, guard);
    if (const Dims wanted{1 + step_numbers(call.op.id)}; operand(call, guard).sizes != wanted)
      fail_call(call, "the guard must have the sizes " + to_string(wanted) + ", found " +
                          to_string(operand(call, guard).sizes));
  }
  for (int j = 0; j < call.op.n_out; ++j) out.push_back(operand(call, call.op.writes[j]));
}

}  // namespace tandem::ops
