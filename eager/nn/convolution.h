// Convolutional layers with PyTorch's argument order, defaults, parameter names and initialisation: weight
// and bias are drawn uniformly within 1 / sqrt(channels of a kernel times its elements). Ownership and
// threads as in module.h.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

/// What the layers share.
class Convolution : public Module {
 public:
  const int64_t in_channels, out_channels, groups;
  const Dims kernel_size, stride, dilation;  // one number an axis
  const Tensor weight, bias;                 // bias undefined: none

 protected:
  struct Sizes {
    int axes;
    bool transposed;
    int64_t in_channels, out_channels;
    Dims kernel_size, stride, dilation;
    int64_t groups;
    bool with_bias;
  };
  Convolution(const char* name, const Sizes& sizes, const TensorOptions& options, Location where);
  /// The padding of a convolution for pad().
  Dims sides(const char* name, const ConvPadding& padding, Location where) const;
};

/// x (N, in_channels, *) -> (N, out_channels, *) by conv1d, conv2d or conv3d; weight (out_channels,
/// in_channels / groups, *kernel_size), bias (out_channels). Padding is by zeros, or in another mode of
/// pad().
template <int kAxes>
class Conv : public Convolution {
 public:
  Conv(int64_t in_channels, int64_t out_channels, const Dims& kernel_size, const Dims& stride = 1,
       const ConvPadding& padding = 0, const Dims& dilation = 1, int64_t groups = 1, bool with_bias = true,
       PadMode padding_mode = PadMode::constant, TensorOptions options = {},
       Location where = Location::here())
      : Convolution(
            kName,
            {kAxes, false, in_channels, out_channels, kernel_size, stride, dilation, groups, with_bias},
            options, where),
        padding(padding),
        padding_mode(padding_mode),
        sides_(sides(kName, padding, made_at(where))) {}
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    if (padding_mode == PadMode::constant)
      return kFunction(x, weight, bias, stride, padding, dilation, groups, where);
    return kFunction(pad(x, sides_, padding_mode, 0, where), weight, bias, stride, 0, dilation, groups,
                     where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const ConvPadding padding;
  const PadMode padding_mode;

 private:
  static constexpr const char* kName = kAxes == 1 ? "Conv1d" : kAxes == 2 ? "Conv2d" : "Conv3d";
  static constexpr auto kFunction = kAxes == 1 ? conv1d : kAxes == 2 ? conv2d : conv3d;
  Dims sides_;  // what pad() takes
};
using Conv1d = Conv<1>;
using Conv2d = Conv<2>;
using Conv3d = Conv<3>;

/// x (N, in_channels, *) -> (N, out_channels, *) by conv_transpose1d, 2d or 3d; weight (in_channels,
/// out_channels / groups, *kernel_size), bias (out_channels).
template <int kAxes>
class ConvTranspose : public Convolution {
 public:
  ConvTranspose(int64_t in_channels, int64_t out_channels, const Dims& kernel_size, const Dims& stride = 1,
                const Dims& padding = 0, const Dims& output_padding = 0, int64_t groups = 1,
                bool with_bias = true, const Dims& dilation = 1, TensorOptions options = {},
                Location where = Location::here())
      : Convolution(
            kName, {kAxes, true, in_channels, out_channels, kernel_size, stride, dilation, groups, with_bias},
            options, where),
        padding(padding),
        output_padding(output_padding) {}
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    return kFunction(x, weight, bias, stride, padding, output_padding, groups, dilation, where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const Dims padding, output_padding;

 private:
  static constexpr const char* kName = kAxes == 1   ? "ConvTranspose1d"
                                       : kAxes == 2 ? "ConvTranspose2d"
                                                    : "ConvTranspose3d";
  static constexpr auto kFunction = kAxes == 1   ? conv_transpose1d
                                    : kAxes == 2 ? conv_transpose2d
                                                 : conv_transpose3d;
};
using ConvTranspose1d = ConvTranspose<1>;
using ConvTranspose2d = ConvTranspose<2>;
using ConvTranspose3d = ConvTranspose<3>;

}  // namespace tandem::nn
