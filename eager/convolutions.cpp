// Convolutions: one call of an op each, behind lists of one number an axis, "same" padding and operands
// without a batch.
#include "tandem/eager/convolutions.h"

#include <algorithm>

#include "tandem/eager/call.h"
#include "tandem/eager/per_axis.h"

namespace tandem {

using eager::CallBuilder;
using eager::per_axis;
using ops::OpId;

namespace {

/// x with a batch axis.
Tensor batched(const char* op, const Tensor& x, const Tensor& weight, int axes, Location where) {
  const int rank = x.dim(where);
  if (weight.dim(where) != axes + 2)
    fail(std::string(op) + ": the weight needs rank " + std::to_string(axes + 2) + ", found shape " +
             to_string(weight.sizes()),
         where);
  if (rank == axes + 2) return x;
  if (rank == axes + 1) return x.unsqueeze(0, where);
  fail(std::string(op) + ": x needs rank " + std::to_string(axes + 2) + ", or " + std::to_string(axes + 1) +
           " without the batch, found shape " + to_string(x.sizes()),
       where);
}

Tensor like_given(const Tensor& x, int axes, const Tensor& y, Location where) {
  return x.dim(where) == axes + 2 ? y : y.squeeze(0, where);
}

Tensor convolve(const char* op, int axes, const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Dims& stride, const ConvPadding& padding, const Dims& dilation, int64_t groups,
                Location where) {
  Tensor in = batched(op, x, weight, axes, where);
  const Dims strides = per_axis(op, "stride", stride, axes, where);
  const Dims dilations = per_axis(op, "dilation", dilation, axes, where);
  Dims zeros = Dims::filled(axes, 0);
  if (padding.word.empty()) {
    zeros = per_axis(op, "padding", padding.sizes, axes, where);
  } else if (padding.word == "same") {
    for (int i = 0; i < axes; ++i) {
      if (strides[i] != 1)
        fail(std::string(op) + ": padding \"same\" needs a stride of 1, found " + to_string(strides), where);
      const int64_t total =
          checked_mul(dilations[i], std::max<int64_t>(weight.size(i + 2) - 1, 0), op, where);
      zeros[i] = total / 2;
      if (total % 2 != 0) in = CallBuilder(OpId::pad, where).in(in).word(i + 2).word(0).word(1).run();
    }
  } else if (padding.word != "valid") {
    fail(std::string(op) + ": padding takes numbers, \"same\" or \"valid\", found \"" + padding.word + "\"",
         where);
  }
  const Tensor y = CallBuilder(OpId::convolution, where)
                       .in(in)
                       .in(weight)
                       .in(bias)
                       .word(groups)
                       .word(modes().tf32)
                       .list(strides)
                       .list(zeros)
                       .list(dilations)
                       .run();
  return like_given(x, axes, y, where);
}

Tensor convolve_transposed(const char* op, int axes, const Tensor& x, const Tensor& weight,
                           const Tensor& bias, const Dims& stride, const Dims& padding,
                           const Dims& output_padding, int64_t groups, const Dims& dilation, Location where) {
  const Tensor in = batched(op, x, weight, axes, where);
  const Dims strides = per_axis(op, "stride", stride, axes, where);
  const Dims zeros = per_axis(op, "padding", padding, axes, where);
  const Dims more = per_axis(op, "output_padding", output_padding, axes, where);
  const Dims dilations = per_axis(op, "dilation", dilation, axes, where);
  for (int i = 0; i < axes; ++i)
    if (more[i] < 0 || more[i] >= std::max(strides[i], dilations[i]))
      fail(std::string(op) + ": output_padding must be less than stride or dilation, found output_padding " +
               to_string(more) + ", stride " + to_string(strides) + ", dilation " + to_string(dilations),
           where);
  const Tensor y = CallBuilder(OpId::convolution_input, where)
                       .in(in)
                       .in(weight)
                       .in(bias)
                       .word(groups)
                       .word(modes().tf32)
                       .list(strides)
                       .list(zeros)
                       .list(dilations)
                       .list(more)
                       .run();
  return like_given(x, axes, y, where);
}

}  // namespace

#define TANDEM_CONVOLUTION(axes)                                                                           \
  Tensor conv##axes##d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Dims& stride,      \
                       const ConvPadding& padding, const Dims& dilation, int64_t groups, Location where) { \
    return convolve("conv" #axes "d", axes, x, weight, bias, stride, padding, dilation, groups, where);    \
  }                                                                                                        \
  Tensor conv_transpose##axes##d(const Tensor& x, const Tensor& weight, const Tensor& bias,                \
                                 const Dims& stride, const Dims& padding, const Dims& output_padding,      \
                                 int64_t groups, const Dims& dilation, Location where) {                   \
    return convolve_transposed("conv_transpose" #axes "d", axes, x, weight, bias, stride, padding,         \
                               output_padding, groups, dilation, where);                                   \
  }
TANDEM_CONVOLUTION(1)
TANDEM_CONVOLUTION(2)
TANDEM_CONVOLUTION(3)
#undef TANDEM_CONVOLUTION

}  // namespace tandem
