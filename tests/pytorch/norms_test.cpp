// Normalising layers against PyTorch's, in training and evaluation, with what they keep.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("Normalising layers are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  for (const bool training : {true, false}) {
    const auto how = [&](const char* arguments) {
      return LayerArguments{.arguments = arguments, .training = training};
    };
    s.one<nn::BatchNorm1d>("BatchNorm1d", how("[5]"), {6, 5}, 5);
    s.one<nn::BatchNorm1d>("BatchNorm1d", how("[5, 0.001, 0.3, false]"), {4, 5, 3}, 5, 1e-3, 0.3, false);
    s.one<nn::BatchNorm1d>("BatchNorm1d", how("[5, 1e-5, 0.1, true, false]"), {4, 5, 3}, 5, 1e-5, 0.1, true,
                           false);
    s.one<nn::BatchNorm2d>("BatchNorm2d", how("[3]"), {4, 3, 5, 6}, 3);
    s.one<nn::BatchNorm2d>("BatchNorm2d", how("[3, 1e-5, null]"), {4, 3, 5, 6}, 3, 1e-5, std::nullopt);
    s.one<nn::BatchNorm3d>("BatchNorm3d", how("[3]"), {2, 3, 4, 2, 3}, 3);
    s.one<nn::InstanceNorm3d>("InstanceNorm3d", how("[3, 1e-5, 0.1, true]"), {2, 3, 4, 2, 3}, 3, 1e-5, 0.1,
                              true);
    s.one<nn::InstanceNorm1d>("InstanceNorm1d", how("[4]"), {3, 4, 6}, 4);
    s.one<nn::InstanceNorm2d>("InstanceNorm2d", how("[4, 1e-5, 0.2, true, true]"), {3, 4, 5, 3}, 4, 1e-5, 0.2,
                              true, true);
    s.one<nn::GroupNorm>("GroupNorm", how("[2, 6]"), {3, 6, 4, 5}, 2, 6);
    s.one<nn::GroupNorm>("GroupNorm", how("[3, 6, 0.001, false]"), {3, 6, 4}, 3, 6, 1e-3, false);
    s.one<nn::RMSNorm>("RMSNorm", how("[[5], 1e-6]"), {3, 5}, Dims{5}, 1e-6);
  }
  s.compare();
}
