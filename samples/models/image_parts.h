// What the image models share: how a scale shrinks them, convolutions with batch norm, initialisation. Free
// functions.
#pragma once

#include <tandem/tandem.h>

#include "samples/models/workload.h"

namespace samples {

/// Channels of a layer at a scale: multiples of 8.
inline int64_t channels(int64_t n, double scale) { return scaled(n, scale, 8); }
/// Repetitions of a block at a scale: at least one.
inline int64_t repeats(int64_t n, double scale) { return scaled(n, scale); }

/// A convolution as batch norm wants it: without bias, padded so that stride alone changes the size.
struct ConvSize {
  int64_t in, out, kernel, stride = 1, groups = 1;
};
inline void add_conv_norm(tandem::nn::Sequential& s, const ConvSize& c) {
  s.emplace<tandem::nn::Conv2d>(c.in, c.out, c.kernel, c.stride, c.kernel / 2, 1, c.groups, false);
  s.emplace<tandem::nn::BatchNorm2d>(c.out);
}

/// torchvision's initialisation of convolutional networks: weights of convolutions normal with variance
/// 2 / fan out (He et al., 2015), and their biases 0. Of linear layers, if asked: normal(0, 0.01), biases 0.
/// Batch norm begins with 1 and 0 by itself.
void initialise(tandem::nn::Module& net, bool linear);

/// The mean over each channel: (N, C, H, W) -> (N, C).
inline tandem::Tensor pool_all(const tandem::Tensor& x) {
  return tandem::adaptive_avg_pool2d(x, 1).flatten(1);
}

}  // namespace samples
