// Traps of training steps: optimizers, schedules, gradients that accumulate, clipping, frozen layers.
#include <cmath>

#include "tests/contract/net.h"

using namespace programs;

TRAP("a learning rate that changes in 1,000 steps is one trace",
     "pytorch #120934, #130467: a recompile a rate, limit of 8", store_scalars) {
  Tensor w = td::zeros({3}).requires_grad_();
  td::optim::SGD opt({w}, {.lr = 0.1, .momentum = 0.9});
  td::optim::CosineAnnealingLR schedule(opt, 1000);
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w - 1.f).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 1000; ++i) {
    const Tensor loss = step(td::sin(range(3, float(i))));
    if (i % 50 == 0) run.see(loss);
    schedule.step();
  }
  run.see(w);
  run.claim(step, [](const auto& r) { return r.recorded == 1 && r.plans == 1; });
}

TRAP("Adam's bias correction", "LibTorch in a CUDA graph: the correction of the captured step stays",
     store_scalars) {
  Tensor w = leaf(3);
  td::optim::Adam opt({w}, {.lr = 0.1});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 20; ++i) run.see(step(td::ones({3})));
  run.see(w);
  run.claim(step, [](const auto& r) { return r.recorded == 1; });
}

TRAP("an optimizer written by hand with a host step count", "tf.function: a Python counter is a constant",
     store_scalars) {
  Tensor w = leaf(3), m = td::zeros({3});
  int t = 0;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward();
    td::NoGrad no_grad;
    ++t;
    m.mul_(0.9f).add_(w.grad() * 0.1f);
    w.sub_(m * (0.01 / (1 - std::pow(0.9, t))));
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) run.see(step(range(3)));
  run.see(w);
}

TRAP("optimizer state made in the first step", "tt-blacksmith #673: lazy state compiles a second time",
     differences) {
  Tensor w = leaf(3), momentum;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward();
    td::NoGrad no_grad;
    if (!momentum.defined())
      momentum = w.grad().clone();
    else
      momentum = momentum * 0.9f + w.grad();
    w.sub_(momentum * 0.01f);
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(step(range(3)));
    run.see(momentum);
  }
  run.see(w);
}

TRAP("the optimizer is replaced", "tf.function: variables made on a later call; JAX: closures", differences) {
  Net net;
  std::unique_ptr<td::optim::Optimizer> opt =
      std::make_unique<td::optim::SGD>(net.parameters(), td::optim::SGDOptions{.lr = 0.1});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss.detach();
  });
  for (int i = 0; i < 12; ++i) {
    if (i == 3)
      opt = std::make_unique<td::optim::AdamW>(net.parameters(), td::optim::AdamWOptions{.lr = 0.05});
    if (i == 6)
      opt = std::make_unique<td::optim::AdamW>(net.parameters(), td::optim::AdamWOptions{.lr = 0.01});
    if (i == 9)
      opt = std::make_unique<td::optim::SGD>(net.parameters(),
                                             td::optim::SGDOptions{.lr = 0.1, .momentum = 0.5});
    run.see(step(batch(i)));
  }
  see_all(run, net.parameters());
}

TRAP("optimizer state is loaded between calls",
     "torch.compile: state_dict loads recompile; CUDA graphs: stale step", store_scalars) {
  Net net;
  td::optim::AdamW opt(net.parameters(), {.lr = 0.05});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  std::vector<td::NamedTensor> saved;
  for (int i = 0; i < 9; ++i) {
    if (i == 2)
      for (const td::NamedTensor& t : opt.state()) saved.push_back({t.name, t.tensor.clone()});
    if (i == 5) opt.load_state(saved);
    run.see(step(batch(i)));
  }
  see_all(run, net.parameters());
  run.claim(step, [](const auto& r) { return r.recorded <= 2; });
}

TRAP("groups with rates of their own, changed one by one",
     "pytorch #120934: floats of param groups are guards", store_scalars) {
  Net net;
  td::optim::AdamW opt(
      {{net.hidden.parameters(), {.lr = 0.1}}, {net.out.parameters(), {.lr = 0.01, .weight_decay = 0}}});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    run.see(step(batch(i)));
    opt.set_lr(opt.lr(size_t(i % 2)) * 0.7, size_t(i % 2));
    if (i == 4) {
      td::optim::AdamWOptions o = opt.options(1);
      o.weight_decay = 0.3;
      o.betas.first = 0.5;
      opt.set_options(o, 1);
    }
  }
  see_all(run, net.parameters());
}

TRAP("a group is added", "torch.compile: a new parameter set is a new graph", end_event,
     HostState{"the groups of an optimizer, and a captured flag"}) {
  Net net;
  td::optim::SGD opt(net.hidden.parameters(), {.lr = 0.1});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    net.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  // Back from the longer step to the shorter one as well.
  Net other;
  td::optim::SGD small(other.hidden.parameters(), {.lr = 0.1});
  bool both = true;
  auto pair = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).mean() + other.forward(x).mean();
    net.zero_grad();
    other.zero_grad();
    loss.backward();
    const Tensor result = loss.detach();
    opt.step();
    if (both) small.step();
    return result;
  });
  for (int i = 0; i < 8; ++i) {
    if (i == 3) opt.add_group(net.out.parameters(), {.lr = 0.5});
    both = i % 3 != 2;
    run.see(step(batch(i)));
    run.see(pair(batch(i)));
  }
  see_all(run, net.parameters());
  see_all(run, other.parameters());
}

TRAP("gradients clipped with a branch of the host on their norm",
     "torch.compile: a graph break; CUDA graphs: frozen", differences) {
  Net net;
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  int clipped = 0;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().sum();
    opt.zero_grad();
    loss.backward();
    Tensor total = td::zeros({});
    for (const Tensor& p : net.parameters()) total = total + p.grad().square().sum();
    const float norm = td::sqrt(total).item<float>();
    if (norm > 1.f) {
      ++clipped;
      for (const Tensor& p : net.parameters()) p.grad().mul_(1.f / norm);
    }
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 12; ++i) {
    run.see(step(batch(i) * (i % 3 == 1 ? 5.f : 0.2f)));
    run.see(clipped);
  }
  see_all(run, net.parameters());
}

TRAP("gradients accumulate over micro-batches",
     "tinyworlds #12: CUDA graphs overwrite the accumulated gradients", leaf_gradients) {
  Net net;
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  int i = 0;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean() / 3.f;
    loss.backward();
    if (i % 3 == 2) {
      opt.step();
      opt.zero_grad();
    }
    return loss.detach();
  });
  for (i = 0; i < 12; ++i) {
    run.see(step(batch(i)));
    for (const Tensor& p : net.parameters()) run.see(p.grad());
  }
  see_all(run, net.parameters());
}

TRAP("gradients dropped, zeroed, or left, by turns", "pytorch: zero_grad(set_to_none) changes the graph",
     leaf_gradients) {
  Tensor w = leaf(3);
  int kind = 0;
  auto f = run.wrap([&](Tensor x) {
    if (kind == 0) w.zero_grad();
    if (kind == 1 && w.grad().defined()) w.grad().zero_();
    Tensor loss = (x * w).square().sum();
    loss.backward();
    return loss.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 14; ++i) {
    kind = i % 4 == 0 ? 0 : i % 3 == 1 ? 1 : 2;
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    if (i % 3 == 0) kept.push_back(w.grad());
  }
  see_all(run, kept);
}

TRAP("dynamic loss scaling skips steps that overflow", "torch.compile: GradScaler breaks the graph",
     end_event) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.01});
  float scale = 65536;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    opt.zero_grad();
    (loss * scale).backward();
    const Tensor result = loss.detach();
    const float size = w.grad().abs().amax().item<float>();
    if (!std::isfinite(size)) {
      scale *= 0.5f;
      return result;
    }
    td::NoGrad no_grad;
    w.grad().mul_(1.f / scale);
    opt.step();
    scale *= 1.5f;
    return result;
  });
  for (int i = 0; i < 12; ++i) {
    run.see(step(range(3, float(i)) * (i % 4 == 2 ? 1e18f : 1.f)));
    run.see(scale);
  }
  run.see(w);
}

TRAP("a layer is frozen, and trained again", "torch.jit.trace: requires_grad is frozen", slot_watch) {
  Net net;
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 12; ++i) {
    if (i == 3) net.hidden.requires_grad_(false);
    if (i == 6) net.out.bias.requires_grad_(false);
    if (i == 9) net.requires_grad_(true);
    run.see(step(batch(i)));
    for (const Tensor& p : net.parameters()) run.see(p.grad());
  }
  see_all(run, net.parameters());
}

TRAP("two optimizers take turns on one loss", "adversarial training: which leaves are reached changes",
     backward_key) {
  Tensor a = leaf(3), b = leaf(3, 5);
  td::optim::SGD first({a}, {.lr = 0.01}), second({b}, {.lr = 0.01});
  bool turn = false;
  auto step = run.wrap([&](Tensor x) {
    const Tensor h = x * a;
    const Tensor good = (h * b).sum(), bad = (h - b).square().sum();
    a.zero_grad();
    b.zero_grad();
    if (turn) {
      good.backward();
      first.step();
    } else {
      bad.backward();
      second.step();
    }
    return (good + bad).detach();
  });
  for (int i = 0; i < 10; ++i) {
    turn = i / 2 % 2;
    run.see(step(range(3) * 0.1f));
    run.see(a.grad());
    run.see(b.grad());
  }
  run.see(a);
  run.see(b);
}

TRAP("a parameter that gets no gradient in some steps", "DDP and torch.compile: unused parameters",
     compare_operands) {
  Tensor a = leaf(3), b = leaf(3, 5);
  td::optim::AdamW opt({a, b}, {.lr = 0.1});
  bool other = false;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * (other ? b : a)).square().sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 10; ++i) {
    other = i % 3 != 0;
    run.see(step(range(3)));
  }
  run.see(a);
  run.see(b);
  for (const td::NamedTensor& t : opt.state()) run.see(t.tensor);
}

TRAP("a rate lowered when the loss does not fall", "a scheduler that reads the loss", reads_run) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.3});
  double best = 1e9;
  int bad = 0;
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w - 2.f).square().sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    const double now = loss.item<double>();
    if (now < best)
      best = now, bad = 0;
    else if (++bad > 1)
      opt.set_lr(opt.lr() * 0.5), bad = 0;
    return loss.detach();
  });
  for (int i = 0; i < 15; ++i) {
    run.see(step(range(3)));
    run.see(opt.lr());
  }
}

TRAP("a closure evaluated several times in one step", "line search: LBFGS is not traceable", reads_run) {
  Tensor w = leaf(3);
  auto step = run.wrap([&](Tensor x) {
    const auto loss_of = [&](const Tensor& at) { return (x * at - 1.f).square().sum(); };
    w.zero_grad();
    Tensor loss = loss_of(w);
    loss.backward();
    td::NoGrad no_grad;
    float rate = 1;
    const float now = loss.item<float>();
    while (rate > 1e-4f && loss_of(w - w.grad() * rate).item<float>() > now) rate *= 0.25f;
    w.sub_(w.grad() * rate);
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) run.see(step(range(3)));
  run.see(w);
}

TRAP("weight decay begins at zero and grows", "0 and 1 are special values that tracers fold", store_scalars,
     HostState{"a constant of the report: weight_decay"}) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.1});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    if (i == 2) opt.set_options({.lr = 0.1, .weight_decay = 0.5});
    if (i == 4) opt.set_options({.lr = 1.0, .weight_decay = 0.25});
    if (i == 6) opt.set_options({.lr = 0.0, .weight_decay = 1.0});
    run.see(step(range(3)));
  }
  run.see(w);
}

TRAP("a step for training and one for evaluation share the model",
     "torch.compile: two graphs, one set of buffers", slot_writes) {
  Net net;
  td::optim::AdamW opt(net.parameters(), {.lr = 0.05});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  auto eval = run.wrap([&](Tensor x) {
    td::NoGrad no_grad;
    return net.forward(x).sum();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(step(batch(i)));
    run.see(eval(batch(0)));
  }
}
