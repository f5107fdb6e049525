// AlexNet: names and sizes of its parameters.
#include "samples/models/alexnet.h"

#include "tests/catch.h"

namespace td = tandem;

TEST_CASE("AlexNet has torchvision's parameters") {
  const samples::AlexNet net;
  CHECK(net.num_parameters() == 61'100'840);
  const auto parameters = net.named_parameters();
  REQUIRE(parameters.size() == 16);
  CHECK(parameters.front().name == "features.0.weight");
  CHECK(parameters.front().tensor.sizes() == td::Dims{64, 3, 11, 11});
  CHECK(parameters.back().name == "classifier.6.bias");
}
