// Traps of captured tensors: replaced, freed, shared, changed inside and outside of the body.
#include "tests/contract/trap.h"

using namespace programs;

namespace {

struct Net : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 3, 4);
  td::nn::Linear out = child<td::nn::Linear>("out", 4, 2);
  Tensor mean = buffer("mean", td::zeros({3}));
  Tensor forward(const Tensor& x) {
    if (is_training()) {
      td::NoGrad no_grad;
      mean.mul_(0.9f).add_(x.mean({0}) * 0.1f);
    }
    return out(td::relu(hidden(x - mean)));
  }
};

Tensor batch(int i) { return range(6, float(i)).view({2, 3}) * 0.1f; }

}  // namespace

TRAP("a parameter is replaced", "JAX #11448, MLX: a captured array keeps its old value", compare_operands) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    loss.backward();
    return loss.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    kept.push_back(w);
    w = leaf(3, float(i));
    run.see(f(range(3)));
  }
  for (const Tensor& t : kept) run.see(t.grad());
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("a replaced parameter needs no new recording",
     "Dynamo: guards on identity; CUDA graphs: static addresses", slot_rebinding) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) { return td::tanh(x * w); });
  for (int i = 0; i < 6; ++i) {
    w = range(3, float(i));
    run.see(f(range(3)));
  }
  run.claim(f, [](const auto& r) { return r.recorded == 1 && r.plans == 1; });
}

TRAP("two models through one traced lambda", "tinygrad PR #13701: a method shared between instances",
     compare_operands, HostState{"a captured pointer; both models live"}) {
  Net a, b;
  b.requires_grad_();
  Net* model = &a;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = model->forward(x).square().sum();
    model->zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    model = i / 2 % 2 ? &b : &a;
    run.see(f(batch(i)));
    for (const Tensor& p : model->parameters()) run.see(p.grad());
  }
  run.see(a.mean);
  run.see(b.mean);
  run.claim(f, [](const auto& r) { return r.recorded <= 2; });
}

TRAP("a model is an argument", "tinygrad PR #13701: bound methods share one capture", compare_operands) {
  Net a, b;
  auto f = run.wrap([](Net& model, Tensor x) { return model.forward(x).detach(); });
  for (int i = 0; i < 8; ++i) run.see(f(i % 3 ? a : b, batch(i)));
  run.see(a.mean);
  run.see(b.mean);
}

TRAP("weights are loaded between calls", "torch.jit.trace: constants; JAX: closures copied into the program",
     slot_writes) {
  Net net;
  td::optim::SGD opt(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  std::vector<td::NamedTensor> saved;
  for (int i = 0; i < 8; ++i) {
    if (i == 3)
      for (const td::NamedTensor& t : net.state()) saved.push_back({t.name, t.tensor.detach().clone()});
    if (i == 5) net.load_state(saved);
    run.see(step(batch(i)));
  }
  for (const td::NamedTensor& t : net.state()) run.see(t.tensor);
  run.claim(step, [](const auto& r) { return r.recorded <= 2; });
}

TRAP("a target network is synchronised by the body on some calls", "tinygrad: dropped assignments",
     slot_writes, HostState{"a branch on a counter"}) {
  Tensor online = range(3), target = range(3, 5);
  int step = 0;
  auto f = run.wrap([&](Tensor x) {
    td::NoGrad no_grad;
    online.add_(x * 0.1f);
    if (step % 3 == 2) target.copy_(online);
    return (x * target).sum();
  });
  for (step = 0; step < 9; ++step) run.see(f(range(3)));
  run.see(online);
  run.see(target);
}

TRAP("a buffer that the output does not use",
     "pytorch #140539: the update vanished; eager 2, 4, 10, traced 2, 4, 6", slot_writes) {
  Tensor buffer = td::ones({1});
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * buffer.clone();
    buffer.add_(x);
    return y;
  });
  for (int i = 0; i < 5; ++i) run.see(f(td::tensor({2.f})));
  run.see(buffer);
}

TRAP("an average of the weights kept beside them", "torch.jit.trace: state that is no output is dropped",
     slot_writes) {
  Net net;
  std::vector<Tensor> average;
  for (const Tensor& p : net.parameters()) average.push_back(p.detach().clone());
  td::optim::AdamW opt(net.parameters(), {.lr = 0.05});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    td::NoGrad no_grad;
    const std::vector<Tensor> p = net.parameters();
    for (size_t i = 0; i < p.size(); ++i) average[i].mul_(0.9f).add_(p[i] * 0.1f);
  });
  for (int i = 0; i < 5; ++i) step(batch(i));
  for (const Tensor& t : average) run.see(t);
}

TRAP("a captured tensor is changed by the caller and by the body", "MLX: mutated state is lost unless listed",
     slot_writes) {
  Tensor state = range(3);
  auto f = run.wrap([&](Tensor x) {
    state.add_(x);
    return state * 2.f;
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f(range(3)));
    if (i % 2) state.mul_(0.5f);
    state.select(0, i % 3).fill_(float(i));
    run.see(state);
  }
}

TRAP("a captured tensor dies, and another one takes its address",
     "Dynamo guards by id; CUDA graphs: dangling pointers", slot_watch) {
  std::optional<Tensor> w = range(4);
  auto f = run.wrap([&](Tensor x) { return (x * *w).sum(); });
  for (int i = 0; i < 9; ++i) {
    run.see(f(td::ones({1})));
    w.reset();
    if (i % 3 == 0)
      w = range(4, float(i));
    else if (i % 3 == 1)
      w = range(2, float(i));
    else
      w = range(4, float(i)).to(td::float64);
  }
}

TRAP("a traced function outlives its model",
     "torch.jit: the module owns the trace; JAX: weights are copied in", slot_watch) {
  auto model = std::make_unique<Net>();
  auto f = run.wrap([&](Tensor x) { return model->forward(x).sum(); });
  for (int i = 0; i < 9; ++i) {
    run.see(f(batch(i)));
    if (i % 3 == 2) {
      model.reset();
      model = std::make_unique<Net>();
      if (i == 5) model->to(td::float64);
      if (i == 5) model->to(td::float32);
    }
  }
}

TRAP("tensors are freed between calls", "CUDA graphs: freed memory is written by the replay", slot_watch) {
  std::vector<Tensor> pool;
  auto f = run.wrap([&](Tensor x) {
    Tensor y = x;
    for (const Tensor& t : pool) y = y + t.sum();
    return y;
  });
  for (int i = 0; i < 10; ++i) {
    pool.clear();
    for (int k = 0; k < 3; ++k) pool.push_back(range(1 + (i * k) % 4, float(i + k)));
    run.see(f(range(3)));
  }
}

TRAP("a model is cast to another type", "torch.compile: stale guards", slot_watch) {
  Net net;
  net.eval();
  auto f = run.wrap([&](Tensor x) { return (net.forward(x.to(net.mean.dtype()))).sum(); });
  for (int i = 0; i < 9; ++i) {
    if (i == 3) net.to(td::float64);
    if (i == 6) net.to(td::bfloat16);
    if (i == 8) net.to(td::float32);
    run.see(f(batch(i)));
  }
}

TRAP("two captured tensors change places in every call", "CUDA graphs: ping-pong buffers", compare_operands) {
  Tensor front = range(3), back = range(3, 10);
  auto f = run.wrap([&](Tensor x) {
    back.copy_(front * 0.5f + x);
    return front - back;
  });
  for (int i = 0; i < 7; ++i) {
    run.see(f(range(3)));
    std::swap(front, back);
  }
  run.see(front);
  run.see(back);
}

TRAP("the body itself swaps them", "tf.function: Python assignments happen once", compare_operands) {
  Tensor front = range(3), back = range(3, 10);
  auto f = run.wrap([&](Tensor x) {
    back.copy_(front * 0.5f + x);
    std::swap(front, back);
    return front * 2.f;
  });
  for (int i = 0; i < 7; ++i) run.see(f(range(3)));
  run.see(front);
  run.see(back);
}

TRAP("two names are one tensor, and part later", "pytorch: tied weights untied after tracing", slot_once) {
  Tensor a = range(3), b = range(3, 4);
  auto f = run.wrap([&](Tensor x) {
    a.add_(x);
    return a * b;
  });
  for (int i = 0; i < 9; ++i) {
    if (i == 3) b = a;
    if (i == 6) b = a.clone();
    run.see(f(range(3)));
    run.see(b);
  }
}

TRAP("one captured tensor becomes a view of another", "same storage through two tensors", slot_once) {
  Tensor a = range(4), b = range(2, 9);
  auto f = run.wrap([&](Tensor x) {
    const Tensor before = b * 100.f;
    a.mul_(x);
    return before + b;
  });
  for (int i = 0; i < 9; ++i) {
    if (i == 3) b = a.slice(0, 0, 2);
    if (i == 6) b = range(2, 3);
    run.see(f(td::tensor({2.f})));
    run.see(a);
  }
}

TRAP("a bias that is there in some calls", "torch.jit.trace: None is frozen", compare_operands,
     HostState{"a captured variable; the tensor that it had lives"}) {
  const Tensor w = range(6).view({2, 3}), some = range(2, 50);
  Tensor bias;
  auto f = run.wrap([&](Tensor x) { return td::linear(x, w, bias); });
  for (int i = 0; i < 8; ++i) {
    bias = i / 2 % 2 ? some : Tensor();
    run.see(f(batch(i)));
  }
}

TRAP("a captured hidden state that each call replaces",
     "JAX: leaked tracers; CUDA graphs: overwritten outputs", dying_slots) {
  Tensor w = range(3);
  Tensor hidden = td::zeros({3});
  auto f = run.wrap([&](Tensor x) {
    hidden = td::tanh(hidden * w + x);
    const Tensor again = hidden * 2.f;
    return again + 1.f;
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(hidden);
  }
}

TRAP("a hidden state with history, cut by detach on some calls", "truncated backpropagation through time",
     leaving_history) {
  Tensor w = leaf(3);
  Tensor hidden = td::zeros({3});
  int step = 0;
  auto f = run.wrap([&](Tensor x) {
    hidden = td::tanh(hidden * w + x);
    if (step % 3 != 2) return hidden.sum().detach();
    w.zero_grad();
    Tensor loss = hidden.sum();
    loss.backward();
    hidden = hidden.detach();
    return loss.detach();
  });
  for (step = 0; step < 12; ++step) {
    run.see(f(range(3, float(step)) * 0.1f));
    run.see(hidden);
    run.see(w.grad());
  }
}

TRAP("an argument is the captured parameter", "tinygrad: duplicate inputs raise; CUDA graphs: aliased inputs",
     captured_aliasing) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    w.mul_(2.f);
    return x + w * 10.f;
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(i % 2 ? w : range(3, 7)));
    run.see(w);
  }
}

TRAP("an argument is a view of a captured tensor", "CUDA graphs: aliased inputs", captured_aliasing) {
  Tensor data = range(6).view({3, 2});
  auto f = run.wrap([&](Tensor row) {
    row.add_(1.f);
    return data.sum() + row;
  });
  for (int i = 0; i < 8; ++i) {
    Tensor other = range(2, float(i));
    run.see(f(i % 2 ? data.select(0, i % 3) : other));
  }
  run.see(data);
}

TRAP("arguments that show parts of one memory",
     "tinygrad: duplicate inputs; torch.compile: guards on aliasing", argument_aliasing) {
  auto f = run.wrap([](Tensor a, Tensor b) {
    const Tensor before = b * 0.5f;
    a.add_(100.f);
    return before + b;
  });
  for (int i = 0; i < 8; ++i) {
    const Tensor data = range(6);
    const Tensor a = data.slice(0, 0, 4), b = i % 2 ? data.slice(0, 2, 6) : range(4, 50);
    run.see(f(a, b));
    run.see(data);
  }
}

TRAP("a captured tensor begins to be a column of a matrix", "layout is part of the guard", slot_types) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) { return x * w; });
  for (int i = 0; i < 8; ++i) {
    w = i / 2 % 2 ? range(9).view({3, 3}).select(1, 1) : range(3, float(i));
    run.see(f(range(3)));
  }
}

TRAP("memory of the caller changes under a captured tensor", "JAX: closures are copied", slot_writes) {
  const td::OnDevice host(td::cpu);
  float memory[3] = {1, 2, 3};
  const Tensor shared = td::from_blob(memory, {3});
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = shared * x;
    shared.add_(1.f);
    return y;
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3)));
    run.see(memory[1]);
    memory[0] = float(10 * i);
  }
}
