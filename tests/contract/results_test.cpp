// Traps of results: kept, changed, shared, viewed, handed back; arguments and views changed in place.
#include <map>

#include "tests/contract/trap.h"

using namespace programs;

TRAP("outputs kept over 100 calls", "pytorch #148439, #144386: outputs of CUDA graphs are overwritten",
     fresh_handles) {
  auto f = run.wrap([](Tensor x) { return td::tanh(x * 0.01f); });
  std::vector<Tensor> kept;
  for (int i = 0; i < 100; ++i) kept.push_back(f(range(3, float(i))));
  for (const Tensor& t : kept) run.see(t);
  run.claim(f, [](const auto& r) { return r.recorded == 1 && r.plans == 1; });
}

TRAP("the caller changes a result and calls again", "tinygrad: output_buffer_reuse, silent", fresh_handles) {
  auto f = run.wrap([](Tensor x) { return x + 1.f; });
  Tensor last = range(3);
  for (int i = 0; i < 8; ++i) {
    const Tensor y = f(range(3, float(i)));
    run.see(last);
    last = y;
    y.mul_(10.f);
  }
  run.see(last);
}

TRAP("a result is handed back as the argument, 100 times", "CUDA graphs: input and output are one buffer",
     fresh_handles) {
  auto f = run.wrap([](Tensor x) { return x * 0.5f + td::sin(x); });
  Tensor x = range(4), first;
  for (int i = 0; i < 100; ++i) {
    x = f(x);
    if (i == 10) first = x;
  }
  run.see(x);
  run.see(first);
}

TRAP("the same tensor is returned twice", "tinygrad, MLX: duplicate outputs become two arrays",
     fresh_handles) {
  auto f = run.wrap([](Tensor x) {
    const Tensor y = x * 2.f;
    return std::pair(y, y);
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    const auto [a, b] = f(range(3, float(i)));
    a.add_(1.f);
    run.see(b);
    run.see(a.impl() == b.impl());
    kept.push_back(b);
  }
  for (const Tensor& t : kept) run.see(t);
}

TRAP("an argument is returned on some calls", "JAX: identity outputs are copies", end_event) {
  bool same = false;
  auto f = run.wrap([&](Tensor x) {
    x.add_(1.f);
    if (same) return x;
    x.mul_(2.f);
    return x.clone();
  });
  for (int i = 0; i < 8; ++i) {
    same = i % 3 == 1;
    const Tensor x = range(3, float(i)), y = f(x);
    run.see(y);
    run.see(y.impl() == x.impl());
    y.add_(100.f);
    run.see(x);
  }
}

TRAP("a result is a view of another result", "functional tracers return copies", result_aliasing) {
  auto f = run.wrap([](Tensor x) {
    const Tensor y = x * 2.f;
    return std::vector<Tensor>{y, y.view({3, 2}).t(), y.slice(0, 1, 4)};
  });
  for (int i = 0; i < 5; ++i) {
    const std::vector<Tensor> r = f(range(6, float(i)));
    r[1].select(0, 0).add_(100.f);
    r[2].mul_(-1.f);
    for (const Tensor& t : r) run.see(t);
  }
}

TRAP("a result is a view of an argument", "torch.compile: aliased outputs", result_aliasing) {
  std::vector<Tensor> kept;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x + 1.f;
    kept = {x.select(0, 1), y.slice(0, 0, 2)};
    return y;
  });
  for (int i = 0; i < 5; ++i) {
    const Tensor x = range(4, float(i)), y = f(x);
    kept[0].fill_(-7.f);
    y.zero_();
    run.see(x);
    run.see(kept[1]);
  }
}

TRAP("a view that left the call follows its base", "torch.jit.trace: views are cut from their base",
     leaving_views) {
  Tensor w = leaf(4);
  auto f = run.wrap([&](Tensor x) {
    const Tensor base = x * w;
    return std::pair(base, base.slice(0, 1, 3));
  });
  for (int i = 0; i < 5; ++i) {
    const std::pair<Tensor, Tensor> both = f(range(4, float(i)));
    const Tensor &base = both.first, &view = both.second;
    base.mul_(2.f);
    w.zero_grad();
    run.see(view.requires_grad());
    run.attempt([&] { view.sum().backward(); });
    run.see(w.grad());
  }
}

TRAP("a column of a result, changed by the caller", "layout of results", result_layout) {
  auto f = run.wrap([](Tensor x) { return (x * 2.f).view({2, 3}).permute({1, 0}); });
  for (int i = 0; i < 4; ++i) {
    const Tensor y = f(range(6, float(i)));
    y.select(1, 1).add_(100.f);
    run.see(y);
    run.see(y.is_contiguous());
  }
}

TRAP("a result without memory of its own for every element", "expanded results", result_layout) {
  auto f = run.wrap([](Tensor x) { return (x * 2.f).expand({3, 4}); });
  for (int i = 0; i < 4; ++i) run.see(f(range(4, float(i))));
}

TRAP("results in a struct, a map and an optional that is empty at times",
     "torch.jit.trace: tensors and tuples only", live_outputs) {
  struct Out {
    Tensor loss;
    std::map<std::string, Tensor> extra;
    std::optional<Tensor> debug;
    int count = 0;
  };
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * 2.f, g = td::tanh(h);
    Out out{h.sum(), {}, {}, i};
    if (i % 2) out.extra["tanh"] = g;
    if (i % 3 == 2) out.debug = h;
    return out;
  });
  for (i = 0; i < 8; ++i) {
    const Out out = f(range(3, float(i)));
    run.see(out.loss);
    for (const auto& [name, t] : out.extra) run.see(t);
    if (out.debug) run.see(*out.debug);
    run.see(out.count);
  }
}

TRAP("a list of the caller that the body appends to", "JAX: leaked tracers; tf.function: appended once",
     live_outputs, HostState{"a branch on a counter"}) {
  std::vector<Tensor> history;
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = td::exp(x * 0.1f), loss = h.sum();
    if (i % 3 == 2) history.push_back(h);
    return loss;
  });
  for (i = 0; i < 9; ++i) run.see(f(range(3, float(i))));
  for (const Tensor& t : history) run.see(t);
}

TRAP("what is kept changes from call to call, and no plan is built again for it",
     "torch.compile: outputs are part of the graph", outputs_grow) {
  Tensor a, b;
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = td::exp(x * 0.1f), g = h.square(), k = td::tanh(g);
    a = i % 2 ? h : Tensor();
    b = i % 2 ? Tensor() : g;
    return k.sum();
  });
  for (i = 0; i < 12; ++i) {
    run.see(f(range(3, float(i))));
    run.see(a);
    run.see(b);
  }
  run.claim(f, [](const auto& r) {
    return r.recorded == 1 && r.escaping_bytes == 4 + 12 + 12;  // the sum, and both that were kept
  });
}

TRAP("results outlive the traced function", "CUDA graphs: the pool dies with the graph", fresh_handles) {
  std::vector<Tensor> kept;
  Tensor w = leaf(3);
  {
    auto f = run.wrap([&](Tensor x) { return td::tanh(x * w).sum(); });
    for (int i = 0; i < 4; ++i) kept.push_back(f(range(3, float(i)) * 0.1f));
  }
  for (const Tensor& t : kept) {
    t.backward();
    run.see(t);
  }
  run.see(w.grad());
}

TRAP("no tensor at all is returned on some calls", "torch.jit.trace: None", end_event) {
  int i = 0;
  Tensor state = range(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * 2.f;
    if (i % 3 == 1) return Tensor();
    state.add_(y);
    return y;
  });
  for (i = 0; i < 8; ++i) {
    run.see(f(range(3, float(i))));
    run.see(state);
  }
}

TRAP("an argument is changed in place", "JAX: donated or copied; CUDA graphs: a static copy is changed",
     slot_writes) {
  auto f = run.wrap([](Tensor x) {
    x.mul_(2.f);
    const Tensor y = x + 1.f;
    x.add_(y);
    return y;
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor x = range(3, float(i));
    run.see(f(x));
    run.see(x);
  }
}

TRAP("an argument is changed through a view", "torch.compile: mutated aliases of inputs", slot_writes) {
  auto f = run.wrap([](Tensor x) {
    x.view({2, 3}).select(0, 1).mul_(10.f);
    x.slice(0, 0, 2).copy_(x.slice(0, 4, 6));
    return x.sum();
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor x = range(6, float(i));
    run.see(f(x));
    run.see(x);
  }
}

TRAP("an argument that is an expression, in place", "temporaries as static inputs", slot_writes) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    x.add_(w);
    w.add_(x);
    return x;
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f(range(3, float(i)) * 2.f));
    run.see(w);
  }
}

TRAP("a view is changed, the base is read", "MLX, functional tracers: views are copies", cell_values) {
  auto f = run.wrap([](Tensor x) {
    const Tensor base = x * 1.f;
    const Tensor view = base.view({2, 3}), column = view.select(1, 0), sum = column.sum();
    view.select(0, 1).mul_(10.f);
    column.add_(1.f);
    return base + column.sum() * 100.f + sum;
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(6, float(i))));
}

TRAP("a transposed view is changed, other views are read", "strided writes in functional tracers",
     cell_values) {
  auto f = run.wrap([](Tensor x) {
    const Tensor base = (x * 1.f).view({2, 3});
    const Tensor t = base.t(), row = base.select(0, 1);
    const Tensor before = row * 1.f;
    t.select(0, 2).zero_();
    t.add_(t.slice(0, 0, 1) * 0.5f);
    return before + row * 100.f;
  });
  for (int i = 0; i < 4; ++i) run.see(f(range(6, float(i))));
}

TRAP("a tensor added to its own transpose, in place", "an operand that aliases the target", slot_writes) {
  Tensor m = range(9).view({3, 3});
  auto f = run.wrap([&](Tensor x) {
    m.mul_(x);
    m.add_(m.t().clone());
    return m.sum();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(td::tensor({0.5f})));
    run.see(m);
  }
}

TRAP("a ring of values, shifted in place", "overlapping copies", slot_writes) {
  Tensor ring = range(6);
  auto f = run.wrap([&](Tensor x) {
    ring.slice(0, 0, 5).copy_(ring.slice(0, 1, 6).clone());
    ring.select(0, 5).copy_(x.sum());
    return ring * 2.f;
  });
  for (int i = 0; i < 7; ++i) run.see(f(range(2, float(i))));
  run.see(ring);
}

TRAP("old and new value of a captured tensor in one expression", "tinygrad: an assignment seen too early",
     slot_writes) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor old = w * 1.f;
    const Tensor view = w.slice(0, 0, 2);
    w.add_(x);
    w.mul_(2.f);
    return (w - old).sum() + view.sum() * 1000.f;
  });
  for (int i = 0; i < 5; ++i) run.see(f(range(3)));
  run.see(w);
}

TRAP("in place, or not, by a flag of the host", "torch.jit.trace: the first form stays", compare_in_place,
     HostState{"a captured flag"}) {
  Tensor w = range(3);
  bool in_place = true;
  auto f = run.wrap([&](Tensor x) {
    if (in_place)
      w.mul_(x);
    else
      w.mul(x);
    return w.sum();
  });
  for (int i = 0; i < 8; ++i) {
    in_place = i % 3 != 2;
    run.see(f(td::tensor({2.f})));
    run.see(w);
  }
}
