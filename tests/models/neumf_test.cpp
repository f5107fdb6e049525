// NeuMF: its parameters and what it refuses.
#include "samples/models/neumf.h"

#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using tandem::test::message;

TEST_CASE("NeuMF has the parameters of the model") {
  const samples::NeuMf net({.users = 7, .items = 5});
  int64_t dense = 0;
  for (const td::NamedTensor& p : net.named_parameters())
    if (p.name.find("embed") == std::string::npos) dense += p.tensor.numel();
  CHECK(net.num_parameters() == (7 + 5) * (64 + 128) + dense);
  CHECK((138'493 + 26'744) * (64 + 128) + dense == 31'832'577);
  const auto parameters = net.named_parameters();
  REQUIRE(parameters.size() == 4 + 2 * 4);
  CHECK(parameters[0].name == "mf_user_embed.weight");
  CHECK(parameters[3].name == "mlp_item_embed.weight");
  CHECK(parameters[3].tensor.sizes() == td::Dims{5, 128});
  CHECK(parameters[4].name == "mlp.0.weight");
  CHECK(parameters[8].name == "mlp.2.weight");
  CHECK(parameters[8].tensor.sizes() == td::Dims{64, 128});
  CHECK(parameters[10].name == "final.weight");
  CHECK(parameters[10].tensor.sizes() == td::Dims{1, 128});
}

TEST_CASE("NeuMF gives a number for each pair, and refuses what it was not made for") {
  td::manual_seed(1);
  samples::NeuMf net({.users = 7, .items = 5, .mf_width = 3, .mlp_widths = {6, 4}});
  net.eval();
  const td::Tensor users = td::tensor(std::vector<int64_t>{0, 6, 6}),
                   items = td::tensor(std::vector<int64_t>{4, 4, 0});
  const td::Tensor y = net.forward(users, items);
  CHECK(y.sizes() == td::Dims{3});
  const auto values = y.to_vector<double>();
  CHECK(values[0] != values[1]);  // another user
  CHECK(values[1] != values[2]);  // another item
  CHECK_THAT(message([&] { net.forward(items, users).sum().item<double>(); }),
             Catch::Contains("out of range"));
  CHECK_THAT(message([] { samples::NeuMf net({.users = 0}); }), Catch::Contains("at least 1, found 0"));
  CHECK_THAT(message([] { samples::NeuMf net({.mlp_widths = {5, 4}}); }), Catch::Contains("an even one"));
  CHECK_THAT(message([] { samples::NeuMf net({.mlp_widths = {6}}); }), Catch::Contains("two numbers"));
}
