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
  for (const double norm_type : {2.0, 1.0})
    s.add(
        "Embedding", {"[7, 3, null, 1.1, " + std::to_string(norm_type) + "]"},
        [](DType) {
          return std::vector<Tensor>{tensor({0, 3, 3, 6}).to(int64)};
        },
        [&] { return std::make_unique<nn::Embedding>(7, 3, std::nullopt, 1.1, norm_type); },
        [](nn::Embedding& m, const std::vector<Tensor>& in) { return std::vector<Tensor>{m(in[0])}; });
  for (const double lower : {0.125, -0.5})
    s.one<nn::RReLU>("RReLU", {.arguments = "[" + std::to_string(lower) + ", 0.25]", .training = false},
                     {4, 5}, lower, 0.25);
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
  // Not Hardsigmoid: PyTorch rounds its gradient to float32, so ops_test.cpp compares with the formula; and
  // CELU only where float32 holds alpha.
  s.one<nn::Tanhshrink>("Tanhshrink", {}, sizes);
  s.one<nn::ELU>("ELU", {"[0.7]"}, sizes, 0.7);
  s.one<nn::CELU>("CELU", {"[0.5]"}, sizes, 0.5);
  s.one<nn::LeakyReLU>("LeakyReLU", {"[0.2]"}, sizes, 0.2);
  s.one<nn::Softplus>("Softplus", {"[2.0, 1.0]"}, sizes, 2.0, 1.0);
  s.one<nn::Hardtanh>("Hardtanh", {"[-0.5, 0.7]"}, sizes, -0.5, 0.7);
  s.one<nn::Softshrink>("Softshrink", {"[0.4]"}, sizes, 0.4);
  s.one<nn::Hardshrink>("Hardshrink", {"[0.4]"}, sizes, 0.4);
  s.one<nn::Threshold>("Threshold", {"[0.1, 3.0]"}, sizes, 0.1, 3.0);
  s.one<nn::Softmax>("Softmax", {"[1]"}, sizes, 1);
  s.one<nn::Softmin>("Softmin", {"[0]"}, sizes, 0);
  s.one<nn::LogSoftmax>("LogSoftmax", {"[1]"}, sizes, 1);
  s.one<nn::GLU>("GLU", {"[0]"}, {4, 3}, 0);
  s.one<nn::PReLU>("PReLU", {"[7]"}, sizes, 7);
  s.one<nn::PReLU>("PReLU", {}, sizes);
  s.one<nn::Flatten>("Flatten", {}, {2, 3, 4});
  s.one<nn::Unflatten>("Unflatten", {"[1, [2, 3]]"}, {2, 6}, 1, Dims{2, 3});
  s.one<nn::Identity>("Identity", {}, sizes);
  s.compare();
}
