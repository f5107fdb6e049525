// Traps of control flow: branches on values and on host state, loops, recursion, early returns, exceptions as
// control flow.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a branch on the loss", "torch.jit.trace and tinygrad PR #13701: branches are frozen, silently",
     differences) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).mean();
    if (loss.item<float>() > 10.f) return td::log(loss);
    return td::square(loss) - 1.f;
  });
  for (int i = 0; i < 10; ++i) run.see(f(range(3, float((i * 7) % 10) - 2)));
}

TRAP("a branch on a host flag", "tinygrad PR #13701, torch.jit.trace: frozen branches", differences,
     HostState{"a branch on a counter"}) {
  Tensor w = range(3);
  int step = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * w;
    if (step % 3 == 2) h = td::relu(h - 5.f);
    return h + 1.f;
  });
  for (step = 0; step < 9; ++step) run.see(f(range(3, float(step))));
  run.claim(f, [](const auto& r) { return r.branches == 2; });
}

TRAP("a branch that changes the state only on some calls", "pytorch #140539: state updates dropped",
     end_event) {
  Tensor ema = range(3);
  int step = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor y = x * ema;
    if (step % 4 == 0) ema.mul_(0.5f).add_(x);
    return y;
  });
  for (step = 0; step < 12; ++step) {
    run.see(f(range(3, float(step))));
    run.see(ema);
  }
}

TRAP("a loop whose trip count changes", "tf.function, torch.jit.trace: loops are unrolled once",
     differences) {
  int trips = 1;
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    for (int i = 0; i < trips; ++i) x = td::tanh(x * w) + float(i);
    return x * 3.f;
  });
  for (const int n : {1, 3, 3, 0, 2, 5, 1, 3, 0}) {
    trips = n;
    run.see(f((range(3) * 0.1f)));
  }
}

TRAP("a loop that ends when a tensor says so",
     "JAX: a tracer has no truth value; torch.jit.trace: frozen count", reads_run) {
  // Newton's square root, until it does not change any more.
  auto f = run.wrap([&](Tensor x) {
    Tensor root = x;
    int steps = 0;
    while ((root * root - x).abs().amax().item<float>() > 1e-3f && ++steps < 50)
      root = (root + x / root) * 0.5f;
    return root + float(steps);
  });
  for (const float first : {1.f, 4.f, 100.f, 2.f, 1e4f, 4.f, 1.f}) run.see(f(range(3, first)));
}

TRAP("a condition of several tensors that is cut short", "JAX, tf.function: boolean operators on tensors",
     reads_run) {
  Tensor limit = td::scalar_tensor(6.f);
  auto f = run.wrap([&](Tensor x) {
    const Tensor s = x.sum(), m = x.amax();
    if (static_cast<bool>(s > limit) && static_cast<bool>(m < 8.f)) return x * 2.f;
    if (!(s > 0.f) || static_cast<bool>(m == 3.f)) return x - 100.f;
    return x;
  });
  for (int i = 0; i < 12; ++i) run.see(f(range(3, float((i * 5) % 12) - 3)));
}

TRAP("recursion over a tree of the host",
     "tf.function: recursion is not supported; TinyJit fails when nested", differences) {
  struct Tree {
    std::vector<Tree> children;
  };
  Tensor w = leaf(3);
  std::function<Tensor(const Tree&, const Tensor&)> walk = [&](const Tree& t, const Tensor& x) {
    Tensor h = td::tanh(x * w);
    for (const Tree& c : t.children) h = h + walk(c, h) * 0.5f;
    return h;
  };
  auto f = run.wrap([&](Tensor x, const Tree& t) {
    Tensor loss = walk(t, x).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  const Tree leaf_tree{}, pair{{leaf_tree, leaf_tree}}, deep{{pair, leaf_tree, {{pair}}}};
  for (const Tree* t : {&leaf_tree, &pair, &pair, &deep, &leaf_tree, &deep, &pair}) {
    run.see(f((range(3) * 0.2f), *t));
    run.see(w.grad());
  }
}

TRAP("a guard at the head that returns at once", "torch.jit.trace: the long way is frozen", end_event) {
  bool enabled = true;
  Tensor count = td::zeros({1});
  auto f = run.wrap([&](Tensor x) -> Tensor {
    if (!enabled) return x;
    count.add_(1.f);
    return x * 2.f;
  });
  for (int i = 0; i < 8; ++i) {
    enabled = i % 3 != 1;
    run.see(f(range(3, float(i))));
    run.see(count);
  }
}

TRAP("an exception of an op that is caught, with another way to go on",
     "torch.compile: a graph break; tf.function: frozen", slot_types) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    try {
      return (x * 2.f * w).sum() + 1.f;
    } catch (const td::Error& e) {
      run.see(e.what());
      return x.sum() - 1.f;
    }
  });
  for (int i = 0; i < 8; ++i) {
    if (i == 3 || i == 6) w = range(4);
    if (i == 4) w = range(3, 7);
    run.see(f(range(3, float(i))));
  }
}

TRAP("a check of values that throws", "torch.jit.trace: asserts vanish", reads_run) {
  Tensor total = td::zeros({3});
  auto f = run.wrap([&](Tensor x) {
    total.add_(x);
    const Tensor y = td::log(x);
    if (static_cast<bool>(td::isnan(y).any())) throw std::domain_error("not a number");
    return y + total;
  });
  for (int i = 0; i < 10; ++i) {
    run.attempt([&] { run.see(f(range(3, i % 3 == 1 ? -1.f : float(i + 1)))); });
    run.see(total);
  }
}

TRAP("five ways, each taken again later", "MLX: a trace a variant; tf.function: retracing storms",
     differences) {
  int way = 0;
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * w;
    switch (way) {
      case 0:
        h = td::tanh(h);
        break;
      case 1:
        h = td::sigmoid(h);
        break;
      case 2:
        h = td::exp(h * 0.1f);
        break;
      case 3:
        h = h.square();
    }
    w.zero_grad();
    h.sum().backward();
    return h.detach();
  });
  for (int i = 0; i < 25; ++i) {
    way = (i * 3) % 5;
    run.see(f((range(3) * 0.3f)));
    run.see(w.grad());
  }
  run.claim(f, [](const auto& r) { return r.branches == 5 && r.recorded == 5; });
}

TRAP("the host picks an expert by value", "torch.jit.trace: routing is frozen", compare_operands) {
  std::vector<Tensor> experts{leaf(3), leaf(3, 4), leaf(3, 9)};
  auto f = run.wrap([&](Tensor x) {
    const int64_t best = x.argmax().item<int64_t>();
    Tensor loss = (x * experts[size_t(best)]).sum();
    for (const Tensor& e : experts) e.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 9; ++i) {
    std::vector<float> v{1, 2, 3};
    std::swap(v[size_t(i * 2 % 3)], v[2]);
    run.see(f(td::tensor(v)));
    for (const Tensor& e : experts) run.see(e.grad());
  }
}

TRAP("a value read is an index of the next op", "JAX: an index must be static; torch.jit.trace: frozen",
     compare_attributes) {
  auto f = run.wrap([](Tensor x) {
    const Tensor y = x * 2.f;
    return y.select(0, y.argmin().item<int64_t>()) + 1.f;
  });
  for (int i = 0; i < 9; ++i) {
    std::vector<float> v{4, 5, 6, 7};
    std::swap(v[0], v[size_t(i % 4)]);
    run.see(f(td::tensor(v)));
  }
}

TRAP("a value read is a number of the next op", "torch.compile: a graph break; torch.jit.trace: frozen",
     store_scalars) {
  auto f = run.wrap([](Tensor x) {
    const float norm = x.square().sum().item<float>();
    return x * (1.f / norm) + norm;
  });
  for (int i = 0; i < 6; ++i) run.see(f(range(3, float(i))));
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("sampling until a token ends the sequence", "JAX: dynamic length; CUDA graphs: fixed length",
     reads_run) {
  Tensor table = range(16).view({4, 4});
  auto f = run.wrap([&](Tensor start) {
    Tensor state = start;
    std::vector<Tensor> seen{state};
    for (int i = 0; i < 6; ++i) {
      state = td::softmax(state + table.select(0, i % 4) * td::rand({4}), 0);
      seen.push_back(state);
      if (state.argmax().item<int64_t>() == 3 && state.amax().item<float>() > 0.9f) break;
    }
    return td::stack(std::span<const Tensor>(seen));
  });
  for (int i = 0; i < 8; ++i) run.see(f(range(4, float(i % 3))));
}
