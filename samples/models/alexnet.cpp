#include "samples/models/alexnet.h"

namespace samples {
namespace nn = tandem::nn;

AlexNet::AlexNet(int64_t classes, double dropout)
    : features(child<nn::Sequential>("features",
                                     [](nn::Sequential& s) {
                                       s.emplace<nn::Conv2d>(3, 64, 11, 4, 2);
                                       s.emplace<nn::ReLU>();
                                       s.emplace<nn::MaxPool2d>(3, 2);
                                       s.emplace<nn::Conv2d>(64, 192, 5, 1, 2);
                                       s.emplace<nn::ReLU>();
                                       s.emplace<nn::MaxPool2d>(3, 2);
                                       s.emplace<nn::Conv2d>(192, 384, 3, 1, 1);
                                       s.emplace<nn::ReLU>();
                                       s.emplace<nn::Conv2d>(384, 256, 3, 1, 1);
                                       s.emplace<nn::ReLU>();
                                       s.emplace<nn::Conv2d>(256, 256, 3, 1, 1);
                                       s.emplace<nn::ReLU>();
                                       s.emplace<nn::MaxPool2d>(3, 2);
                                     })),
      classifier(child<nn::Sequential>("classifier", [&](nn::Sequential& s) {
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(256 * 6 * 6, 4096);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(4096, 4096);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Linear>(4096, classes);
      })) {}

tandem::Tensor AlexNet::forward(const tandem::Tensor& x) {
  const tandem::Tensor pooled = tandem::adaptive_avg_pool2d(features(x), 6);
  return classifier(pooled.flatten(1));
}

}  // namespace samples
