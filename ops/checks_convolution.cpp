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

/// The block of an operand of `axes` spatial axes whose channels lie in blocks; 0: they do not.
int64_t block_of(const Dims& sizes, int axes) { return sizes.rank() == axes + 3 ? sizes[axes + 2] : 0; }
/// x or y without blocks.
Dims without_blocks(Dims sizes, int axes) {
  if (const int64_t block = block_of(sizes, axes)) {
    sizes[1] = checked_mul(sizes[1], block, "number of channels");
    sizes.resize(sizes.rank() - 1);
  }
  return sizes;
}
/// The weight with its outputs on one axis.
Dims without_split(Dims w, int axes) {
  if (w.rank() == axes + 3) {
    w[0] = checked_mul(w[0], w[1], "number of channels");
    w.erase(1);
  }
  return w;
}
/// Of x or y, whose channels fill blocks.
Dims with_blocks(Dims sizes, int64_t block) {
  sizes[1] /= block;
  sizes.push_back(block);
  return sizes;
}

/// Ranks, types and lists that all three ops share. The lists are attributes 2 to 5.
Window checked_window(const InferCall& call) {
  const int first = operand(call, 0).sizes.rank(), second = operand(call, 1).sizes.rank();
  const int split = call.list(2).rank() + 3;  // axes of what lies in blocks
  const auto blocked = [&](int i) {
    const TensorType& t = operand(call, i);
    if (t.sizes.rank() != split || t.dtype != DType::float32) return false;
    if (i == 1 && call.op.id == OpId::convolution_input) return false;
    const int64_t block = t.sizes[i == 1 && call.op.id == OpId::convolution ? 1 : split - 1];
    return block == 8 || block == 16;
  };
  const int rank = blocked(0) || blocked(1) ? split - 1 : first;
  if (rank < 3 || rank > 5 || (first != rank && !blocked(0)) || (second != rank && !blocked(1)))
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
  const int axes = window.stride.rank();
  const Dims x = without_blocks(operand(call, 0).sizes, axes),
             w = without_split(operand(call, 1).sizes, axes);
  const bool split = operand(call, 1).sizes.rank() > w.rank();
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
  if (split) sizes = with_blocks(sizes, operand(call, 1).sizes[1]);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::convolution_input(const InferCall& call, std::vector<TensorType>& out) {
  const Window window = checked_window(call);
  const int axes = window.stride.rank();
  const int64_t block = block_of(operand(call, 0).sizes, axes);
  const Dims y = without_blocks(operand(call, 0).sizes, axes), &w = operand(call, 1).sizes;
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
  if (block != 0) {
    if (channels % block != 0 || call.present[2])
      fail_call(call, "from blocks of " + std::to_string(block) +
                          " come blocks, without a bias: " + operand_text(call));
    sizes = with_blocks(sizes, block);
  }
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::convolution_weight(const InferCall& call, std::vector<TensorType>& out) {
  const Window window = checked_window(call);
  const int axes = window.stride.rank();
  const Dims x = without_blocks(operand(call, 0).sizes, axes),
             y = without_blocks(operand(call, 1).sizes, axes);
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
