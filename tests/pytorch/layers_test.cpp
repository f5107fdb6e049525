// Every layer against PyTorch's of the same name, made with the same arguments and weights.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("Linear, Embedding and LayerNorm are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  s.one<nn::Linear>("Linear", {"[5, 3]"}, {4, 5}, 5, 3);
  s.one<nn::Linear>("Linear", {"[5, 3, false]"}, {2, 4, 5}, 5, 3, false);
  s.add(
      "Embedding", {"[7, 3]"},
      [](DType) {
        return std::vector<Tensor>{randint(0, 7, {2, 5})};
      },
      [] { return std::make_unique<nn::Embedding>(7, 3); },
      [](nn::Embedding& m, const std::vector<Tensor>& in) { return std::vector<Tensor>{m(in[0])}; });
  s.one<nn::LayerNorm>("LayerNorm", {"[[5]]"}, {3, 5}, Dims{5});
  s.one<nn::LayerNorm>("LayerNorm", {"[[3, 4], 0.001, false]"}, {2, 3, 4}, Dims{3, 4}, 1e-3, false);
  s.one<nn::Dropout>("Dropout", {.arguments = "[0.5]", .training = false}, {3, 4}, 0.5);
  s.compare();
}

TEST_CASE("Activations are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  const Dims sizes = {3, 7};
  s.one<nn::ReLU>("ReLU", {}, sizes);
  s.one<nn::Tanh>("Tanh", {}, sizes);
  s.one<nn::Sigmoid>("Sigmoid", {}, sizes);
  s.one<nn::ReLU6>("ReLU6", {}, sizes);
  s.one<nn::SELU>("SELU", {}, sizes);
  s.one<nn::Mish>("Mish", {}, sizes);
  s.one<nn::LogSigmoid>("LogSigmoid", {}, sizes);
  s.one<nn::Softsign>("Softsign", {}, sizes);
  s.one<nn::Hardswish>("Hardswish", {}, sizes);
  s.one<nn::SiLU>("SiLU", {}, sizes);
  s.one<nn::GELU>("GELU", {}, sizes);
  s.one<nn::GELU>("GELU", {.options = Fields().text("approximate", "tanh")}, sizes, true);
  s.compare();
}
