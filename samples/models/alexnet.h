// AlexNet as torchvision has it ("One weird trick for parallelizing convolutional neural networks",
// Krizhevsky 2014: one column, no local response normalisation), with its parameter names and initialisation.
#pragma once

#include <tandem/tandem.h>

namespace samples {

struct AlexNet : tandem::nn::Module {
  /// Logits of `classes` classes; dropout before each of the first two linear layers. Below 1 `scale` shrinks
  /// the channels and the width of the classifier.
  explicit AlexNet(int64_t classes = 1000, double dropout = 0.5, double scale = 1);

  /// Images (N, 3, H, W), H and W at least 63 -> logits (N, classes).
  tandem::Tensor forward(const tandem::Tensor& x);
  tandem::Tensor operator()(const tandem::Tensor& x) { return forward(x); }

  tandem::nn::Sequential features, classifier;
};

}  // namespace samples
