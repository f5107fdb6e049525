// README's first program: a small network, one training step, traced.
#include <tandem/tandem.h>

#include <iostream>

#include "samples/cli.h"

namespace td = tandem;

struct Mlp : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 64, 256);
  td::nn::Linear out = child<td::nn::Linear>("out", 256, 10);
  td::Tensor forward(const td::Tensor& x) { return out(td::relu(hidden(x))); }
};

int main(int argc, char** argv) {
  samples::Options options(
      argc, argv, "Trains a small network on one random batch with a traced step and prints the losses.");
  const long steps = options.integer("steps", 100, "training steps");
  options.done();

  td::manual_seed(7);
  Mlp net;
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
  auto step = td::trace([&](td::Tensor x, td::Tensor y) {  // delete `td::trace` and it still runs
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });
  td::Tensor x = td::randn({64, 64});
  td::Tensor y = td::randint(0, 10, {64});
  for (long i = 0; i < steps; ++i) std::cout << step(x, y).item<float>() << "\n";
}
