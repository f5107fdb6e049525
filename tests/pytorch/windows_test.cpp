// Convolutions, pooling and interpolation against PyTorch's layers.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("Convolutions are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  s.one<nn::Conv1d>("Conv1d", {"[3, 5, 3]"}, {2, 3, 9}, 3, 5, 3);
  s.one<nn::Conv1d>("Conv1d", {"[4, 6, 3, 2, 1, 2, 2, false]"}, {2, 4, 11}, 4, 6, 3, 2, 1, 2, 2, false);
  s.one<nn::Conv2d>("Conv2d", {"[3, 4, 3]"}, {2, 3, 7, 8}, 3, 4, 3);
  s.one<nn::Conv2d>("Conv2d", {"[3, 4, [3, 2], [2, 1], [1, 2], [1, 2]]"}, {2, 3, 7, 8}, 3, 4, Dims{3, 2},
                    Dims{2, 1}, Dims{1, 2}, Dims{1, 2});
  s.one<nn::Conv2d>("Conv2d", {"[4, 8, 3, 1, 1, 1, 4]"}, {2, 4, 6, 5}, 4, 8, 3, 1, 1, 1, 4);
  s.one<nn::Conv2d>("Conv2d", {"[16, 32, 3, 1, 1]"}, {4, 16, 14, 14}, 16, 32, 3, 1, 1);
  s.one<nn::Conv2d>("Conv2d", {"[8, 16, 1, 2]"}, {2, 8, 9, 9}, 8, 16, 1, 2);
  const auto with_mode = [&](const char* arguments, const char* name, PadMode mode,
                             const ConvPadding& padding, const Dims& dilation) {
    s.one<nn::Conv2d>("Conv2d", {.arguments = arguments, .options = Fields().text("padding_mode", name)},
                      {2, 3, 7, 8}, 3, 4, Dims{3, 2}, 1, padding, dilation, 1, true, mode);
  };
  with_mode("[3, 4, [3, 2], 1, [2, 1]]", "reflect", PadMode::reflect, Dims{2, 1}, 1);
  with_mode("[3, 4, [3, 2], 1, \"same\", [1, 3]]", "replicate", PadMode::replicate, "same", Dims{1, 3});
  with_mode("[3, 4, [3, 2], 1, 3]", "circular", PadMode::circular, 3, 1);
  s.one<nn::ConvTranspose1d>("ConvTranspose1d", {"[3, 5, 3, 2, 1, 1]"}, {2, 3, 6}, 3, 5, 3, 2, 1, 1);
  s.one<nn::ConvTranspose2d>("ConvTranspose2d", {"[3, 4, 3]"}, {2, 3, 5, 4}, 3, 4, 3);
  s.one<nn::ConvTranspose2d>("ConvTranspose2d", {"[4, 6, [3, 2], [2, 3], [1, 0], [1, 0], 2, true, [1, 2]]"},
                             {2, 4, 5, 4}, 4, 6, Dims{3, 2}, Dims{2, 3}, Dims{1, 0}, Dims{1, 0}, 2, true,
                             Dims{1, 2});
  s.compare();
}

TEST_CASE("Padding layers are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  const Dims one = {2, 3, 6}, two = {2, 3, 6, 5}, three = {2, 3, 6, 5, 4};
  s.one<nn::ConstantPad1d>("ConstantPad1d", {"[[2, 1], 0.5]"}, one, Dims{2, 1}, 0.5);
  s.one<nn::ConstantPad2d>("ConstantPad2d", {"[1, -0.5]"}, two, 1, -0.5);
  s.one<nn::ConstantPad3d>("ConstantPad3d", {"[[1, 0, -1, 2, 0, 1], 2.0]"}, three, Dims{1, 0, -1, 2, 0, 1},
                           2.0);
  s.one<nn::ZeroPad2d>("ZeroPad2d", {"[[1, 2, 0, 1]]"}, two, Dims{1, 2, 0, 1});
  s.one<nn::ReflectionPad1d>("ReflectionPad1d", {"[[5, 2]]"}, one, Dims{5, 2});
  s.one<nn::ReflectionPad2d>("ReflectionPad2d", {"[[1, 2, 3, 4]]"}, two, Dims{1, 2, 3, 4});
  s.one<nn::ReflectionPad3d>("ReflectionPad3d", {"[2]"}, three, 2);
  s.one<nn::ReplicationPad1d>("ReplicationPad1d", {"[7]"}, one, 7);
  s.one<nn::ReplicationPad2d>("ReplicationPad2d", {"[[1, 2, 3, 9]]"}, two, Dims{1, 2, 3, 9});
  s.one<nn::ReplicationPad3d>("ReplicationPad3d", {"[2]"}, three, 2);
  s.one<nn::PixelShuffle>("PixelShuffle", {"[2]"}, {2, 8, 3, 2}, 2);
  s.one<nn::PixelUnshuffle>("PixelUnshuffle", {"[2]"}, {2, 3, 4, 6}, 2);
  s.compare();
}

TEST_CASE("Pooling and interpolation are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  s.one<nn::MaxPool1d>("MaxPool1d", {"[3, 2, 1]"}, {2, 3, 9}, 3, 2, 1);
  s.one<nn::MaxPool2d>("MaxPool2d", {"[2]"}, {2, 3, 8, 6}, 2);
  s.one<nn::MaxPool2d>("MaxPool2d", {"[3, 2]"}, {2, 3, 9, 8}, 3, 2);
  s.one<nn::MaxPool2d>("MaxPool2d", {"[[3, 2], [2, 1], [1, 0], [1, 2], false, true]"}, {2, 3, 9, 8},
                       Dims{3, 2}, Dims{2, 1}, Dims{1, 0}, Dims{1, 2}, true);
  s.one<nn::AvgPool1d>("AvgPool1d", {"[3, 2, 1, true, false]"}, {2, 3, 10}, 3, 2, 1, true, false);
  s.one<nn::AvgPool2d>("AvgPool2d", {"[3, 2, 1]"}, {2, 3, 9, 8}, 3, 2, 1);
  s.one<nn::AvgPool2d>("AvgPool2d", {"[[3, 2], [2, 1], [1, 0], true, false]"}, {2, 3, 8, 8}, Dims{3, 2},
                       Dims{2, 1}, Dims{1, 0}, true, false);
  s.one<nn::AdaptiveAvgPool1d>("AdaptiveAvgPool1d", {"[4]"}, {2, 3, 10}, Dims{4});
  s.one<nn::AdaptiveAvgPool2d>("AdaptiveAvgPool2d", {"[[3, 4]]"}, {2, 3, 7, 9}, Dims{3, 4});
  s.one<nn::AdaptiveAvgPool2d>("AdaptiveAvgPool2d", {"[1]"}, {2, 3, 7, 9}, Dims{1});
  s.one<nn::AdaptiveMaxPool1d>("AdaptiveMaxPool1d", {"[4]"}, {2, 3, 10}, Dims{4});
  s.one<nn::AdaptiveMaxPool2d>("AdaptiveMaxPool2d", {"[[3, 4]]"}, {2, 3, 7, 9}, Dims{3, 4});
  s.one<nn::MaxPool3d>("MaxPool3d", {"[2, 2, 1]"}, {2, 3, 6, 5, 4}, 2, 2, 1);
  s.one<nn::AvgPool3d>("AvgPool3d", {"[[3, 2, 2], [2, 1, 2], [1, 0, 1], true, false]"}, {2, 3, 6, 5, 4},
                       Dims{3, 2, 2}, Dims{2, 1, 2}, Dims{1, 0, 1}, true, false);
  s.one<nn::AdaptiveAvgPool3d>("AdaptiveAvgPool3d", {"[[2, 3, 3]]"}, {2, 3, 6, 5, 4}, Dims{2, 3, 3});
  s.one<nn::AdaptiveMaxPool3d>("AdaptiveMaxPool3d", {"[[2, 3, 3]]"}, {2, 3, 6, 5, 4}, Dims{2, 3, 3});
  s.one<nn::LPPool1d>("LPPool1d", {"[2, 3, 2]"}, {2, 3, 9}, 2, 3, 2);
  s.one<nn::LPPool2d>("LPPool2d", {"[4, [2, 3]]"}, {2, 3, 8, 9}, 4, Dims{2, 3});
  const auto upsample = [&](const char* mode, Interpolation kind, const Dims& sizes, bool align) {
    Fields factor = Fields().number("scale_factor", 2.5).text("mode", mode);
    if (align) factor.flag("align_corners", true);
    s.one<nn::Upsample>("Upsample", {.options = factor}, sizes,
                        InterpolateOptions{.scale_factor = {2.5}, .mode = kind, .align_corners = align});
    Dims to;
    for (int d = 2; d < sizes.rank(); ++d) to.push_back(d + 3);
    Fields by_size = Fields().list("size", to).text("mode", mode);
    if (align) by_size.flag("align_corners", true);
    s.one<nn::Upsample>("Upsample", {.options = by_size}, sizes,
                        InterpolateOptions{.size = to, .mode = kind, .align_corners = align});
  };
  upsample("nearest", Interpolation::nearest, {2, 3, 4}, false);
  upsample("nearest", Interpolation::nearest, {2, 3, 4, 3}, false);
  for (const bool align : {false, true}) {
    upsample("linear", Interpolation::linear, {2, 3, 4}, align);
    upsample("bilinear", Interpolation::bilinear, {2, 3, 4, 3}, align);
    upsample("trilinear", Interpolation::trilinear, {1, 2, 3, 4, 3}, align);
  }
  s.compare();
}
