#include "samples/models/vgg.h"

#include "samples/models/image_parts.h"

namespace samples {
namespace nn = tandem::nn;

namespace {

constexpr int kStages = 5;
constexpr int64_t kWidths[kStages] = {64, 128, 256, 512, 512};

struct Depth {
  int layers;
  int64_t convolutions[kStages];  // of each stage
};
constexpr Depth kDepths[] = {
    {11, {1, 1, 2, 2, 2}}, {13, {2, 2, 2, 2, 2}}, {16, {2, 2, 3, 3, 3}}, {19, {2, 2, 4, 4, 4}}};

void build_features(nn::Sequential& s, int depth, double scale) {
  for (const Depth& d : kDepths) {
    if (d.layers != depth) continue;
    int64_t in = 3;
    for (int stage = 0; stage < kStages; ++stage) {
      const int64_t out = channels(kWidths[stage], scale);
      for (int64_t i = 0; i < repeats(d.convolutions[stage], scale); ++i) {
        s.emplace<nn::Conv2d>(in, out, 3, 1, 1);
        s.emplace<nn::ReLU>();
        in = out;
      }
      s.emplace<nn::MaxPool2d>(2, 2);
    }
    return;
  }
  tandem::fail("Vgg: depth " + std::to_string(depth) + " is none of 11, 13, 16, 19");
}

}  // namespace

Vgg::Vgg(int depth, int64_t classes, double dropout, double scale)
    : features(
          child<nn::Sequential>("features", [&](nn::Sequential& s) { build_features(s, depth, scale); })),
      classifier(child<nn::Sequential>("classifier", [&](nn::Sequential& s) {
        const int64_t width = channels(4096, scale);
        s.emplace<nn::Linear>(channels(512, scale) * 7 * 7, width);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(width, width);
        s.emplace<nn::ReLU>();
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(width, classes);
      })) {
  initialise(*this, true);
}

tandem::Tensor Vgg::forward(const tandem::Tensor& x) {
  const tandem::Tensor pooled = tandem::adaptive_avg_pool2d(features(x), 7);
  return classifier(pooled.flatten(1));
}

}  // namespace samples
