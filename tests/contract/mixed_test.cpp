// Traps where several rules meet: inner loops of optimisation, recomputation, hooks that trace, storms.
#include "tandem/eager/save.h"
#include "tests/contract/trap.h"
#include "tests/core/scratch_folder.h"

using namespace programs;

TRAP("an inner step of gradient descent that the outer loss is differentiated through",
     "MAML: torch.compile refuses create_graph", tape_on_demand) {
  Tensor w = leaf(3);
  int inner = 1;
  auto f = run.wrap([&](Tensor x) {
    Tensor v = w;
    for (int i = 0; i < inner; ++i) {
      const Tensor loss = (x * v - 1.f).square().sum();
      v = v - td::autograd::grad({{loss}}, {{v}}, {}, true, true)[0] * 0.01f;
    }
    Tensor outer = td::tanh(x * v).sum();
    w.zero_grad();
    outer.backward();
    return outer.detach();
  });
  for (int i = 0; i < 8; ++i) {
    inner = i < 3 ? 1 : 1 + i % 3;
    run.see(f(range(3) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("a Hessian times a vector", "torch.compile: double backward", tape_on_demand) {
  Tensor w = leaf(3), v = range(3, 2);
  auto f = run.wrap([&](Tensor x) {
    const Tensor loss = td::tanh(x * w).square().sum();
    const Tensor g = td::autograd::grad({{loss}}, {{w}}, {}, true, true)[0];
    return td::autograd::grad({{(g * v).sum()}}, {{w}})[0];
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3) * (0.1f * float(i + 1))));
    v = v * 0.5f;
  }
}

TRAP("rows of a Jacobian, one backward each", "retained graphs in a loop", differences,
     HostState{"a captured number, the end of a loop"}) {
  Tensor w = leaf(3);
  int64_t rows = 3;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = td::sin(x * w);
    std::vector<Tensor> out;
    for (int64_t i = 0; i < rows; ++i) {
      w.zero_grad();
      y.select(0, i).backward({}, true);
      out.push_back(w.grad() * 1.f);
    }
    return td::stack(std::span<const Tensor>(out));
  });
  for (int i = 0; i < 6; ++i) {
    rows = i < 3 ? 3 : 1 + i % 3;
    run.see(f(range(3, float(i))));
  }
}

TRAP("a part recomputed in backward", "activation checkpointing: torch.compile needs tags", tape_on_demand) {
  Tensor w = leaf(3);
  int runs = 0;
  auto part = [&](const Tensor& h) { return ++runs, td::tanh(h * w); };
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    const td::TensorList y = td::autograd::apply(
        [&](td::autograd::Context& c, const td::TensorList& in) {
          c.save_for_backward({in[0]});
          return td::TensorList{part(in[0])};
        },
        [&](const td::autograd::Context& c, const td::TensorList& g) {
          const td::EnableGrad enable;
          const Tensor again = c.saved()[0].detach().clone().requires_grad_();
          const Tensor out = part(again);
          const td::TensorList grads = td::autograd::grad({{out}}, {{again, w}}, {{g[0]}});
          return td::TensorList{grads[0], grads[1]};
        },
        {h, w});
    w.zero_grad();
    y[0].square().sum().backward();
    return y[0].detach();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(w.grad());
    run.see(runs);
  }
}

TRAP("a hook of an eager backward calls a traced function", "nested use from host code", store_scalars) {
  Tensor w = leaf(3);
  float scale = 1;
  auto f = run.wrap([&](Tensor g) { return g * scale; });
  w.register_hook([&](const Tensor& g) { return f(g); });
  for (int i = 0; i < 5; ++i) {
    scale = float(i);
    w.zero_grad();
    (range(3) * w).square().sum().backward();
    run.see(w.grad());
  }
}

TRAP("a hook inside a trace runs a backward of its own", "reentrant backward", tape_on_demand) {
  Tensor w = leaf(3), v = leaf(3, 5);
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    h.register_hook([&](const Tensor& g) {
      const td::EnableGrad enable;
      v.zero_grad();
      (v.square() * g.detach()).sum().backward();
      return g + v.grad();
    });
    w.zero_grad();
    h.square().sum().backward();
    return h.detach();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    run.see(v.grad());
  }
}

TRAP("a hook that removes itself", "a hook that is there once", host_code) {
  Tensor w = leaf(3);
  int number = -1, calls = 0;
  auto f = run.wrap([&](Tensor x) {
    w.zero_grad();
    (x * w).square().sum().backward();
    return x * 2.f;
  });
  for (int i = 0; i < 8; ++i) {
    if (i % 3 == 2)
      number = w.register_hook([&](const Tensor& g) {
        ++calls;
        return g * 3.f;
      });
    run.see(f(range(3, float(i))));
    run.see(w.grad());
    if (i % 3 == 2) w.remove_hook(number);
    run.see(calls);
  }
}

TRAP("the last argument is kept for the next call", "captured state that was an argument", slot_once) {
  Tensor last = td::zeros({3});
  auto f = run.wrap([&](Tensor x) {
    const Tensor old = last;
    last = x;
    x.add_(1.f);
    return x - old * 100.f;
  });
  const Tensor same = range(3, 50);
  for (int i = 0; i < 9; ++i) {
    run.see(f(i % 4 > 1 ? same : range(3, float(i))));
    run.see(last);
  }
}

TRAP("a view of an argument is kept for the next call", "captured views of inputs", slot_once) {
  Tensor part = td::zeros({2});
  auto f = run.wrap([&](Tensor x) {
    const Tensor old = part, y = x.sum() + part;
    part = x.slice(0, 1, 3);
    x.mul_(2.f);
    return y + part * 100.f + old * 10000.f;
  });
  const Tensor same = range(4, 5);
  for (int i = 0; i < 9; ++i) {
    run.see(f(i % 4 > 1 ? same : range(4, float(i))));
    run.see(part);
  }
}

TRAP("a result is captured, given back, and changed", "feedback through captured variables", slot_once) {
  Tensor state = range(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor old = state;
    state = td::tanh(state * 0.5f + x);
    x.add_(state);
    state = state + old * 0.01f;
    return state;
  });
  for (int i = 0; i < 9; ++i) {
    const Tensor y = f(i % 2 ? state : range(3, float(i)));
    run.see(y);
    if (i % 3 == 1) y.mul_(0.1f);
    run.see(state);
  }
}

TRAP("a new optimizer in every call", "state made and dropped in the body", live_outputs) {
  Tensor w = leaf(3);
  std::unique_ptr<td::optim::Adam> kept;
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    auto opt = std::make_unique<td::optim::Adam>(std::vector<Tensor>{w}, td::optim::AdamOptions{.lr = 0.1});
    for (int k = 0; k < 2; ++k) {
      Tensor loss = (x * w).square().sum();
      opt->zero_grad();
      loss.backward();
      opt->step();
    }
    if (i % 3 == 2) kept = std::move(opt);
    return x * 1.f;
  });
  for (i = 0; i < 8; ++i) {
    run.see(f(range(3)));
    run.see(w);
    if (kept)
      for (const td::NamedTensor& t : kept->state()) run.see(t.tensor);
  }
}

TRAP("a model is made in the body", "parameters drawn inside of a trace", store_scalars) {
  auto f = run.wrap([](Tensor x) {
    td::nn::Linear layer(3, 2);
    Tensor loss = layer(x).square().sum();
    loss.backward();
    return std::pair(layer.weight.grad(), loss.detach());
  });
  for (int i = 0; i < 5; ++i) {
    const auto [g, loss] = f(range(6).view({2, 3}));
    run.see(g);
    run.see(loss);
  }
}

TRAP("weights are saved and loaded in the body", "a file as host state", owed_reads) {
  const ScratchFolder folder;
  const std::string path = folder / "w.safetensors";
  td::nn::Linear layer(3, 2);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    td::NoGrad no_grad;
    layer.weight.add_(x);
    if (i % 3 == 0) td::save(path, layer);
    layer.weight.mul_(2.f);
    if (i % 3 == 2) td::load(path, layer);
    return layer(x.view({1, 3}));
  });
  for (i = 0; i < 9; ++i) run.see(f(range(3)));
  run.see(layer.weight);
}

TRAP("more ways than are recorded, each with a backward and a step",
     "R17: a storm of branches runs as eager code", branch_bound) {
  Tensor w = leaf(90);
  td::optim::AdamW opt({w}, {.lr = 0.1});
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (w.slice(0, at, at + 3) * x).square().sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    const float now = loss.item<float>();
    return loss.detach() + now;
  });
  td::core::set_log("off");
  for (at = 0; at < 80; ++at) {
    const Tensor y = f(range(3));
    if (at % 8 == 7) run.see(y);
  }
  for (at = 0; at < 3; ++at) run.see(f(range(3)));
  td::core::set_log("warn");
  run.see(w);
  run.claim(f, [](const auto& r) { return r.eager_calls > 0 && r.branches <= 65; });
}

TRAP("a storm whose calls throw, read and keep", "R17: what is left of a call that runs eagerly",
     branch_bound) {
  Tensor state = range(90), kept;
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * 2.f;
    state.slice(0, at, at + 2).add_(h);
    const float s = state.select(0, at).item<float>();
    state.mul_(0.99f);
    if (at % 7 == 3) throw std::runtime_error("stop");
    kept = h + s;
    return kept.slice(0, 0, 1);
  });
  td::core::set_log("off");
  for (at = 0; at < 80; ++at) {
    try {
      const Tensor y = f(range(2, float(at)));
      if (at % 8 == 7) run.see(y);
    } catch (const std::runtime_error&) {
      run.see("threw");
    }
  }
  td::core::set_log("warn");
  run.see(state);
  run.see(kept);
  run.claim(f, [](const auto& r) { return r.eager_calls > 0; });
}

TRAP("gradients that are differentiable stay in .grad", "create_graph in a step", tape_on_demand) {
  Tensor w = leaf(3);
  bool more = false;
  auto f = run.wrap([&](Tensor x) {
    w.zero_grad();
    Tensor loss = td::tanh(x * w).sum();
    loss.backward({}, true, true);
    Tensor penalty = w.grad().square().sum();
    if (more) {
      const Tensor second = td::autograd::grad({{penalty}}, {{w}})[0];
      w.zero_grad();
      return second;
    }
    w.set_grad(Tensor());
    return penalty.detach();
  });
  for (int i = 0; i < 8; ++i) {
    more = i % 3 != 0;
    if (i == 5) w.set_grad(range(3));
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("the body itself gives a leaf its gradient", "set_grad in a step", differences,
     HostState{"a branch on a counter"}) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.1});
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor g = td::tanh(x * w.detach());
    g = i % 3 == 2 ? td::sign(g) : td::exp(g);
    w.set_grad(g);
    opt.step();
    return x * 2.f;
  });
  for (i = 0; i < 8; ++i) {
    run.see(f(range(3)));
    run.see(w);
    run.see(w.grad());
  }
}

TRAP("gradients are exchanged between two leaves", "what .grad is, not what it was", leaf_gradients) {
  Tensor a = leaf(3), b = leaf(3, 7);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * a).sum() + (x * b).square().sum();
    loss.backward();
    const Tensor ga = a.grad(), gb = b.grad();
    a.set_grad(gb);
    b.set_grad(ga);
    return loss.detach();
  });
  for (int i = 0; i < 7; ++i) {
    if (i % 3 == 0) a.zero_grad(), b.zero_grad();
    run.see(f(range(3)));
    run.see(a.grad());
    run.see(b.grad());
  }
}

TRAP("one gradient tensor for two leaves", "aliased .grad", leaf_gradients) {
  Tensor a = leaf(3), b = leaf(3, 7);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * a).sum() + (x * b).square().sum();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 9; ++i) {
    if (i % 3 == 0) a.zero_grad(), b.zero_grad();
    if (i % 3 == 2) b.set_grad(a.grad());
    run.see(f(range(3)));
    run.see(a.grad());
    run.see(b.grad());
  }
}

TRAP("the schedule is stepped in the body, by the loss", "host objects driven by reads", reads_run) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.1});
  td::optim::StepLR schedule(opt, 2, 0.5);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    if (loss.item<float>() < 5.f) schedule.step();
    return loss.detach();
  });
  for (int i = 0; i < 10; ++i) {
    run.see(f(range(3) * 0.3f));
    run.see(opt.lr());
  }
}

TRAP("a leaf that wants a gradient is changed in place in the body", "an error, as in eager mode",
     differences, HostState{"a captured flag"}) {
  Tensor w = leaf(3);
  bool wrong = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor y = x * w;
    if (wrong) run.attempt([&] { w.add_(x); });
    if (wrong) y = y + 1.f;
    w.zero_grad();
    y.sum().backward();
    return y.detach();
  });
  for (int i = 0; i < 8; ++i) {
    wrong = i > 2 && i % 2;
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(w);
  }
}

TRAP("an embedding whose rows are drawn by the host", "sparse training data", argument_sizes) {
  td::nn::Embedding table(6, 3);
  td::optim::AdamW opt(table.parameters(), {.lr = 0.1});
  auto step = run.wrap([&](Tensor rows) {
    Tensor loss = table(rows).square().sum();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    std::vector<int64_t> rows;
    for (int k = 0; k <= i % 3; ++k) rows.push_back((i * k + 1) % 6);
    run.see(step(td::tensor(rows)));
  }
  run.see(table.weight);
}

TRAP("a batch is a slice of captured data", "an argument that aliases captured memory", captured_aliasing) {
  Tensor data = range(12).view({6, 2});
  Tensor w = leaf(2);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum() + data.mean();
    w.zero_grad();
    loss.backward();
    td::NoGrad no_grad;
    data.mul_(0.9f);
    return (loss + x.sum()).detach();
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(i == 0 ? range(4).view({2, 2}) : data.slice(0, i % 4, i % 4 + 2)));
    run.see(w.grad());
  }
}
