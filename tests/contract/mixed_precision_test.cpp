// Traps of mixed precision: modes that change, overflows that only the device sees, values computed twice.
#include <cmath>

#include "tests/contract/net.h"

using namespace programs;

TRAP("autocast's type changes between calls, then goes", "types frozen at capture (torch.jit.trace)",
     differences) {
  Net net;
  td::DType type = td::bfloat16;
  bool enabled = true;
  auto f = run.wrap([&](Tensor x) {
    const td::NoGrad no_grad;
    const td::Autocast region(type, enabled);
    return net.forward(x);
  });
  for (int i = 0; i < 9; ++i) {
    type = i % 2 ? td::bfloat16 : td::float16;
    enabled = i % 3 != 2;
    run.see(f(batch(i)));
  }
}

TRAP("loss scaling: overflows decided by the device, a rate that changes, a scale that grows",
     "a read a step, or the scale and the step count frozen (CUDA graphs)", store_scalars) {
  Net net;
  td::optim::NAdam opt(net.parameters(), {.lr = 0.05});
  td::optim::GradScaler scaler({.init_scale = 64, .growth_interval = 2});
  auto step = run.wrap([&](Tensor x) {
    opt.zero_grad();
    Tensor loss;
    {
      const td::Autocast region(td::float16);
      loss = net.forward(x).square().sum();
    }
    scaler.scale(loss).backward();
    scaler.unscale_(opt);
    td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
    scaler.step(opt);
    scaler.update();
    return loss.detach();
  });
  for (int i = 0; i < 9; ++i) {
    opt.set_lr(0.05 / (1 + i));
    const bool bad = i == 2 || i == 5;
    const Tensor loss = step(bad ? batch(i) * HUGE_VAL : batch(i));
    run.see(std::isnan(loss.item<float>()));
    if (!bad) run.see(loss);
  }
  run.claim(step, [](const auto& report) { return report.recorded == 1 && report.segments == 1; });
  see_all(run, net.parameters());
  for (const td::NamedTensor& n : opt.state()) run.see(n.tensor);
  run.see(scaler.get_scale());
}

TRAP("a checkpointed block with dropout and a number that changes", "recomputed with other random numbers",
     store_scalars) {
  Net net;
  double scale = 1;
  auto f = run.wrap([&](Tensor x) {
    for (const Tensor& p : net.parameters()) p.zero_grad();
    const auto block = [&](const Tensor& in) { return td::dropout(net.forward(in), 0.4) * scale; };
    Tensor loss = td::checkpoint(block, x).square().sum();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    scale = 1 + 0.25 * i;
    run.see(f(batch(i)));
    for (const Tensor& p : net.parameters()) run.see(p.grad());
    run.see(static_cast<int64_t>(td::default_generator().offset()));
  }
}

TRAP("steps of the device and steps of the host take turns", "two counts that drift apart", store_scalars,
     HostState{"the flag by which the body chooses is the same in the observed calls"}) {
  Net net;
  td::optim::Adam opt(net.parameters(), {.lr = 0.05});
  bool device = false;
  auto step = run.wrap([&](Tensor x, Tensor skip) {
    opt.zero_grad();
    net.forward(x).square().sum().backward();
    if (device)
      opt.step_unless(skip);
    else
      opt.step();
  });
  for (int i = 0; i < 12; ++i) {
    device = i % 6 >= 3;
    step(batch(i), td::scalar_tensor(i == 4));
  }
  see_all(run, net.parameters());
  for (const td::NamedTensor& n : opt.state()) run.see(n.tensor);
}
