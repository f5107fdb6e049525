// Attention and recurrent layers on the device: traced and eager bit for bit, and near the CPU.
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

struct Model : td::nn::Module {
  td::nn::Embedding table = child<td::nn::Embedding>("table", 7, 8);
  td::nn::TransformerEncoderLayer block = child<td::nn::TransformerEncoderLayer>(
      "block", 8, 2,
      td::nn::TransformerLayerOptions{.dim_feedforward = 16, .dropout = 0.1, .batch_first = true});
  td::nn::LSTM lstm =
      child<td::nn::LSTM>("lstm", 8, 4, td::nn::RecurrentOptions{.batch_first = true, .bidirectional = true});
  td::nn::GRU gru = child<td::nn::GRU>("gru", 8, 5, td::nn::RecurrentOptions{.batch_first = true});
  td::nn::Linear out = child<td::nn::Linear>("out", 5, 7);
  Tensor forward(const Tensor& i, const Tensor& lengths) {
    const Tensor x = block(table(i), {}, {}, true);
    return out(gru(lstm(x, {}, lengths).first).first);
  }
};

std::vector<float> losses(td::Device device, bool traced) {
  td::manual_seed(5);
  Model net;
  net.to(device);
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-2});
  const Tensor lengths = td::tensor<int64_t>({4, 2, 3}).to(device);
  const auto body = [&](const Tensor& x, const Tensor& y) {
    const Tensor loss = td::cross_entropy(net.forward(x, lengths).reshape({-1, 7}), y.reshape({-1}));
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
  auto step = td::trace(body);
  std::vector<float> out;
  for (int i = 0; i < 4; ++i) {
    const Tensor x = td::randint(0, 7, {3, 4}).to(device), y = td::randint(0, 7, {3, 4}).to(device);
    out.push_back((traced ? step(x, y) : body(x, y)).item<float>());
  }
  return out;
}

}  // namespace

TEST_CASE("cuda sequences: traced and eager losses are equal bit for bit, and near the CPU's", "[cuda]") {
  need_device();
  const std::vector<float> eager = losses(kCuda, false), traced = losses(kCuda, true),
                           host = losses(td::cpu, false);
  CHECK(eager == traced);
  for (size_t i = 0; i < host.size(); ++i) CHECK(eager[i] == Approx(host[i]).epsilon(1e-4));
}
