#include "samples/models/resnet.h"

#include "samples/models/image_parts.h"

namespace samples {
namespace nn = tandem::nn;
using tandem::Tensor;

namespace {

struct Depth {
  int layers;
  bool bottleneck;
  int64_t blocks[4];  // of each stage
};
constexpr Depth kDepths[] = {{18, false, {2, 2, 2, 2}},
                             {34, false, {3, 4, 6, 3}},
                             {50, true, {3, 4, 6, 3}},
                             {101, true, {3, 4, 23, 3}},
                             {152, true, {3, 8, 36, 3}}};

const Depth& depth_of(int layers) {
  for (const Depth& d : kDepths)
    if (d.layers == layers) return d;
  tandem::fail("ResNet: depth " + std::to_string(layers) + " is none of 18, 34, 50, 101, 152");
}

int64_t expansion(int depth) {
  return depth_of(depth).bottleneck ? Bottleneck::kExpansion : BasicBlock::kExpansion;
}
int64_t width_of(int stage, double scale) { return channels(int64_t{64} << stage, scale); }

template <class Block>
void add_blocks(nn::Sequential& s, int64_t in, int64_t width, int64_t blocks, int64_t stride) {
  for (int64_t i = 0; i < blocks; ++i)
    s.emplace<Block>(i == 0 ? in : width * Block::kExpansion, width, i == 0 ? stride : 1);
}

/// Builds stage 0 to 3; all but the first halve the image.
auto stage(int depth, int which, double scale) {
  return [=](nn::Sequential& s) {
    const Depth& d = depth_of(depth);
    const int64_t in = which == 0 ? width_of(0, scale) : width_of(which - 1, scale) * expansion(depth);
    const int64_t width = width_of(which, scale), blocks = repeats(d.blocks[which], scale);
    const int64_t stride = which == 0 ? 1 : 2;
    if (d.bottleneck)
      add_blocks<Bottleneck>(s, in, width, blocks, stride);
    else
      add_blocks<BasicBlock>(s, in, width, blocks, stride);
  };
}

/// The shortcut's own convolution, where a block changes sizes.
auto shortcut(int64_t in, int64_t out, int64_t stride) {
  return [=](nn::Sequential& s) {
    if (in != out || stride != 1) add_conv_norm(s, {in, out, 1, stride});
  };
}

}  // namespace

BasicBlock::BasicBlock(int64_t in, int64_t width, int64_t stride)
    : conv1(child<nn::Conv2d>("conv1", in, width, 3, stride, 1, 1, 1, false)),
      bn1(child<nn::BatchNorm2d>("bn1", width)),
      conv2(child<nn::Conv2d>("conv2", width, width, 3, 1, 1, 1, 1, false)),
      bn2(child<nn::BatchNorm2d>("bn2", width)),
      downsample(child<nn::Sequential>("downsample", shortcut(in, width, stride))) {}

Tensor BasicBlock::forward(const Tensor& x) {
  const Tensor h = tandem::relu(bn1(conv1(x)));
  const Tensor y = bn2(conv2(h));
  return tandem::relu(y + downsample(x));
}

Bottleneck::Bottleneck(int64_t in, int64_t width, int64_t stride)
    : conv1(child<nn::Conv2d>("conv1", in, width, 1, 1, 0, 1, 1, false)),
      bn1(child<nn::BatchNorm2d>("bn1", width)),
      conv2(child<nn::Conv2d>("conv2", width, width, 3, stride, 1, 1, 1, false)),
      bn2(child<nn::BatchNorm2d>("bn2", width)),
      conv3(child<nn::Conv2d>("conv3", width, width * kExpansion, 1, 1, 0, 1, 1, false)),
      bn3(child<nn::BatchNorm2d>("bn3", width * kExpansion)),
      downsample(child<nn::Sequential>("downsample", shortcut(in, width * kExpansion, stride))) {}

Tensor Bottleneck::forward(const Tensor& x) {
  Tensor h = tandem::relu(bn1(conv1(x)));
  h = tandem::relu(bn2(conv2(h)));
  const Tensor y = bn3(conv3(h));
  return tandem::relu(y + downsample(x));
}

ResNet::ResNet(int depth, int64_t classes, double scale)
    : conv1(child<nn::Conv2d>("conv1", 3, width_of(0, scale), 7, 2, 3, 1, 1, false)),
      bn1(child<nn::BatchNorm2d>("bn1", width_of(0, scale))),
      layer1(child<nn::Sequential>("layer1", stage(depth, 0, scale))),
      layer2(child<nn::Sequential>("layer2", stage(depth, 1, scale))),
      layer3(child<nn::Sequential>("layer3", stage(depth, 2, scale))),
      layer4(child<nn::Sequential>("layer4", stage(depth, 3, scale))),
      fc(child<nn::Linear>("fc", width_of(3, scale) * expansion(depth), classes)) {
  initialise(*this, false);
}

Tensor ResNet::forward(const Tensor& x) {
  Tensor h = tandem::max_pool2d(tandem::relu(bn1(conv1(x))), 3, 2, 1);
  for (const nn::Sequential* s : {&layer1, &layer2, &layer3, &layer4}) h = (*s)(h);
  return fc(pool_all(h));
}

}  // namespace samples
