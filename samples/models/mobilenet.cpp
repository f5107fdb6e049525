#include "samples/models/mobilenet.h"

#include "samples/models/image_parts.h"

namespace samples {
namespace nn = tandem::nn;
using tandem::Tensor;

namespace {

/// A convolution, batch norm and activation as one child.
template <class Activation>
void add_unit(nn::Sequential& to, const ConvSize& c) {
  to.emplace<nn::Sequential>([&](nn::Sequential& s) {
    add_conv_norm(s, c);
    s.emplace<Activation>();
  });
}

void build_v1(nn::Sequential& s, double scale) {
  struct Block {
    int64_t out, stride, count;
  };
  constexpr Block kBlocks[] = {{64, 1, 1},  {128, 2, 1}, {128, 1, 1},  {256, 2, 1}, {256, 1, 1},
                               {512, 2, 1}, {512, 1, 5}, {1024, 2, 1}, {1024, 1, 1}};
  int64_t in = channels(32, scale);
  add_unit<nn::ReLU>(s, {3, in, 3, 2});
  for (const Block& b : kBlocks)
    for (int64_t i = 0; i < repeats(b.count, scale); ++i) {
      const int64_t out = channels(b.out, scale);
      s.emplace<nn::Sequential>([&](nn::Sequential& block) {
        add_conv_norm(block, {in, in, 3, b.stride, in});
        block.emplace<nn::ReLU>();
        add_conv_norm(block, {in, out, 1});
        block.emplace<nn::ReLU>();
      });
      in = out;
    }
}

void build_v2(nn::Sequential& s, double scale) {
  struct Stage {
    int64_t expand, out, count, stride;
  };
  constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                               {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  int64_t in = channels(32, scale);
  add_unit<nn::ReLU6>(s, {3, in, 3, 2});
  for (const Stage& stage : kStages)
    for (int64_t i = 0; i < repeats(stage.count, scale); ++i) {
      const int64_t out = channels(stage.out, scale);
      s.emplace<InvertedResidual>(in, out, i == 0 ? stage.stride : 1, stage.expand);
      in = out;
    }
  add_unit<nn::ReLU6>(s, {in, channels(1280, scale), 1});
}

}  // namespace

MobileNetV1::MobileNetV1(int64_t classes, double scale)
    : features(child<nn::Sequential>("features", [&](nn::Sequential& s) { build_v1(s, scale); })),
      classifier(child<nn::Linear>("classifier", channels(1024, scale), classes)) {
  initialise(*this, true);
}

Tensor MobileNetV1::forward(const Tensor& x) { return classifier(pool_all(features(x))); }

InvertedResidual::InvertedResidual(int64_t in, int64_t out, int64_t stride, int64_t expand)
    : residual(stride == 1 && in == out), conv(child<nn::Sequential>("conv", [&](nn::Sequential& s) {
        const int64_t hidden = in * expand;
        if (expand != 1) add_unit<nn::ReLU6>(s, {in, hidden, 1});
        add_unit<nn::ReLU6>(s, {hidden, hidden, 3, stride, hidden});
        add_conv_norm(s, {hidden, out, 1});
      })) {}

Tensor InvertedResidual::forward(const Tensor& x) {
  const Tensor y = conv(x);
  return residual ? x + y : y;
}

MobileNetV2::MobileNetV2(int64_t classes, double dropout, double scale)
    : features(child<nn::Sequential>("features", [&](nn::Sequential& s) { build_v2(s, scale); })),
      classifier(child<nn::Sequential>("classifier", [&](nn::Sequential& s) {
        s.emplace<nn::Dropout>(dropout);
        s.emplace<nn::Linear>(channels(1280, scale), classes);
      })) {
  initialise(*this, true);
}

Tensor MobileNetV2::forward(const Tensor& x) { return classifier(pool_all(features(x))); }

}  // namespace samples
