// Traps of gradients that are state besides, of exceptions that leave something behind, and of storms.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a nested function asks for gradients and throws", "requires_grad is frozen", differences) {
  Tensor w = range(3);
  int i = 0;
  auto inner = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    w.requires_grad_(i % 2);
    if (i % 5 == 4) throw std::runtime_error("k");
    return y;
  });
  auto f = run.wrap([&](Tensor x) {
    Tensor a = inner(x);
    Tensor b = a * w;
    if (b.requires_grad()) {
      w.zero_grad();
      b.sum().backward();
    }
    return b.detach();
  });
  for (i = 0; i < 14; ++i) {
    run.attempt([&] { run.see(f(range(3, float(i)))); });
    run.see(w);
    run.see(w.grad());
    if (i % 3 == 0) run.attempt([&] { run.see(inner(range(3)).detach()); });
  }
}

TRAP("a storm whose calls have hooks, views with histories and leaves of their own",
     "R17: what is left of a call that runs eagerly", branch_bound) {
  Tensor w = leaf(90);
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor a = x * 2.f;
    Tensor h = w.slice(0, at, at + 3) * a;
    a.requires_grad();
    Tensor q = a.detach().clone().requires_grad_();
    h.select(0, 1).mul_(3.f);
    h.register_hook([](const Tensor& g) { return g * 2.f; });
    Tensor l = (h * q).sum();
    w.zero_grad();
    l.backward();
    const float v = q.grad().sum().item<float>();
    return std::pair(l * v, h);
  });
  td::core::set_log("off");
  for (at = 0; at < 80; ++at) {
    const auto [l, h] = f(range(3));
    if (at > 60) {
      run.see(l);
      run.see(h);
      run.see(w.grad());
      bool t = false;
      try {
        h.sum().backward();
      } catch (const td::Error&) {
        t = true;
      }
      run.see(t);
    }
  }
  td::core::set_log("warn");
  run.claim(f, [](const auto& r) { return r.eager_calls > 0; });
}

TRAP("views with histories kept from calls that throw", "tracers leak", abandon) {
  Tensor w = leaf(4);
  Tensor kept, base;
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    base = x * w;
    kept = base.slice(0, 1, 3);
    base.mul_(2.f);
    if (fail) throw std::runtime_error("k3");
    return kept.detach() + 0.f;
  });
  for (int i = 0; i < 9; ++i) {
    fail = i % 3 != 0;
    run.attempt([&] { run.see(f(range(4, float(i)))); });
    w.zero_grad();
    run.attempt([&] { (kept.sum() + base.square().sum()).backward(); });
    run.see(kept);
    run.see(w.grad());
  }
}

TRAP("a differentiable gradient kept from a call that throws", "tracers leak", abandon) {
  Tensor w = leaf(3), g;
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = td::exp(x * w * 0.1f).sum();
    g = td::autograd::grad({{y}}, {{w}}, {}, true, true)[0];
    if (fail) throw std::runtime_error("k4");
    return y.detach();
  });
  for (int i = 0; i < 9; ++i) {
    fail = i % 3 != 0;
    run.attempt([&] { run.see(f(range(3, float(i)))); });
    w.zero_grad();
    g.square().sum().backward();
    run.see(w.grad());
  }
  g = Tensor();
}

TRAP("exceptions around reads, with results and state of both sides", "state half updated", abandon) {
  Tensor a, b, s = td::zeros({2});
  int fail = 0;
  auto f = run.wrap([&](Tensor x) {
    a = x * 2.f;
    x.add_(1.f);
    s.add_(x);
    const float v = a.sum().item<float>();
    b = a * v;
    x.mul_(0.5f);
    if (fail == 1) throw std::runtime_error("k5");
    const float q = b.sum().item<float>();
    if (fail == 2) throw std::runtime_error("k5b");
    s.mul_(q > 10 ? 0.1f : 2.f);
    return b;
  });
  for (int i = 0; i < 12; ++i) {
    fail = (i * 2) % 3;
    const Tensor x = range(2, float(i));
    run.attempt([&] { run.see(f(x)); });
    run.see(a);
    run.see(b);
    run.see(x);
    run.see(s);
  }
}

TRAP("a loss is differentiated by the next call", "delayed backward", fresh_handles) {
  Tensor w = leaf(3), pending_loss;
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    if (pending_loss.defined()) {
      w.zero_grad();
      pending_loss.backward();
      pending_loss = Tensor();
      td::NoGrad n;
      w.sub_(w.grad() * 0.01f);
    }
    Tensor l = i % 2 ? td::tanh(x * w).sum() : (x * w).square().sum();
    if (i % 3 != 2) pending_loss = l;
    return l.detach();
  });
  for (i = 0; i < 12; ++i) {
    run.attempt([&] { run.see(f(range(3, float(i)) * 0.1f)); });
    run.see(w);
    run.see(w.grad());
  }
}

TRAP("arguments and captured tensors are one memory in every combination", "tinygrad: duplicate inputs",
     argument_aliasing) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor a, Tensor b) {
    td::NoGrad n;
    const Tensor c = w * 1.f;
    b.add_(1.f);
    return a + w * 10.f + c * 100.f;
  });
  for (int i = 0; i < 8; ++i) {
    const Tensor other = range(4, 7);
    run.see(i % 4 == 0   ? f(other, other)
            : i % 4 == 1 ? f(w, other)
            : i % 4 == 2 ? f(other, w.detach())
                         : f(w, w.detach()));
    run.see(w);
  }
}

TRAP("promotion by numbers and scalar tensors", "types of host numbers", differences) {
  Tensor s = td::scalar_tensor<int64_t>(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) { return (x * s + (i % 2 ? 1.5 : 2.5)) / (i % 3 == 2 ? s : s + 1); });
  for (i = 0; i < 9; ++i) {
    if (i == 5) s = td::scalar_tensor(2.5f);
    run.see(f(td::tensor<int64_t>({1, 2, 3})));
  }
}

TRAP("the gradient of a leaf is also a captured tensor", ".grad aliased by state", leaf_gradients) {
  Tensor w = leaf(3);
  Tensor acc = td::zeros({3});
  w.set_grad(acc);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    acc.mul_(0.5f);
    Tensor l = (x * w).sum();
    l.backward();
    if (i % 4 == 3) {
      w.set_grad(Tensor());
    }
    if (i % 4 == 1) {
      w.set_grad(acc);
    }
    return l.detach() + acc;
  });
  for (i = 0; i < 12; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    run.see(acc);
  }
}

TRAP("windows that move are kept and differentiated through", "tinygrad: an integer index is a constant",
     moving_slices) {
  const Tensor data = range(40);
  Tensor w = leaf(4);
  int64_t at = 0;
  std::vector<Tensor> kept;
  auto f = run.wrap([&](Tensor x) {
    const Tensor win = data.slice(0, at, at + 4);
    Tensor l = (win * w * x).square().sum();
    w.zero_grad();
    l.backward();
    kept.push_back(win * 2.f);
    kept.push_back(win);
    return l.detach();
  });
  for (int i = 0; i < 9; ++i) {
    at = (i * 7) % 30;
    run.see(f(range(4)));
    run.see(w.grad());
  }
  for (const Tensor& t : kept) run.see(t);
  run.claim(f, [](const auto& r) { return r.recorded <= 2; });
}

TRAP("the data under a moving window is replaced and written", "a position and a tensor that both change",
     differences) {
  Tensor data = range(40);
  int64_t at = 0;
  bool write = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor win = data.slice(0, at, at + 4), one = data.select(0, at);
    const Tensor y = win * x + one;
    if (write) {
      data.add_(1.f);
      return y + win;
    }
    return y;
  });
  for (int i = 0; i < 16; ++i) {
    at = (i * 7) % 20;
    write = i % 5 == 4;
    if (i == 7) data = range(50, 3);
    if (i == 10) data = range(80).view({40, 2}).select(1, 1);
    run.see(f(range(4)));
  }
  run.see(data);
}

TRAP("the last result is written through its address in the next call", "pointers across calls", reads_run) {
  Tensor last;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * 2.f;
    if (last.defined()) last.data<float>()[0] = y.sum().item<float>();
    last = y;
    return y + 1.f;
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor k = last;
    run.see(f(range(3, float(i))));
    run.see(last);
    if (k.defined()) run.see(k);
  }
}

TRAP("leaves with one gradient, which part", "aliased .grad", leaf_gradients) {
  Tensor a = leaf(3), b = leaf(3, 7);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * a).sum() + (x * b).square().sum();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    a.set_grad(range(3, 100));
    b.set_grad(i % 4 < 2 ? a.grad() : range(3, 200));
    run.see(f(range(3)));
    run.see(a.grad());
    run.see(b.grad());
  }
}

TRAP("the gradient of a leaf is a captured tensor that was used before, by turns", ".grad aliased by state",
     leaf_gradients) {
  Tensor w = leaf(3), acc = range(3), other = range(3, 50);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor before = acc * 2.f;
    (x * w).sum().backward();
    return before + acc + other;
  });
  for (i = 0; i < 10; ++i) {
    w.set_grad(i % 3 == 0 ? acc : i % 3 == 1 ? other : Tensor());
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(acc);
    run.see(other);
  }
}

TRAP("a gradient is a part of captured memory", "CUDA graphs: flat gradient buffers", leaf_gradients) {
  Tensor w = leaf(3), pool = range(9);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor l = (x * w).square().sum();
    l.backward();
    return l.detach() + pool.sum();
  });
  for (i = 0; i < 9; ++i) {
    w.set_grad(pool.slice(0, i % 4, i % 4 + 3));
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(pool);
  }
}

TRAP("an argument is the gradient of a captured leaf", ".grad as an input", leaf_gradients) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor g) {
    Tensor l = (w * 2.f).sum();
    l.backward();
    return g + l.detach();
  });
  for (int i = 0; i < 9; ++i) {
    const Tensor other = range(3, float(i));
    if (i == 5) w.zero_grad();
    run.see(f(i % 3 == 0 || !w.grad().defined() ? other : w.grad()));
    run.see(w.grad());
  }
}

TRAP("the gradient given to backward is the .grad that it changes", "aliased cotangents", slot_writes) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    y.backward(w.grad().defined() ? w.grad() : x, true);
    y.backward(w.grad());
    return y.detach();
  });
  for (int i = 0; i < 7; ++i) {
    if (i % 3 == 0) w.zero_grad();
    run.see(f(range(3) * 0.5f));
    run.see(w.grad());
  }
}
