// Pooling, resizing and rearranging layers, with PyTorch's names, arguments and defaults. They have no
// parameters. Ownership and threads as in module.h.
#pragma once

#include "tandem/eager/nn/layers.h"
#include "tandem/eager/per_axis.h"

namespace tandem::nn {

#include "tandem/eager/nn/layer.inc"

// The functions of eager/pooling.h, whose comments say what the settings mean.
#define TANDEM_MAX_POOL(Name, function)                                                      \
  class Name : public Module {                                                               \
   public:                                                                                   \
    explicit Name(const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0, \
                  const Dims& dilation = 1, bool ceil_mode = false)                          \
        : kernel_size(kernel_size),                                                          \
          stride(stride),                                                                    \
          padding(padding),                                                                  \
          dilation(dilation),                                                                \
          ceil_mode(ceil_mode) {}                                                            \
    TANDEM_FORWARD(function(x, kernel_size, stride, padding, dilation, ceil_mode, where))    \
                                                                                             \
    const Dims kernel_size, stride, padding, dilation;                                       \
    const bool ceil_mode;                                                                    \
  };
TANDEM_MAX_POOL(MaxPool1d, max_pool1d)
TANDEM_MAX_POOL(MaxPool2d, max_pool2d)
TANDEM_MAX_POOL(MaxPool3d, max_pool3d)
#undef TANDEM_MAX_POOL

class AvgPool1d : public Module {
 public:
  explicit AvgPool1d(const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                     bool ceil_mode = false, bool count_include_pad = true)
      : kernel_size(kernel_size),
        stride(stride),
        padding(padding),
        ceil_mode(ceil_mode),
        count_include_pad(count_include_pad) {}
  TANDEM_FORWARD(avg_pool1d(x, kernel_size, stride, padding, ceil_mode, count_include_pad, where))

  const Dims kernel_size, stride, padding;
  const bool ceil_mode, count_include_pad;
};

#define TANDEM_AVG_POOL(Name, function)                                                                      \
  class Name : public Module {                                                                               \
   public:                                                                                                   \
    explicit Name(const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,                 \
                  bool ceil_mode = false, bool count_include_pad = true,                                     \
                  std::optional<int64_t> divisor_override = {})                                              \
        : kernel_size(kernel_size),                                                                          \
          stride(stride),                                                                                    \
          padding(padding),                                                                                  \
          ceil_mode(ceil_mode),                                                                              \
          count_include_pad(count_include_pad),                                                              \
          divisor_override(divisor_override) {}                                                              \
    TANDEM_FORWARD(function(x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, \
                            where))                                                                          \
                                                                                                             \
    const Dims kernel_size, stride, padding;                                                                 \
    const bool ceil_mode, count_include_pad;                                                                 \
    const std::optional<int64_t> divisor_override;                                                           \
  };
TANDEM_AVG_POOL(AvgPool2d, avg_pool2d)
TANDEM_AVG_POOL(AvgPool3d, avg_pool3d)
#undef TANDEM_AVG_POOL

#define TANDEM_LP_POOL(Name, function)                                                               \
  class Name : public Module {                                                                       \
   public:                                                                                           \
    Name(double norm_type, const Dims& kernel_size, const Dims& stride = {}, bool ceil_mode = false) \
        : norm_type(norm_type), kernel_size(kernel_size), stride(stride), ceil_mode(ceil_mode) {}    \
    TANDEM_FORWARD(function(x, norm_type, kernel_size, stride, ceil_mode, where))                    \
                                                                                                     \
    const double norm_type;                                                                          \
    const Dims kernel_size, stride;                                                                  \
    const bool ceil_mode;                                                                            \
  };
TANDEM_LP_POOL(LPPool1d, lp_pool1d)
TANDEM_LP_POOL(LPPool2d, lp_pool2d)
#undef TANDEM_LP_POOL

#define TANDEM_MAX_UNPOOL(Name, function)                                                    \
  class Name : public Module {                                                               \
   public:                                                                                   \
    explicit Name(const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0) \
        : kernel_size(kernel_size), stride(stride), padding(padding) {}                      \
    Tensor forward(const Tensor& x, const Tensor& indices, const Dims& output_size = {},     \
                   Location where = Location::here()) const {                                \
      return function(x, indices, kernel_size, stride, padding, output_size, where);         \
    }                                                                                        \
    Tensor operator()(const Tensor& x, const Tensor& indices, const Dims& output_size = {},  \
                      Location where = Location::here()) const {                             \
      return forward(x, indices, output_size, where);                                        \
    }                                                                                        \
                                                                                             \
    const Dims kernel_size, stride, padding;                                                 \
  };
TANDEM_MAX_UNPOOL(MaxUnpool1d, max_unpool1d)
TANDEM_MAX_UNPOOL(MaxUnpool2d, max_unpool2d)
TANDEM_MAX_UNPOOL(MaxUnpool3d, max_unpool3d)
#undef TANDEM_MAX_UNPOOL

TANDEM_LAYER1(AdaptiveAvgPool1d, Dims, output_size, , adaptive_avg_pool1d(x, output_size, where))
TANDEM_LAYER1(AdaptiveAvgPool2d, Dims, output_size, , adaptive_avg_pool2d(x, output_size, where))
TANDEM_LAYER1(AdaptiveAvgPool3d, Dims, output_size, , adaptive_avg_pool3d(x, output_size, where))
TANDEM_LAYER1(AdaptiveMaxPool1d, Dims, output_size, , adaptive_max_pool1d(x, output_size, where))
TANDEM_LAYER1(AdaptiveMaxPool2d, Dims, output_size, , adaptive_max_pool2d(x, output_size, where))
TANDEM_LAYER1(AdaptiveMaxPool3d, Dims, output_size, , adaptive_max_pool3d(x, output_size, where))

/// interpolate() as a layer: `Upsample({.scale_factor = {2}, .mode = Interpolation::bilinear})`.
TANDEM_LAYER1(Upsample, InterpolateOptions, options, , interpolate(x, options, where))

// pad(): one number for all sides, or {before, after} of the last axis, of the one before it, ...
#define TANDEM_PAD(Name, axes, mode)                                                       \
  class Name : public Module {                                                             \
   public:                                                                                 \
    explicit Name(const Dims& padding, Location where = Location::here())                  \
        : padding(eager::per_axis(#Name, "padding", padding, 2 * axes, made_at(where))) {} \
    TANDEM_FORWARD(pad(x, padding, PadMode::mode, 0, where))                               \
                                                                                           \
    const Dims padding;                                                                    \
  };
TANDEM_PAD(ZeroPad1d, 1, constant)
TANDEM_PAD(ZeroPad2d, 2, constant)
TANDEM_PAD(ZeroPad3d, 3, constant)
TANDEM_PAD(ReflectionPad1d, 1, reflect)
TANDEM_PAD(ReflectionPad2d, 2, reflect)
TANDEM_PAD(ReflectionPad3d, 3, reflect)
TANDEM_PAD(ReplicationPad1d, 1, replicate)
TANDEM_PAD(ReplicationPad2d, 2, replicate)
TANDEM_PAD(ReplicationPad3d, 3, replicate)
TANDEM_PAD(CircularPad1d, 1, circular)
TANDEM_PAD(CircularPad2d, 2, circular)
TANDEM_PAD(CircularPad3d, 3, circular)
#undef TANDEM_PAD
#define TANDEM_PAD(Name, axes)                                                                           \
  class Name : public Module {                                                                           \
   public:                                                                                               \
    Name(const Dims& padding, double value, Location where = Location::here())                           \
        : padding(eager::per_axis(#Name, "padding", padding, 2 * axes, made_at(where))), value(value) {} \
    TANDEM_FORWARD(pad(x, padding, PadMode::constant, value, where))                                     \
                                                                                                         \
    const Dims padding;                                                                                  \
    const double value;                                                                                  \
  };
TANDEM_PAD(ConstantPad1d, 1)
TANDEM_PAD(ConstantPad2d, 2)
TANDEM_PAD(ConstantPad3d, 3)
#undef TANDEM_PAD

TANDEM_LAYER1(PixelShuffle, int64_t, upscale_factor, , pixel_shuffle(x, upscale_factor, where))
TANDEM_LAYER1(PixelUnshuffle, int64_t, downscale_factor, , pixel_unshuffle(x, downscale_factor, where))
TANDEM_LAYER1(ChannelShuffle, int64_t, groups, , channel_shuffle(x, groups, where))

/// Axes start_dim to end_dim as one.
TANDEM_LAYER2(Flatten, int64_t, start_dim, = 1, end_dim, = -1, x.flatten(start_dim, end_dim, where))

/// Axis dim as several of the sizes given, one of which may be -1.
class Unflatten : public Module {
 public:
  Unflatten(int64_t dim, const Dims& unflattened_size) : dim(dim), unflattened_size(unflattened_size) {}
  TANDEM_FORWARD(x.unflatten(dim, unflattened_size, where))

  const int64_t dim;
  const Dims unflattened_size;
};

/// x itself.
class Identity : public Module {
 public:
  Tensor forward(const Tensor& x, Location = Location::here()) const { return x; }
  Tensor operator()(const Tensor& x, Location = Location::here()) const { return x; }
};

// Zeroes whole channels while training, each with probability p, and scales the others by 1 / (1 - p).
#define TANDEM_CHANNEL_DROPOUT(Name, function)                                              \
  class Name : public Dropout {                                                             \
   public:                                                                                  \
    explicit Name(double p = 0.5, Location where = Location::here()) : Dropout(p, where) {} \
    TANDEM_FORWARD(function(x, p, is_training(), where))                                    \
  };
TANDEM_CHANNEL_DROPOUT(Dropout1d, dropout1d)
TANDEM_CHANNEL_DROPOUT(Dropout2d, dropout2d)
TANDEM_CHANNEL_DROPOUT(Dropout3d, dropout3d)
// Dropout that keeps the mean and the variance of SELU's results.
TANDEM_CHANNEL_DROPOUT(AlphaDropout, alpha_dropout)
TANDEM_CHANNEL_DROPOUT(FeatureAlphaDropout, feature_alpha_dropout)
#undef TANDEM_CHANNEL_DROPOUT

#include "tandem/eager/nn/layer_end.inc"

}  // namespace tandem::nn
