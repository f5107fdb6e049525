// Traps of what is kept while a history, a view or a gradient hangs on it, and of calls with many operands.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a loss is kept that shares its memory with what is read", "saved values that no plan gives",
     held_history) {
  Tensor w = leaf(3), kept;
  bool keep = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor d;
    {
      const Tensor loss = td::tanh(td::exp(x * w * 0.1f)).square().sum();
      d = loss.detach();
      if (keep) kept = loss;
    }
    const float v = d.item<float>();
    w.zero_grad();
    if (keep) kept.backward();
    return d * v;
  });
  for (int i = 0; i < 9; ++i) {
    keep = i > 2 && i % 2;
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("a loss that shares its memory with what is read leaves the call", "saved values that no plan gives",
     held_history) {
  Tensor w = leaf(3), kept;
  bool keep = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor d;
    {
      const Tensor loss = td::tanh(td::exp(x * w * 0.1f)).square().sum();
      d = loss.detach();
      if (keep) kept = loss;
    }
    const float v = d.item<float>();
    return d * v;
  });
  for (int i = 0; i < 9; ++i) {
    keep = i > 2 && i % 2;
    run.see(f(range(3, float(i)) * 0.1f));
    w.zero_grad();
    if (keep) kept.backward();
    run.see(w.grad());
  }
}

TRAP("one of 80 operands is replaced by a tensor of its own", "arity limits of tracers", differences) {
  std::vector<Tensor> list;
  for (int i = 0; i < 80; ++i) list.push_back(range(2, float(i)));
  Tensor a = list[70];
  const Tensor b = range(2, 1000);
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = a * x;
    return td::cat(std::span<const Tensor>(list)).sum() + y;
  });
  for (int i = 0; i < 9; ++i) {
    list[70] = i % 3 == 2 ? b : a;
    list[75] = range(2, float(i));
    list[3] = range(2, float(i));
    run.see(f(range(2)));
  }
  run.claim(f, [](const auto& r) { return r.recorded <= 3; });
}

TRAP("300 operands", "ArrayFire #1646: too many inputs", compare_operands) {
  std::vector<Tensor> list;
  for (int i = 0; i < 300; ++i) list.push_back(range(2, float(i)));
  auto f = run.wrap([&](Tensor x) { return td::cat(std::span<const Tensor>(list)) * x; });
  for (int i = 0; i < 4; ++i) {
    list[size_t(290 + i)] = range(2, -5);
    run.see(f(range(1)).sum());
  }
}

TRAP("arguments that have a gradient already", "CUDA graphs: .grad of the first argument", leaf_gradients) {
  auto f = run.wrap([&](Tensor x) {
    Tensor l = (x * x).sum();
    l.backward();
    return l.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 9; ++i) {
    const Tensor x = leaf(3, float(i));
    if (i % 3) x.set_grad(range(3, float(10 * i)));
    const Tensor g = x.grad();
    run.see(f(x));
    run.see(x.grad());
    run.see(g);
    run.see(g.defined() && g.impl() == x.grad().impl());
    kept.push_back(x);
  }
  for (const Tensor& t : kept) run.see(t.grad());
}

TRAP("a loss differentiated inside and again outside", "retained tapes that leave a call", leaving_history) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor l = td::tanh(x * w).square().sum();
    w.zero_grad();
    l.backward({}, true);
    return l;
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor l = f(range(3, float(i)) * 0.1f);
    l.backward();
    run.see(w.grad());
    run.attempt([&] { l.backward(); });
  }
}

TRAP("a hook that goes three ways", "torch.compile: a hook breaks the graph", tape_on_demand) {
  Tensor w = leaf(3), side = td::zeros({1});
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    h.register_hook([&](const Tensor& g) {
      const float s = g.sum().item<float>();
      if (s > 40.f) {
        side.add_(1.f);
        return td::tanh(g);
      }
      if (s < 0.f) return Tensor();
      return g * 0.5f;
    });
    w.zero_grad();
    h.square().sum().backward();
    if (side.item<float>() > 2.f) side.zero_();
    return h.detach();
  });
  for (int i = 0; i < 12; ++i) {
    run.see(f(range(3, float((i * 5) % 7) - 3)));
    run.see(w.grad());
    run.see(side);
  }
}

TRAP("exceptions between two backwards and two updates", "state half updated", abandon) {
  Tensor a = leaf(3), b = leaf(3, 2);
  int fail = 0;
  auto f = run.wrap([&](Tensor x) {
    a.zero_grad();
    b.zero_grad();
    Tensor l1 = (x * a).square().sum();
    l1.backward();
    if (fail == 1) throw std::runtime_error("1");
    const float v = a.grad().sum().item<float>();
    Tensor l2 = (b * v).square().sum() + l1.detach();
    l2.backward();
    if (fail == 2) throw std::runtime_error("2");
    td::NoGrad g;
    a.sub_(a.grad() * 0.01f);
    if (fail == 3) throw std::runtime_error("3");
    b.sub_(b.grad() * 0.001f);
    return l2.detach();
  });
  for (int i = 0; i < 16; ++i) {
    fail = (i * 5 + i / 4) % 4;
    run.attempt([&] { run.see(f(range(3) * 0.1f)); });
    for (const Tensor& t : {a, b}) run.see(t), run.see(t.grad());
  }
}

TRAP("what of a moved argument may be let go at a read", "JAX: donation", given_up_arguments) {
  const td::OnDevice host(td::cpu);
  Tensor w = leaf(3);
  int freed = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor y = (x * w).sum();
    x = Tensor();
    const float s = y.item<float>();
    run.see(freed);
    w.zero_grad();
    (y * s).backward();
    return y.detach();
  });
  auto g = run.wrap([&](Tensor x) {
    const Tensor v = x.select(0, 1);
    x = Tensor();
    const float s = (v * 2.f).item<float>();
    run.see(freed);
    return v * s;
  });
  auto k = run.wrap([&](Tensor x) {
    const float s = (x * 2.f).sum().item<float>();
    x = Tensor();
    const float q = (td::ones({2}) * s).sum().item<float>();
    run.see(freed);
    return td::ones({2}) * q;
  });
  for (int i = 0; i < 4; ++i) {
    static float memory[3] = {1, 2, 3};
    const auto make = [&] {
      freed = 0;
      return td::from_blob(
          memory, {3}, td::float32, [](void* p) { ++*static_cast<int*>(p); }, &freed);
    };
    run.see(f(make()));
    run.see(w.grad());
    run.see(g(make()));
    run.see(k(make()));
  }
}

TRAP("several losses add to one gradient, in loops of changing length",
     "gradient accumulation inside a trace", differences) {
  Tensor w = leaf(3);
  int n = 2;
  auto f = run.wrap([&](Tensor x) {
    if (w.grad().defined()) w.grad().zero_();
    float total = 0;
    for (int k = 0; k < n; ++k) {
      Tensor l = td::tanh(x * w * float(k + 1)).sum();
      l.backward();
      if (k % 2) total += w.grad().sum().item<float>();
    }
    return w.grad() * total;
  });
  for (const int m : {2, 2, 3, 1, 4, 4, 3, 1}) {
    n = m;
    run.see(f(range(3) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("views of views of an argument are written and differentiated", "torch.compile: aliased mutation",
     slot_writes) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor x) {
    const Tensor a = x.view({2, 4}), b = a.select(0, 1), c = a.t().select(0, 0);
    b.mul_(2.f);
    c.add_(1.f);
    Tensor l = (b * w).sum() + c.sum();
    w.zero_grad();
    l.backward();
    b.add_(100.f);
    return l.detach() + c.sum();
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor x = range(8, float(i));
    run.attempt([&] { run.see(f(x)); });
    run.see(x);
    run.see(w.grad());
  }
}

TRAP("counters and maxima as integer and scalar state", "pytorch #140539: num_batches_tracked", slot_writes) {
  Tensor count = td::zeros({3}, {.dtype = td::int64}), best = td::full({}, -1e9);
  auto f = run.wrap([&](Tensor x) {
    count.add_(td::ones({3}, {.dtype = td::int64}) * 2);
    const Tensor m = x.amax();
    best.copy_(td::where(m > best, m, best));
    return count.to(td::float32) + best + x.argmax();
  });
  for (int i = 0; i < 7; ++i) run.see(f(td::sin(range(3, float(i)))));
  run.see(count);
  run.see(best);
}

TRAP("a scalar tensor is state, number and operand", "a temperature", slot_writes) {
  Tensor temperature = td::scalar_tensor(1.f);
  auto f = run.wrap([&](Tensor x) {
    const float t = temperature.item<float>();
    const Tensor y = td::softmax(x / temperature, 0) * t;
    temperature.mul_(0.9f);
    const float u = temperature.item<float>();
    temperature.add_(u * 0.01f);
    return y;
  });
  for (int i = 0; i < 6; ++i) run.see(f(range(3)));
  run.see(temperature);
}

TRAP("a differentiable gradient of the last call", "graphs across calls", tape_on_demand) {
  Tensor w = leaf(3), last;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = td::exp(x * w * 0.1f).sum();
    const Tensor g = td::autograd::grad({{y}}, {{w}}, {}, true, true)[0];
    Tensor l = g.square().sum();
    if (last.defined()) l = l + (last * g).sum();
    last = g;
    w.zero_grad();
    l.backward({}, true);
    return l.detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    run.see(last.detach());
    if (i == 3) last = last.detach();
  }
  last = Tensor();
}

TRAP("a view of a captured result is changed in the next call", "views across calls", compare_operands) {
  Tensor h = td::zeros({4}), part;
  auto f = run.wrap([&](Tensor x) {
    if (part.defined()) part.mul_(2.f);
    const Tensor y = h + x;
    h = td::tanh(y * 0.1f);
    part = h.slice(0, 1, 3);
    return y;
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(range(4, float(i))));
    run.see(h);
    run.see(part);
    if (i % 3 == 2) part.add_(1.f);
  }
}

TRAP("gradients of two traced functions on one leaf, kept", "pytorch #148439", fresh_handles) {
  Tensor w = leaf(3);
  std::vector<Tensor> grads;
  auto f = run.wrap([&](Tensor x) {
    w.zero_grad();
    (x * w).sum().backward();
    grads.push_back(w.grad());
  });
  auto g = run.wrap([&](Tensor x) {
    w.zero_grad();
    (x * w).square().sum().backward();
    grads.push_back(w.grad());
  });
  for (int i = 0; i < 5; ++i) {
    f(range(3, float(i)));
    g(range(3, float(i)));
    f(range(3, float(2 * i)));
  }
  for (const Tensor& t : grads) run.see(t);
}
