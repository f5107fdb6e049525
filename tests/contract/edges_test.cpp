// Traps at the edges of several rules: views with histories, custom functions that throw, leaves made and
// replaced in the body.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a custom function whose backward throws", "torch.compile: host code in backward", tape_on_demand) {
  Tensor w = leaf(3);
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    const td::TensorList y = td::autograd::apply(
        [&](td::autograd::Context&, const td::TensorList& in) { return td::TensorList{in[0] * 2.f}; },
        [&](const td::autograd::Context&, const td::TensorList& g) -> td::TensorList {
          if (fail) throw std::runtime_error("custom");
          return {g[0] * 2.f};
        },
        {h});
    w.zero_grad();
    const Tensor z = y[0] + h;
    z.sum().backward();
    return z.detach();
  });
  for (int i = 0; i < 9; ++i) {
    fail = i % 3 == 2;
    run.attempt([&] { run.see(f(range(3, float(i)))); });
    run.see(w.grad());
  }
}

TRAP("a hook that the body adds and removes, and a gradient that it sets",
     "torch.compile: hooks and .grad are frozen", tape_on_demand) {
  Tensor w = leaf(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    int n = -1;
    if (i % 2) n = w.register_hook([&](const Tensor& g) { return g + float(i); });
    Tensor loss = (x * w).square().sum();
    w.set_grad(x * 0.5f);
    loss.backward();
    if (i % 2) w.remove_hook(n);
    return loss.detach();
  });
  for (i = 0; i < 9; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
  }
}

TRAP("a leaf is changed through detach() between two uses", "detach() shares memory and versions",
     slot_writes) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor d = w.detach();
    const Tensor before = x * w;
    d.add_(x);
    const Tensor after = x * w;
    w.zero_grad();
    run.attempt([&] { (before + after).sum().backward(); });
    return (before - after).detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.attempt([&] { run.see(f(range(3, float(i)))); });
    run.see(w);
    run.see(w.grad());
  }
}

TRAP("views of a result are changed and differentiated, and leave the call", "views with histories",
     leaving_views) {
  Tensor w = leaf(4);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * w;
    Tensor v = h.slice(0, 1, 3);
    v.mul_(2.f);
    if (i % 3 == 1) h.register_hook([&](const Tensor& g) { return g * float(i); });
    h.select(0, 0).add_(w.select(0, 3));
    const Tensor loss = (h * v.sum()).sum();
    w.zero_grad();
    loss.backward();
    return std::pair(h, v);
  });
  for (i = 0; i < 8; ++i) {
    const auto [h, v] = f(range(4, float(i)));
    run.see(h);
    run.see(v);
    run.see(w.grad());
    bool threw = false;
    try {
      v.sum().backward();
    } catch (const td::Error&) {
      threw = true;  // which op is named depends on when the view was used last
    }
    run.see(threw);
    run.see(w.grad());
    run.see(h.grad());
  }
}

TRAP("an argument with history is changed in place", "torch.compile: mutated inputs that require grad",
     slot_writes) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    x.mul_(2.f);
    return x.sum();
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor h = w * float(i + 1);
    const Tensor loss = f(h);
    w.zero_grad();
    (loss + h.square().sum()).backward();
    run.see(w.grad());
    run.see(h);
  }
}

TRAP("an argument that is a view of a tensor with history is changed in place",
     "torch.compile: mutated aliases", slot_writes) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor x) {
    x.mul_(2.f);
    return x.square().sum();
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor h = w * float(i + 1);
    const Tensor v = h.slice(0, 1, 3);
    const Tensor loss = f(v);
    w.zero_grad();
    (loss + h.sum()).backward();
    run.see(w.grad());
    run.see(h);
    run.see(v);
  }
}

TRAP("a captured tensor with history is changed through a view and differentiated", "histories through views",
     slot_writes) {
  Tensor w = leaf(4), base;
  auto f = run.wrap([&](Tensor x) {
    base.slice(0, 0, 2).mul_(x);
    Tensor loss = (base * x.sum()).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    base = w * float(i + 1);
    run.see(f(range(2, float(i))));
    run.see(w.grad());
    run.see(base);
  }
}

TRAP("one tensor, twice, or as itself and a view", "tinygrad: duplicate inputs raise", argument_aliasing) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor a, Tensor b) {
    a.add_(b);
    Tensor y = (a * w).sum() + b.sum();
    w.zero_grad();
    y.backward();
    return y.detach();
  });
  for (int i = 0; i < 9; ++i) {
    const Tensor a = range(3), b = range(3, 5);
    run.see(i % 3 == 1 ? f(a, a) : i % 3 == 2 ? f(a, a.view({3})) : f(a, b));
    run.see(a);
    run.see(w.grad());
  }
}

TRAP("ties are counted in bfloat16 and divided by",
     "pytorch #195214: fusion dropped a rounding before an equality", slot_writes) {
  td::nn::Linear layer(4, 4);
  layer.to(td::bfloat16);
  td::optim::SGD opt(layer.parameters(), {.lr = 0.1});
  auto f = run.wrap([&](Tensor x) {
    Tensor y = layer(x.to(td::bfloat16));
    const Tensor m = y.amax({1}, true);
    const Tensor ties = (y == m).to(td::float32).sum({1}, true);
    Tensor loss = (y.to(td::float32) / ties).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f(td::sin(range(8, float(i)).view({2, 4}))));
    run.see(layer.weight);
  }
}

TRAP("three captured tensors change their values in a ring", "assignments that read each other",
     slot_writes) {
  Tensor a = range(3), b = range(3, 10), c = range(3, 20);
  auto f = run.wrap([&](Tensor x) {
    const Tensor t = a.clone();
    a.copy_(b);
    b.copy_(c);
    const float s = a.sum().item<float>();
    c.copy_(t * (s > 40 ? 0.5f : 1.f));
    a.add_(x);
    return a + b * c;
  });
  for (int i = 0; i < 9; ++i) run.see(f(range(3)));
  run.see(a);
  run.see(b);
  run.see(c);
}

TRAP("a leaf made in the body lives on in a captured variable", "leaves made in a trace", differences) {
  Tensor extra;
  Tensor w = leaf(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    if (!extra.defined() || i % 4 == 3) extra = (x * 0.1f).detach().clone().requires_grad_();
    Tensor loss = (x * w * extra).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (i = 0; i < 10; ++i) {
    run.see(f(range(3, float(i))));
    run.see(extra.grad());
    run.see(w.grad());
  }
}

TRAP("a parameter is replaced by the body when the loss is large", "tf.function: assignments to Python names",
     differences) {
  Tensor p = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * p).square().sum();
    loss.backward();
    if (loss.item<float>() > 30.f) {
      const Tensor fresh = (p.detach() * 0.5f);
      p = fresh.requires_grad_();
    }
    return loss.detach();
  });
  for (int i = 0; i < 9; ++i) {
    run.see(f(range(3, float(i % 3))));
    run.see(p);
    run.see(p.grad());
  }
}

TRAP("indices that are arguments", "JAX, tinygrad: gathers with frozen indices", fresh_handles) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor x, Tensor idx) {
    const Tensor g = w.gather(0, idx) * x;
    const Tensor s = td::zeros({4}).scatter_add(0, idx, g).cumsum(0);
    Tensor loss = td::where(s > 3.f, s, s * 0.1f).sum();
    w.zero_grad();
    loss.backward();
    return s.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    run.see(f(range(3, float(i)), td::tensor<int64_t>({i % 4, (i * 3) % 4, 1})));
    kept.push_back(w.grad());
  }
  for (const Tensor& t : kept) run.see(t);
}

TRAP("gradients are read, changed and added to in one body", ".grad between two backwards", reads_run) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    w.zero_grad();
    Tensor l1 = (x * w).sum();
    l1.backward();
    const std::vector<float> g = w.grad().to_vector<float>();
    Tensor l2 = (w.square() * g[0]).sum();
    l2.backward();
    w.grad().mul_(g[1] > 3.f ? 2.f : 0.5f);
    Tensor l3 = (w * 1.f).sum();
    l3.backward();
    return l1.detach() + l2.detach();
  });
  for (int i = 0; i < 7; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
  }
}

TRAP("a leaf is updated between two backwards", "a step within a step", leaf_gradients) {
  Tensor w = leaf(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor a = (x * w).sum();
    w.zero_grad();
    a.backward();
    {
      td::NoGrad g;
      w.sub_(w.grad() * 0.1f);
    }
    Tensor b = (x * w).square().sum();
    if (i % 2) w.zero_grad();
    b.backward();
    return (a + b).detach();
  });
  for (i = 0; i < 8; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    run.see(w);
  }
}

TRAP("a view made under NoGrad of a leaf is changed", "views without history", slot_writes) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor x) {
    Tensor v;
    {
      td::NoGrad g;
      v = w.slice(0, 1, 3);
      v.add_(x);
    }
    Tensor loss = (w * v.sum()).sum();
    w.zero_grad();
    loss.backward();
    return v + 0.f;
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f(range(2, float(i))));
    run.see(w);
    run.see(w.grad());
  }
}

TRAP("traced functions that share parts of one memory, alone and inside each other",
     "functional tracers: aliased state", slot_writes) {
  Tensor s = range(6);
  auto f = run.wrap([&](Tensor x) {
    s.slice(0, 0, 3).add_(x);
    return s.sum();
  });
  auto g = run.wrap([&](Tensor x) {
    s.slice(0, 2, 5).mul_(x);
    return s * 1.f;
  });
  auto h = run.wrap([&](Tensor x) {
    const Tensor a = f(x), b = g(x * 0.5f);
    return a + b;
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(range(3)));
    run.see(g(range(3)));
    if (i % 2) run.see(h(range(3)));
  }
  run.see(s);
}

TRAP("captured views of one memory, changed by turns", "same storage through several tensors", differences) {
  Tensor data = range(6);
  std::vector<Tensor> views{data.slice(0, 0, 3), data.slice(0, 3, 6), data.view({2, 3}).select(1, 1)};
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    views[size_t(i % 3)].mul_(2.f);
    return views[0].sum() + views[2].sum() * 100.f + x;
  });
  for (i = 0; i < 9; ++i) run.see(f(range(1)));
  run.see(data);
}

TRAP("an op fails half-way on some calls", "torch.compile: state half updated", abandon) {
  Tensor w = leaf(3), bad = range(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor h = td::tanh(x * w);
    x.add_(1.f);
    Tensor l = (h * bad).sum();
    w.zero_grad();
    l.backward();
    return l;
  });
  for (int i = 0; i < 9; ++i) {
    bad = range(i % 3 == 2 ? 5 : 3);
    const Tensor x = range(3, float(i)) * 0.1f;
    run.attempt([&] { run.see(f(x)); });
    run.see(x);
    run.see(w.grad());
  }
}

TRAP("gradients and losses kept from calls that threw", "tracers leak", abandon) {
  Tensor w = leaf(3);
  std::vector<Tensor> kept;
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor l = (x * w).square().sum();
    w.zero_grad();
    l.backward();
    kept.push_back(w.grad());
    kept.push_back(l);
    kept.push_back((l * 2.f + w.grad().sum()));
    if (fail) throw std::runtime_error("x");
    return l.detach();
  });
  for (int i = 0; i < 8; ++i) {
    fail = i % 3 == 1;
    run.attempt([&] { run.see(f(range(3, float(i)))); });
  }
  for (const Tensor& t : kept) run.see(t);
  for (const Tensor& t : kept)
    run.attempt([&] {
      if (t.requires_grad()) t.sum().backward();
    });
  run.see(w.grad());
}

TRAP("the history of what is kept from a call that throws", "tracers leak", abandon) {
  Tensor w = leaf(3);
  std::vector<Tensor> kept;
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = td::tanh(x * w);
    kept.push_back(h.square().sum());
    kept.push_back(h);
    const float s = h.sum().item<float>();
    kept.push_back((h * s).sum());
    if (fail) throw std::runtime_error("stop");
    return h.detach();
  });
  for (int i = 0; i < 8; ++i) {
    fail = i % 3 != 0;
    kept.clear();
    run.attempt([&] { run.see(f(range(3, float(i)) * 0.1f)); });
    for (const Tensor& t : kept) {
      w.zero_grad();
      run.attempt([&] { t.sum().backward({}, true); });
      run.see(t);
      run.see(w.grad());
    }
  }
}

TRAP("requires_grad_ on and off, in branches", "requires_grad is frozen", differences) {
  Tensor w = range(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * 2.f;
    if (i % 2) w.requires_grad_(true);
    Tensor y = h * w;
    if (i % 4 == 3) {
      y = y + td::tanh(w);
    }
    if (y.requires_grad()) {
      w.zero_grad();
      y.sum().backward();
      w.requires_grad_(false);
    }
    return y.detach() + w;
  });
  for (i = 0; i < 14; ++i) {
    if (i == 9) w = range(3, 5);
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    run.see(w);
  }
}

TRAP("backwards of several roots, one of them differentiated before", "retained and freed tapes",
     backward_key) {
  Tensor a = leaf(3), b = leaf(3, 2);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor r1 = (x * a * b).sum(), r2 = (a.square() * x).sum();
    a.zero_grad();
    b.zero_grad();
    const Tensor roots[] = {r1, r2};
    if (i % 3 == 2) {
      const Tensor one[] = {r2};
      td::autograd::backward(one, {}, true);
    }
    td::autograd::backward(roots);
    return (r1 + r2).detach();
  });
  for (i = 0; i < 8; ++i) {
    run.see(f(range(3, float(i))));
    run.see(a.grad());
    run.see(b.grad());
  }
}
