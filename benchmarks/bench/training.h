// The MLP that several workloads train. Single-threaded.
#pragma once

#include <memory>

#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

struct Mlp : td::nn::Module {
  td::nn::Linear a = child<td::nn::Linear>("a", 64, 256);
  td::nn::Linear b = child<td::nn::Linear>("b", 256, 128);
  td::nn::Linear c = child<td::nn::Linear>("c", 128, 10);
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor h = td::relu(a(x));
    const td::Tensor g = td::relu(b(h));
    return c(g);
  }
};

/// The MLP of the digits, batch 64, AdamW, on data and at a learning rate that do not converge (no
/// denormals).
struct Training {
  explicit Training(td::Device device = td::cpu) {
    net.to(device);
    x = x.to(device);
    y = y.to(device);
    opt = std::make_unique<td::optim::AdamW>(net.parameters(), td::optim::AdamWOptions{.lr = 1e-7});
  }
  Mlp net;
  std::unique_ptr<td::optim::AdamW> opt;
  td::Tensor x = td::rand({64, 64});
  td::Tensor y = td::randint(0, 10, {64});
  td::Tensor step(const td::Tensor& in, const td::Tensor& labels) {
    const td::Tensor loss = td::cross_entropy(net.forward(in), labels);
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss;
  }
};

}  // namespace bench
