#include "tandem/jit/convolution_call.h"

namespace tandem::jit {

using ops::Layout;

namespace {

/// Of an operand in the axes of the library's description, which may have one of size 1 in front, or lack the
/// first one of a volume, of size 1 in all operands.
Dims with_axes(const Dims& sizes, Dims strides, int rank) {
  if (strides.rank() < rank) strides.insert(2, sizes[2] * strides[2]);
  if (strides.rank() > rank) strides.erase(2);
  return strides;
}

}  // namespace

bool channels_last(const Layout& x) {
  const int rank = x.sizes.rank();
  if (rank < 3 || is_contiguous(x.sizes, x.strides)) return false;
  int64_t step = x.sizes[1];
  if (x.strides[1] != 1) return false;
  for (int d = rank - 1; d >= 2; --d) {
    if (x.sizes[d] != 1 && x.strides[d] != step) return false;
    step *= x.sizes[d];
  }
  return x.sizes[0] == 1 || x.strides[0] == step;
}

ConvolutionCallShape convolution_call_shape(const ops::OpDef& op, std::span<const TensorType> in, bool biased,
                                            const TensorType& out, ops::Words words,
                                            std::span<const Dims> strides) {
  ConvolutionCallShape call;
  call.biased = biased;
  call.fused = biased && itemsize(out.dtype) < 4;
  CudnnShape& s = call.shape = cudnn_shape(ops::convolution_shape(op, in, out, words), call.fused);
  const bool forward = s.direction == CudnnDirection::forward, input = s.direction == CudnnDirection::input;
  Dims* const of[] = {input ? &s.y_strides : &s.x_strides, forward || input ? &s.w_strides : &s.y_strides};
  for (size_t i = 0; i < 2 && i < strides.size(); ++i)
    if (!strides[i].empty() && !is_contiguous(in[i].sizes, strides[i]))
      *of[i] = with_axes(in[i].sizes, strides[i], s.x.rank());
  return call;
}

bool convolution_reads(const Graph& g, const Node& n, const Layout& first, const Layout& second, DType out,
                       const Dims& out_sizes, Device device) {
  if (itemsize(out) != 2 || !is_floating(out)) return false;
  const auto lies_well = [](const Layout& x) {
    constexpr int64_t kElements = 8;  // of 16 bytes
    return is_contiguous(x.sizes, x.strides) || (channels_last(x) && x.offset % kElements == 0);
  };
  if (!lies_well(first) || !lies_well(second) || !(channels_last(first) || channels_last(second)))
    return false;
  std::vector<TensorType> in;
  for (const int32_t v : n.in)
    if (v >= 0 && !g.type(v).number) in.push_back(g.type(v));
  const bool biased = n.in.size() > 2 && n.in[2] >= 0;
  TensorType result = in[0];
  result.sizes = out_sizes;
  const Dims strides[] = {first.strides, second.strides};
  const ConvolutionCallShape call =
      convolution_call_shape(ops::def(n.op), in, biased, result, n.words, strides);
  return cudnn_convolution(cuda::Runtime::of(device), call.shape) != nullptr;
}

}  // namespace tandem::jit
