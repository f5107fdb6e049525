// Convolutions on the CPU, in three directions (ops/convolution.def), by the provider that fits the shape.
// The caller owns all memory, which is contiguous; the result overlaps no operand. Any thread may call; work
// is spread over Tandem's pool.
//
// The result depends on the operands' values, the shape and the dtype alone: not on alignment or the number
// of threads. Sums over the batch are made in blocks fixed by the shape and joined in order. Half precision
// is added up in float32 and rounded once; where oneDNN multiplies bfloat16 itself, denormal operands count
// as 0.
//
// Windows of 3 x 3 are multiplied as Winograd's F(4 x 4, 3 x 3) where that is faster (Lavin and Gray, Fast
// Algorithms for Convolutional Neural Networks, 2016): a quarter of the multiplications. Errors are then a
// few times those of sums in order, and relative to the largest of 6 x 6 neighbours; what is not finite
// spreads over 4 x 4 results. TANDEM_WINOGRAD=0 turns it off.
#pragma once

#include <cstdint>
#include <span>

#include "tandem/core/dtype.h"
#include "tandem/ops/op.h"

namespace tandem::ops {

/// What is computed of the other two: y of x and w, x of y and w, w of x and y.
enum class ConvolutionDirection : uint8_t { forward, input, weight };

inline constexpr int kConvolutionAxes = 3;

/// x (batch, channels, *in), w (outputs, channels / groups, *kernel), y (batch, outputs, *out). Axes that the
/// operands do not have stand in front, with sizes of 1. With a block, x lies as (batch, channels / x_block,
/// *in, x_block), y likewise.
struct ConvolutionShape {
  using Axes = int64_t[kConvolutionAxes];
  ConvolutionDirection direction = ConvolutionDirection::forward;
  DType dtype = DType::float32;
  bool tf32 = false;  // float32 operands may be rounded; not on the CPU
  int64_t batch = 0, channels = 0, outputs = 0, groups = 1;
  Axes in = {1, 1, 1}, out = {1, 1, 1}, kernel = {1, 1, 1};
  Axes stride = {1, 1, 1}, padding = {}, dilation = {1, 1, 1};
  int64_t x_block = 0, y_block = 0;

  static int64_t product(const Axes& a) { return a[0] * a[1] * a[2]; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_outputs() const { return outputs / groups; }
  int64_t in_positions() const { return product(in); }
  int64_t out_positions() const { return product(out); }
  int64_t taps() const { return product(kernel); }
  int64_t x_size() const { return batch * channels * in_positions(); }
  int64_t y_size() const { return batch * outputs * out_positions(); }
  int64_t w_size() const { return outputs * group_channels() * taps(); }
  int64_t result_size() const {
    return direction == ConvolutionDirection::forward ? y_size()
           : direction == ConvolutionDirection::input ? x_size()
                                                      : w_size();
  }
  /// Multiplications and additions, those with padding included.
  double flops() const {
    return 2.0 * static_cast<double>(y_size()) * static_cast<double>(group_channels() * taps());
  }
  /// Whether there is nothing to compute or nothing to add up.
  bool empty() const { return x_size() == 0 || y_size() == 0 || w_size() == 0; }
};

/// The operand that is the result stays null. `bias` may be null: one value a channel of the result, y or x.
struct ConvolutionCall {
  ConvolutionShape shape;
  const void* x = nullptr;
  const void* w = nullptr;
  const void* y = nullptr;
  const void* bias = nullptr;
  void* result = nullptr;
  bool own_weight = false;  // w is as lay_weight() leaves it
};

enum class ConvolutionProvider : uint8_t { onednn, winograd, tiles, loops };
inline constexpr ConvolutionProvider kConvolutionProviders[] = {
    ConvolutionProvider::onednn, ConvolutionProvider::winograd, ConvolutionProvider::tiles,
    ConvolutionProvider::loops};

/// "onednn", "winograd" (oneDNN's), "tiles", "loops".
const char* name(ConvolutionProvider provider);
/// Whether this build and this machine have it and it computes this shape and dtype well.
bool provider_takes(ConvolutionProvider provider, const ConvolutionShape& shape);
/// oneDNN's, and so for operands in blocks of channels.
inline bool takes_blocks(ConvolutionProvider p) {
  return p == ConvolutionProvider::onednn || p == ConvolutionProvider::winograd;
}
/// Depends on the shape alone; blocks change nothing.
ConvolutionProvider choose_provider(const ConvolutionShape& shape);
/// The blocks of channels in which the shape's provider computes; 0: row-major, or channels that do not fill
/// their blocks. Only such blocks may be asked of a call.
struct ConvolutionBlocks {
  int64_t x = 0, y = 0;
};
ConvolutionBlocks own_blocks(const ConvolutionShape& shape);

/// Bytes of a forward convolution's weight in the layout that the shape's provider computes in, to which each
/// call brings it otherwise; 0: it computes in ours, or in several.
int64_t own_weight_nbytes(const ConvolutionShape& shape);
/// Brings it there. The layout depends on the shape, its blocks aside, and on this process.
void lay_weight(const ConvolutionShape& shape, const void* w, void* to);

void convolve(const ConvolutionCall& call);
/// For tests and measurements; an Error when the provider does not take the shape.
void convolve(const ConvolutionCall& call, ConvolutionProvider provider);

/// The shape behind a call of one of the three ops that was inferred before.
ConvolutionShape convolution_shape(const OpDef& op, std::span<const TensorType> in, const TensorType& result,
                                   Words words);

}  // namespace tandem::ops
