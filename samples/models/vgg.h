// VGG with 11, 13, 16 or 19 layers, without batch norm ("Very deep convolutional networks for large-scale
// image recognition", Simonyan and Zisserman 2014: configurations A, B, D, E), with torchvision's parameter
// names and initialisation.
#pragma once

#include <tandem/tandem.h>

namespace samples {

struct Vgg : tandem::nn::Module {
  /// Logits of `classes` classes; dropout behind each of the first two linear layers. Below 1 `scale` shrinks
  /// the channels, the width of the classifier, and the convolutions of each stage, of which one stays.
  /// Error: another depth.
  explicit Vgg(int depth = 19, int64_t classes = 1000, double dropout = 0.5, double scale = 1);

  /// Images (N, 3, H, W), H and W at least 32 -> logits (N, classes).
  tandem::Tensor forward(const tandem::Tensor& x);
  tandem::Tensor operator()(const tandem::Tensor& x) { return forward(x); }

  tandem::nn::Sequential features, classifier;
};

}  // namespace samples
