// Convolutions that cuDNN does: how their operands lie in memory. Its engines for halves read channels last;
// what lies otherwise the library turns itself, in its workspace, at the cost of reading and writing it once.
// A copy of ours before or behind it would cost the same, so none is made: operands are given to it as they
// lie if that is channels last, the result is contiguous. Functions of shapes, strides and dtypes alone; any
// thread.
#pragma once

#include "tandem/jit/cudnn.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// `g` with the bias of convolutions that cuDNN does on this device, but for their bias, added by an op of
/// its own, which joins the kernels behind it: a float's sum is rounded before its bias is added anyway.
Graph with_bias_apart(const Graph& g, Device device);

/// Whether (N, C, *axes) lies densely with its channels innermost, and not contiguously.
bool channels_last(const ops::Layout& layout);

/// A call of one of the three ops as cuDNN is told of it. `strides`: of the first two operands, empty for
/// contiguous ones. A half with a bias is one graph with its addition (`fused`).
struct ConvolutionCallShape {
  CudnnShape shape;
  bool biased = false, fused = false;
};
ConvolutionCallShape convolution_call_shape(const ops::OpDef& op, std::span<const TensorType> in, bool biased,
                                            const TensorType& out, ops::Words words,
                                            std::span<const Dims> strides);

/// Whether the first two operands are left where they lie: halves, channels last or contiguous, one of them
/// the former, and a plan of the library's for them.
bool convolution_reads(const Graph& g, const Node& n, const ops::Layout& first, const ops::Layout& second,
                       DType out, const Dims& out_sizes, Device device);

}  // namespace tandem::jit
