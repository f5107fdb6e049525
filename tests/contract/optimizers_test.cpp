// Traps of optimizers and what stands around them: rates that depend on the step, clipping, averages.
#include "tests/contract/net.h"

using namespace programs;

TRAP("every optimizer, with rates that depend on the step",
     "Adam's bias correction freezes; a recompile a step", store_scalars) {
  const auto with = [&](auto make) {
    Net net;
    auto opt = make(net.parameters());
    auto step = run.wrap([&](Tensor x) {
      Tensor loss = net.forward(x).square().sum();
      opt->zero_grad();
      loss.backward();
      opt->step();
      return loss.detach();
    });
    for (int i = 0; i < 9; ++i) run.see(step(batch(i)));
    see_all(run, net.parameters());
  };
  using Parameters = std::vector<Tensor>;
  with([](const Parameters& p) { return std::make_unique<td::optim::NAdam>(p); });
  with([](const Parameters& p) { return std::make_unique<td::optim::RAdam>(p); });
  with([](const Parameters& p) { return std::make_unique<td::optim::Adamax>(p); });
  with([](const Parameters& p) {
    return std::make_unique<td::optim::Adagrad>(p, td::optim::AdagradOptions{.lr_decay = 0.1});
  });
  with([](const Parameters& p) {
    return std::make_unique<td::optim::RMSprop>(p,
                                                td::optim::RMSpropOptions{.momentum = 0.5, .centered = true});
  });
  with([](const Parameters& p) { return std::make_unique<td::optim::Lion>(p); });
}

TRAP("gradients clipped on the device to a norm that changes, and averages with a decay that does",
     "torch.compile: a recompile a number", store_scalars) {
  Net net;
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  td::optim::ExponentialMovingAverage ema(net.parameters());
  double most = 0.5;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().sum();
    opt.zero_grad();
    loss.backward();
    const Tensor norm = td::nn::utils::clip_grad_norm_(net.parameters(), most);
    opt.step();
    ema.update();
    return norm;
  });
  for (int i = 0; i < 8; ++i) {
    most = 0.5 + 0.1 * i;
    ema.set_decay(1 - 1.0 / (2 + i));
    run.see(step(batch(i)));
  }
  see_all(run, net.parameters());
  see_all(run, ema.averages());
}
