#include "samples/models/alexnet.h"

#include "samples/models/image_parts.h"

namespace samples {
namespace nn = tandem::nn;

namespace {

void build_features(nn::Sequential& s, double scale) {
  const int64_t c1 = channels(64, scale), c2 = channels(192, scale), c3 = channels(384, scale),
                c4 = channels(256, scale);
  s.emplace<nn::Conv2d>(3, c1, 11, 4, 2);
  s.emplace<nn::ReLU>();
  s.emplace<nn::MaxPool2d>(3, 2);
  s.emplace<nn::Conv2d>(c1, c2, 5, 1, 2);
  s.emplace<nn::ReLU>();
  s.emplace<nn::MaxPool2d>(3, 2);
  s.emplace<nn::Conv2d>(c2, c3, 3, 1, 1);
  s.emplace<nn::ReLU>();
  s.emplace<nn::Conv2d>(c3, c4, 3, 1, 1);
  s.emplace<nn::ReLU>();
  s.emplace<nn::Conv2d>(c4, c4, 3, 1, 1);
  s.emplace<nn::ReLU>();
  s.emplace<nn::MaxPool2d>(3, 2);
}

}  // namespace

AlexNet::AlexNet(int64_t classes, double dropout, double scale)
    : features(child<nn::Sequential>("features", [&](nn::Sequential& s) { build_features(s, scale); })),
      classifier(child<nn::Sequential>("classifier", [&](nn::Sequential& s) {
        const int64_t width = channels(4096, scale);
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(channels(256, scale) * 6 * 6, width);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(width, width);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Linear>(width, classes);
      })) {}

tandem::Tensor AlexNet::forward(const tandem::Tensor& x) {
  const tandem::Tensor pooled = tandem::adaptive_avg_pool2d(features(x), 6);
  return classifier(pooled.flatten(1));
}

}  // namespace samples
