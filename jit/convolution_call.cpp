#include "tandem/jit/convolution_call.h"

#include "tandem/jit/rewrite.h"

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

bool is_biased(const Node& n) { return n.in.size() > 2 && n.in[2] >= 0; }

std::vector<TensorType> operand_types(const Graph& g, const Node& n) {
  std::vector<TensorType> in;
  for (const int32_t v : n.in)
    if (v >= 0 && !g.type(v).number) in.push_back(g.type(v));
  return in;
}

/// Whether the library makes the sums of a convolution, and another its addition of the bias.
bool bias_is_apart(const Graph& g, const Node& n, Device device) {
  if (n.leaf != Leaf::op || ops::def(n.op).kind != ops::OpKind::convolution || !is_biased(n)) return false;
  const ConvolutionCallShape call =
      convolution_call_shape(ops::def(n.op), operand_types(g, n), true, g.type(n.out[0]), n.words, {});
  return !call.fused && cudnn_convolution(cuda::Runtime::of(device), call.shape) != nullptr;
}

}  // namespace

Graph with_bias_apart(const Graph& g, Device device) {
  if (device.type != DeviceType::cuda) return g;
  Rewrite r(g);
  for (const Node& n : g.nodes) {
    if (!bias_is_apart(g, n, device)) {
      r.name(n, r.copy(n));
      continue;
    }
    Node sums = n;
    sums.in[2] = -1;
    const ops::Value y{r.copy(sums)};
    GraphEmitter e(r.to, false);
    e.location = n.where;
    e.origin = n.origin;
    const int rank = g.type(n.out[0]).sizes.rank();
    Dims channels = Dims::filled(rank, 1);
    channels[1] = g.type(n.in[2]).sizes[0];
    const ops::Value bias = e.reshape(ops::Value{r[n.in[2]]}, channels);
    r.name(n, e.add(y, bias).id);
  }
  return r.finish();
}

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
  const std::vector<TensorType> in = operand_types(g, n);
  TensorType result = in[0];
  result.sizes = out_sizes;
  const Dims strides[] = {first.strides, second.strides};
  const ConvolutionCallShape call =
      convolution_call_shape(ops::def(n.op), in, is_biased(n), result, n.words, strides);
  return cudnn_convolution(cuda::Runtime::of(device), call.shape) != nullptr;
}

}  // namespace tandem::jit
