// MobileNet, whose 3x3 convolutions are depthwise: version 1 ("MobileNets", Howard et al. 2017) and version 2
// ("MobileNetV2: inverted residuals and linear bottlenecks", Sandler et al. 2018). Version 2 has
// torchvision's parameter names; version 1, which torchvision has not, is named likewise. Both are
// initialised as torchvision's.
#pragma once

#include <tandem/tandem.h>

namespace samples {

struct MobileNetV1 : tandem::nn::Module {
  /// Logits of `classes` classes. Below 1 `scale` shrinks the channels, and the five blocks of the same size,
  /// of which one stays.
  explicit MobileNetV1(int64_t classes = 1000, double scale = 1);

  /// Images (N, 3, H, W) -> logits (N, classes).
  tandem::Tensor forward(const tandem::Tensor& x);
  tandem::Tensor operator()(const tandem::Tensor& x) { return forward(x); }

  tandem::nn::Sequential features;
  tandem::nn::Linear classifier;
};

/// A block of version 2: 1x1 to `expand` times the channels, depthwise 3x3, 1x1 without activation; x is
/// added where sizes allow it.
struct InvertedResidual : tandem::nn::Module {
  InvertedResidual(int64_t in, int64_t out, int64_t stride, int64_t expand);
  tandem::Tensor forward(const tandem::Tensor& x);

  const bool residual;
  tandem::nn::Sequential conv;
};

struct MobileNetV2 : tandem::nn::Module {
  /// Logits of `classes` classes; dropout before the classifier. Below 1 `scale` shrinks the channels, and
  /// the blocks of each stage, of which one stays.
  explicit MobileNetV2(int64_t classes = 1000, double dropout = 0.2, double scale = 1);

  /// Images (N, 3, H, W) -> logits (N, classes).
  tandem::Tensor forward(const tandem::Tensor& x);
  tandem::Tensor operator()(const tandem::Tensor& x) { return forward(x); }

  tandem::nn::Sequential features, classifier;
};

}  // namespace samples
