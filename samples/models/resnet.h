// ResNet with 18, 34, 50, 101 or 152 layers ("Deep residual learning for image recognition", He et al. 2015)
// in the form called v1.5: bottlenecks stride in their 3x3 convolution. torchvision's parameter names and
// initialisation.
#pragma once

#include <tandem/tandem.h>

namespace samples {

/// Two 3x3 convolutions and a shortcut: of ResNet-18 and 34.
struct BasicBlock : tandem::nn::Module {
  static constexpr int64_t kExpansion = 1;  // channels out for each of `width`
  BasicBlock(int64_t in, int64_t width, int64_t stride);
  tandem::Tensor forward(const tandem::Tensor& x);

  tandem::nn::Conv2d conv1;
  tandem::nn::BatchNorm2d bn1;
  tandem::nn::Conv2d conv2;
  tandem::nn::BatchNorm2d bn2;
  tandem::nn::Sequential downsample;  // empty: the shortcut is x itself
};

/// 1x1, 3x3 and 1x1 convolutions and a shortcut.
struct Bottleneck : tandem::nn::Module {
  static constexpr int64_t kExpansion = 4;
  Bottleneck(int64_t in, int64_t width, int64_t stride);
  tandem::Tensor forward(const tandem::Tensor& x);

  tandem::nn::Conv2d conv1;
  tandem::nn::BatchNorm2d bn1;
  tandem::nn::Conv2d conv2;
  tandem::nn::BatchNorm2d bn2;
  tandem::nn::Conv2d conv3;
  tandem::nn::BatchNorm2d bn3;
  tandem::nn::Sequential downsample;
};

struct ResNet : tandem::nn::Module {
  /// Logits of `classes` classes. Below 1 `scale` shrinks the channels, and the blocks of each stage, of
  /// which one stays. Error: another depth.
  explicit ResNet(int depth = 50, int64_t classes = 1000, double scale = 1);

  /// Images (N, 3, H, W) -> logits (N, classes).
  tandem::Tensor forward(const tandem::Tensor& x);
  tandem::Tensor operator()(const tandem::Tensor& x) { return forward(x); }

  tandem::nn::Conv2d conv1;
  tandem::nn::BatchNorm2d bn1;
  tandem::nn::Sequential layer1, layer2, layer3, layer4;
  tandem::nn::Linear fc;
};

}  // namespace samples
