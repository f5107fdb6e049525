// Checks and result types of convolutions.
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Axis i of a window: stride, padding, dilation, and what else the op lists.
struct Window {
  Dims stride, padding, dilation, more;
};

void need_list(const InferCall& call, const Dims& list, int attr, int axes, int64_t least) {
  constexpr int64_t kMost = int64_t{1} << 31;  // what is computed of it stays far from the end of int64
  bool fits = list.rank() == axes;
  for (const int64_t v : list) fits = fits && v >= least && v < kMost;
  if (!fits)
    fail_call(call, std::string(call.op.attrs[attr].name) + " must be " + std::to_string(axes) +
                        (axes == 1 ? " number" : " numbers") + " of at least " + std::to_string(least) +
                        ", one an axis, found " + to_string(list));
}

/// Ranks, types and lists that all three ops share. The lists are attributes 2 to 5.
Window checked_window(const InferCall& call) {
  const int rank = operand(call, 0).sizes.rank();
  if (rank < 3 || rank > 5 || operand(call, 1).sizes.rank() != rank)
    fail_call(call, "needs operands of one rank, 3 to 5: batch, channels and one to three axes; found " +
                        operand_text(call));
  for (size_t i = 1; i < call.in.size(); ++i)
    if (call.present[i] && call.in[i].dtype != call.in[0].dtype)
      fail_call(call, "operands have different types: " + operand_text(call) + "; cast one of them");
  if (operand(call, 0).dtype == DType::bool_)
    fail_call(call, "is not defined for bool, found " + operand_text(call) + "; cast to a floating type");
  if (call.integer(0) < 1)
    fail_call(call, "groups must be at least 1, found " + std::to_string(call.integer(0)));
  const int axes = rank - 2;
  Window w{call.list(2), call.list(3), call.list(4), {}};
  need_list(call, w.stride, 2, axes, 1);
  need_list(call, w.padding, 3, axes, 0);
  need_list(call, w.dilation, 4, axes, 1);
  if (call.op.n_attrs > 5) {
    w.more = call.list(5);
    need_list(call, w.more, 5, axes, call.op.id == OpId::convolution_weight);
  }
  return w;
}

void check_kernel(const InferCall& call) {
  const Dims& w = operand(call, 1).sizes;
  for (int i = 2; i < w.rank(); ++i)
    if (w[i] < 1) fail_call(call, "the kernel has no elements: " + operand_text(call));
}

void check_bias(const InferCall& call, int64_t channels) {
  if (!call.present[2] || operand(call, 2).sizes == Dims{channels}) return;
  fail_call(call, "the bias must have sizes " + to_string(Dims{channels}) + ", found " + operand_text(call));
}

void check_groups(const InferCall& call, int64_t channels, const char* what) {
  if (channels % call.integer(0) != 0)
    fail_call(call, std::to_string(channels) + " " + what + " do not divide into " +
                        std::to_string(call.integer(0)) + " groups: " + operand_text(call));
}

/// What a kernel of `size` elements reaches over.
int64_t reach(int64_t size, int64_t dilation) {
  return checked_add(checked_mul(dilation, size - 1, "kernel"), 1);
}

/// Positions of a window along an axis; below 1: it does not fit.
int64_t positions(int64_t in, int64_t kernel, const Window& w, int i) {
  const int64_t room = checked_add(in, 2 * w.padding[i]) - reach(kernel, w.dilation[i]);
  return room < 0 ? 0 : room / w.stride[i] + 1;
}

}  // namespace

void check::convolution(const InferCall& call, std::vector<TensorType>& out) {
  const Window window = checked_window(call);
  const Dims &x = operand(call, 0).sizes, &w = operand(call, 1).sizes;
  check_kernel(call);
  const int64_t channels = checked_mul(w[1], call.integer(0), "number of channels");
  if (x[1] != channels)
    fail_call(call, "the weight takes " + std::to_string(channels) + " channels (" + std::to_string(w[1]) +
                        " in each of " + std::to_string(call.integer(0)) + " groups), x has " +
                        std::to_string(x[1]) + ": " + operand_text(call));
  check_groups(call, w[0], "output channels");
  check_bias(call, w[0]);
  Dims sizes{x[0], w[0]};
  for (int i = 0; i < x.rank() - 2; ++i) {
    sizes.push_back(positions(x[i + 2], w[i + 2], window, i));
    if (sizes.back() < 1)
      fail_call(call, "the kernel, dilated, is larger than x with its padding along axis " +
                          std::to_string(i + 2) + ": " + operand_text(call));
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::convolution_input(const InferCall& call, std::vector<TensorType>& out) {
  const Window window = checked_window(call);
  const Dims &y = operand(call, 0).sizes, &w = operand(call, 1).sizes;
  check_kernel(call);
  if (y[1] != w[0])
    fail_call(call, "the weight is for " + std::to_string(w[0]) + " channels, the operand has " +
                        std::to_string(y[1]) + ": " + operand_text(call));
  check_groups(call, w[0], "input channels");
  const int64_t channels = checked_mul(w[1], call.integer(0), "number of channels");
  check_bias(call, channels);
  Dims sizes{y[0], channels};
  for (int i = 0; i < y.rank() - 2; ++i) {
    if (y[i + 2] < 1) fail_call(call, "no positions to start from: " + operand_text(call));
    const int64_t spread = checked_mul(y[i + 2] - 1, window.stride[i], "size");
    const int64_t covered = checked_add(spread, reach(w[i + 2], window.dilation[i]), "size");
    sizes.push_back(checked_add(covered - 2 * window.padding[i], window.more[i]));
    if (sizes.back() < 0)
      fail_call(call, "padding " + std::to_string(window.padding[i]) + " leaves nothing of the " +
                          std::to_string(covered) + " positions along axis " + std::to_string(i + 2) + ": " +
                          operand_text(call));
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::convolution_weight(const InferCall& call, std::vector<TensorType>& out) {
  const Window window = checked_window(call);
  const Dims &x = operand(call, 0).sizes, &y = operand(call, 1).sizes;
  if (x[0] != y[0]) fail_call(call, "batch sizes differ: " + operand_text(call));
  check_groups(call, x[1], "input channels");
  check_groups(call, y[1], "output channels");
  Dims sizes{y[1], x[1] / call.integer(0)};
  for (int i = 0; i < x.rank() - 2; ++i) {
    sizes.push_back(window.more[i]);
    const int64_t most = positions(x[i + 2], window.more[i], window, i);
    if (y[i + 2] < 1 || y[i + 2] > most)
      fail_call(call, "a kernel of " + std::to_string(window.more[i]) + " has 1 to " + std::to_string(most) +
                          " positions along axis " + std::to_string(i + 2) + ", found " + operand_text(call));
  }
  checked_numel(sizes);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

}  // namespace tandem::ops
