// The image models: their parameters, their initialisation, what a scale makes of them.
#include "samples/models/image_parts.h"

#include <cmath>

#include "samples/models/mobilenet.h"
#include "samples/models/resnet.h"
#include "samples/models/vgg.h"
#include "tests/catch.h"

namespace td = tandem;

namespace {

template <class Net>
bool has_parameter(const Net& net, const std::string& name, const td::Dims& sizes) {
  for (const td::NamedTensor& p : net.named_parameters())
    if (p.name == name) return p.tensor.sizes() == sizes;
  return false;
}

/// Of numbers of mean 0.
double deviation(const td::Tensor& t) { return std::sqrt(t.detach().square().mean().item<double>()); }

double largest(const td::Tensor& t) {
  double most = 0;
  for (const float x : t.detach().to_vector<float>()) most = std::max(most, std::abs(double(x)));
  return most;
}

}  // namespace

TEST_CASE("VGG has torchvision's parameters", "[full]") {
  const samples::Vgg net;
  CHECK(net.num_parameters() == 143'667'240);
  CHECK(net.named_parameters().size() == 38);
  CHECK(has_parameter(net, "features.34.weight", {512, 512, 3, 3}));
  CHECK(has_parameter(net, "classifier.3.bias", {4096}));
}

TEST_CASE("VGG has four depths", "[full]") {
  CHECK(samples::Vgg(11).num_parameters() == 132'863'336);
  CHECK(samples::Vgg(13).num_parameters() == 133'047'848);
  CHECK(samples::Vgg(16).num_parameters() == 138'357'544);
}

TEST_CASE("ResNet has torchvision's parameters") {
  const samples::ResNet net;
  CHECK(net.num_parameters() == 25'557'032);
  CHECK(net.named_parameters().size() == 161);
  CHECK(net.named_buffers().size() == 3 * 53);
  CHECK(has_parameter(net, "layer2.0.conv2.weight", {128, 128, 3, 3}));
  CHECK(has_parameter(net, "layer4.0.downsample.0.weight", {2048, 1024, 1, 1}));
  CHECK(has_parameter(net, "layer4.0.downsample.1.bias", {2048}));
  CHECK(!has_parameter(net, "layer4.1.downsample.0.weight", {2048, 2048, 1, 1}));
  CHECK(samples::ResNet(18).num_parameters() == 11'689'512);
  CHECK(samples::ResNet(34).num_parameters() == 21'797'672);
}

TEST_CASE("Depths that the papers have not are refused") {
  CHECK_THROWS_WITH(samples::Vgg(18), Contains("depth 18 is none of 11, 13, 16, 19"));
  CHECK_THROWS_WITH(samples::ResNet(49), Contains("depth 49 is none of 18, 34, 50, 101, 152"));
}

TEST_CASE("MobileNet has the parameters of its papers, and torchvision's names") {
  const samples::MobileNetV1 first;
  CHECK(first.num_parameters() == 4'231'976);
  CHECK(has_parameter(first, "features.1.0.weight", {32, 1, 3, 3}));
  CHECK(has_parameter(first, "features.13.3.weight", {1024, 1024, 1, 1}));
  const samples::MobileNetV2 second;
  CHECK(second.num_parameters() == 3'504'872);
  CHECK(second.named_parameters().size() == 158);
  CHECK(has_parameter(second, "features.1.conv.0.0.weight", {32, 1, 3, 3}));
  CHECK(has_parameter(second, "features.2.conv.1.0.weight", {96, 1, 3, 3}));
  CHECK(has_parameter(second, "features.17.conv.3.bias", {320}));
  CHECK(has_parameter(second, "features.18.0.weight", {1280, 320, 1, 1}));
  CHECK(has_parameter(second, "classifier.1.weight", {1000, 1280}));
}

TEST_CASE("Bottlenecks stride in their 3x3 convolution") {
  samples::ResNet net(50, 10, 0.125);
  auto& block = dynamic_cast<samples::Bottleneck&>(net.layer2[0]);
  CHECK(block.conv1.stride == td::Dims{1, 1});
  CHECK(block.conv2.stride == td::Dims{2, 2});
}

TEST_CASE("Image models are initialised as torchvision's") {
  td::manual_seed(1);
  const samples::ResNet resnet(18, 100, 1);
  for (const td::NamedTensor& p : resnet.named_parameters()) {
    INFO(p.name);
    if (p.name == "layer3.0.conv1.weight")  // 128 channels in, 256 out
      CHECK(deviation(p.tensor) == Approx(std::sqrt(2.0 / (256 * 9))).epsilon(0.01));
    if (p.name == "layer1.0.bn1.weight") CHECK(largest(p.tensor - 1) == 0);
    if (p.name == "fc.weight")  // as nn.Linear has it: uniform within 1 / sqrt(512)
      CHECK(largest(p.tensor) == Approx(1 / std::sqrt(512.0)).epsilon(0.01));
  }
  const samples::MobileNetV2 mobile(100);
  for (const td::NamedTensor& p : mobile.named_parameters()) {
    INFO(p.name);
    if (p.name == "features.14.conv.1.0.weight")  // depthwise: fan out is 576 * 9
      CHECK(deviation(p.tensor) == Approx(std::sqrt(2.0 / (576 * 9))).epsilon(0.05));
    if (p.name == "classifier.1.weight") CHECK(deviation(p.tensor) == Approx(0.01).epsilon(0.01));
    if (p.name == "classifier.1.bias") CHECK(largest(p.tensor) == 0);
  }
}

TEST_CASE("A scale shrinks channels in eights and blocks to one") {
  CHECK(samples::scaled(64, 1, 8) == 64);
  CHECK(samples::scaled(100, 0.25, 8) == 24);
  CHECK(samples::scaled(5, 0.01) == 1);
  CHECK(samples::scaled(4, 0.01, 8) == 4);
  CHECK_THROWS_WITH(samples::scaled(8, 0), Contains("scale: 0.000000 is not above 0"));
  CHECK_THROWS_WITH(samples::scaled(8, 1.5), Contains("at most 1"));
  const samples::ResNet net(50, 10, 0.25);
  CHECK(has_parameter(net, "conv1.weight", {16, 3, 7, 7}));
  CHECK(has_parameter(net, "layer3.1.conv1.weight", {64, 256, 1, 1}));
  CHECK(!has_parameter(net, "layer3.2.conv1.weight", {64, 256, 1, 1}));
}
