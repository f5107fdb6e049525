// Traps of requires_grad_ in the body, on tensors that the call used before.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a captured tensor is asked for its gradient after a use", "torch.jit.trace: requires_grad_ is lost",
     grad_requests) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor before = x * w;
    w.requires_grad_();
    Tensor loss = (before * w).sum();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    if (i % 3 != 1) w = range(3, float(i));
    if (i == 5) w.requires_grad_(false);
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(w);
  }
}

TRAP("a captured tensor is asked for its gradient after it was changed", "leaves made in a trace",
     grad_requests) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    w.mul_(2.f);
    w.requires_grad_();
    Tensor loss = (x * w).square().sum();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    w = range(3, float(i));
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(w);
  }
}

TRAP("a captured parameter is frozen in the middle of the body", "requires_grad is frozen", grad_requests) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor a = x * w;
    w.requires_grad_(false);
    const Tensor b = td::exp(w * 0.1f);
    w.requires_grad_(true);
    Tensor loss = (a + b).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    if (i == 3) w = leaf(3, 5);
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("a tensor used before and after it is asked for its gradient, beside a leaf",
     "the edge of the first use", tape_on_demand) {
  Tensor w = range(3), v = leaf(3, 4);
  bool hook = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor before = x * w * v;
    w.requires_grad_();
    x.requires_grad_();
    const Tensor after = before * w * x;
    if (hook) after.register_hook([](const Tensor& g) { return g * 2.f; });
    v.zero_grad();
    after.sum().backward();
    return after.detach();
  });
  for (int i = 0; i < 8; ++i) {
    w = range(3, float(i));
    hook = i > 1 && i != 4;
    const Tensor x = range(3, 2);
    run.see(f(x));
    run.see(w.grad());
    run.see(v.grad());
    run.see(x.grad());
  }
}
