// Traps of automatic differentiation: hooks, custom functions, histories that cross a call's border, second
// derivatives, detach, NoGrad.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("hooks are added and removed between calls",
     "torch.compile: hooks registered after compiling are ignored", host_code) {
  Tensor w = leaf(3);
  int number = -1, calls = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 10; ++i) {
    if (i == 3) number = w.register_hook([&](const Tensor& g) { return ++calls, g * 2.f; });
    if (i == 6) w.remove_hook(number);
    if (i == 8) w.register_hook([&](const Tensor& g) { run.see(g); });
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(calls);
  }
}

TRAP("a hook on a value of the call, with host state", "CUDA graphs: host code in backward runs once",
     tape_on_demand, HostState{"a captured flag"}) {
  Tensor w = leaf(3);
  float limit = 4;
  bool hook = false;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    if (hook) h.register_hook([&](const Tensor& g) { return td::clamp(g, -limit, limit); });
    Tensor loss = h.square().sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 10; ++i) {
    hook = i % 5 != 2 && i > 1;
    limit = float(i);
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("a hook that reads the gradient and decides", "torch.compile: a hook breaks the graph", tape_on_demand) {
  Tensor w = leaf(3);
  int large = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    h.register_hook([&](const Tensor& g) {
      if (g.abs().amax().item<float>() > 5.f) return ++large, g * 0.1f;
      return g;
    });
    w.zero_grad();
    h.square().sum().backward();
    return h.detach();
  });
  for (int i = 0; i < 10; ++i) {
    run.see(f(range(3) * (i % 3 ? 0.2f : 2.f)));
    run.see(w.grad());
    run.see(large);
  }
}

TRAP("a custom function with host state", "torch.jit.trace: custom functions are inlined or refused",
     tape_on_demand) {
  Tensor w = leaf(3);
  float slope = 1;
  int forwards = 0, backwards = 0;
  auto f = run.wrap([&](Tensor x) {
    const td::TensorList y = td::autograd::apply(
        [&](td::autograd::Context& c, const td::TensorList& in) {
          ++forwards;
          c.save_for_backward(in);
          return td::TensorList{td::sign(in[0])};
        },
        [&](const td::autograd::Context& c, const td::TensorList& g) {
          ++backwards;
          return td::TensorList{g[0] * c.saved()[0] * slope};
        },
        {x * w});
    w.zero_grad();
    y[0].sum().backward();
    return y[0].detach();
  });
  for (int i = 0; i < 6; ++i) {
    slope = float(i);
    run.see(f(range(3, -1)));
    run.see(w.grad());
    run.see(forwards * 100 + backwards);
  }
}

TRAP("one loss, differentiated twice, retained on some calls", "CUDA graphs: freed buffers", backward_key) {
  Tensor w = leaf(3);
  bool retain = true;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward({}, retain);
    try {
      loss.backward({}, retain);
    } catch (const td::Error& e) {
      run.see(e.what());
    }
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    retain = i < 3 || i == 5;
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("the loss that is differentiated changes", "torch.jit.trace: the recorded root stays", backward_key) {
  Tensor w = leaf(3);
  bool first = true;
  auto f = run.wrap([&](Tensor x) {
    const Tensor a = (x * w).sum(), b = (x * w).square().sum();
    w.zero_grad();
    (first ? a : b).backward();
    return (a + b).detach();
  });
  for (int i = 0; i < 8; ++i) {
    first = i % 3 == 0;
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("the gradient given to backward changes", "a captured cotangent", backward_key,
     HostState{"a captured variable; the tensor that it had lives"}) {
  Tensor w = leaf(3), g = range(3), other = range(3, 7);
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    w.zero_grad();
    y.backward(g);
    return y.detach();
  });
  for (int i = 0; i < 8; ++i) {
    if (i > 2) std::swap(g, other);
    if (i == 5) g = Tensor(range(3, 70));
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("second derivatives inside a trace", "torch.compile: double backward is refused or wrong",
     tape_on_demand) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = (td::tanh(x * w)).sum();
    const Tensor g = td::autograd::grad({{y}}, {{w}}, {}, true, true)[0];
    const Tensor penalty = (g.square().sum() - 1.f).square();
    w.zero_grad();
    (y + penalty).backward();
    return penalty.detach();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("a gradient penalty with respect to the argument", "torch.compile: create_graph breaks the graph",
     tape_on_demand) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor data) {
    const Tensor x = data.detach().clone().requires_grad_();
    const Tensor score = (td::tanh(x * w)).sum();
    const Tensor g = td::autograd::grad({{score}}, {{x}}, {}, true, true)[0];
    Tensor loss = (td::sqrt(g.square().sum()) - 1.f).square() - score;
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3, float(i)) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("second derivatives outside of the trace that made the value",
     "torch.compile: outputs differentiate once", leaving_history) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) { return (x * w).square().sum(); });
  for (int i = 0; i < 5; ++i) {
    const Tensor y = td::tanh(f(range(3) * 0.1f));
    const Tensor g = td::autograd::grad({{y}}, {{w}}, {}, true, true)[0];
    w.zero_grad();
    (y + g.square().sum()).backward();
    run.see(w.grad());
  }
}

TRAP("a traced layer inside an eager program", "torch.jit.trace in training: history is cut",
     leaving_history) {
  Tensor w = leaf(3), v = leaf(3, 4);
  auto layer = run.wrap([&](Tensor x) { return td::tanh(x * w); });
  for (int i = 0; i < 6; ++i) {
    const Tensor h = range(3, float(i)) * v * 0.01f;
    const Tensor y = layer(layer(h) + h);
    w.zero_grad();
    v.zero_grad();
    (y * v).sum().backward();
    run.see(w.grad());
    run.see(v.grad());
  }
}

TRAP("a traced backward of an eager forward", "JAX, tf.function: outside values are constants",
     outside_history) {
  Tensor w = leaf(3);
  auto backward = run.wrap([&](Tensor loss) {
    w.zero_grad();
    (loss * 2.f).backward();
  });
  for (int i = 0; i < 6; ++i) {
    backward((range(3, float(i)) * w).square().sum());
    run.see(w.grad());
  }
}

TRAP("several calls' results in one backward", "CUDA graphs: saved values are overwritten by the next call",
     fresh_handles) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) { return td::tanh(x * w).square().sum(); });
  for (int i = 0; i < 4; ++i) {
    Tensor total = td::zeros({});
    for (int k = 0; k < 4; ++k) total = total + f(range(3, float(i + k)) * 0.1f);
    w.zero_grad();
    total.backward();
    run.see(w.grad());
  }
}

TRAP("a detach that is there in some calls", "torch.jit.trace: detach is frozen", differences,
     HostState{"a captured flag"}) {
  Tensor w = leaf(3);
  bool cut = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * w;
    h = td::tanh(h);
    Tensor loss = ((cut ? h.detach() : h) * w).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    cut = i / 2 % 2;
    run.see(f(range(3) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("NoGrad around a part, on some calls", "torch.jit.trace: the grad mode is frozen", compare_modes,
     HostState{"a captured flag"}) {
  Tensor w = leaf(3);
  bool off = true;
  auto f = run.wrap([&](Tensor x) {
    Tensor a;
    if (off) {
      td::NoGrad no_grad;
      a = td::tanh(x * w);
    } else {
      a = td::tanh(x * w);
    }
    Tensor loss = (a * w).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    off = i % 4 < 2;
    run.see(f(range(3) * 0.1f));
    run.see(w.grad());
  }
}

TRAP("NoGrad around the call", "torch.compile: guards on the grad mode", entry_modes) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) { return x * w; });
  for (int i = 0; i < 8; ++i) {
    std::optional<td::NoGrad> off;
    if (i % 4 > 1) off.emplace();
    run.see(f(range(3)).requires_grad());
  }
  run.claim(f, [](const auto& r) { return r.signatures == 2; });
}

TRAP("a tensor of the body that is asked for its gradient, on some calls",
     "torch.jit.trace: requires_grad_ is lost", grad_requests) {
  Tensor w = leaf(3);
  bool ask = false;
  auto f = run.wrap([&](Tensor data) {
    Tensor x = data * 1.f;
    x.requires_grad_();
    if (!ask) x.requires_grad_(false);
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward();
    return ask ? x.grad() + 0.f : x;
  });
  for (int i = 0; i < 9; ++i) {
    ask = i % 4 > 1;
    run.see(f(range(3)));
    run.see(w.grad());
  }
}

TRAP("an argument that the body asks for its gradient", "adversarial examples", grad_requests) {
  Tensor w = range(3);
  bool ask = true;
  auto f = run.wrap([&](Tensor x) {
    if (ask) x.requires_grad_();
    Tensor y = (x * w).sum();
    if (y.requires_grad()) y.backward();
    return y.detach();
  });
  for (int i = 0; i < 9; ++i) {
    ask = i % 4 < 2;
    const Tensor x = range(3, float(i));
    run.see(f(x));
    run.see(x.grad());
    run.see(x);
  }
}

TRAP("gradients of an argument that is another tensor in every call",
     "CUDA graphs: gradients land in the first argument", fresh_handles) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    loss.backward();
    return loss.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    kept.push_back(leaf(3, float(i)));
    run.see(f(kept.back()));
    if (i % 2) f(kept.back());
  }
  for (const Tensor& t : kept) run.see(t.grad());
}

TRAP("the caller puts a gradient of its own in place", "CUDA graphs: .grad must keep its address",
     leaf_gradients) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).sum();
    loss.backward();
    return loss.detach();
  });
  Tensor own = range(3, 100);
  for (int i = 0; i < 9; ++i) {
    if (i % 3 == 0) w.zero_grad();
    if (i % 3 == 2) w.set_grad(own);
    run.see(f(range(3)));
    run.see(w.grad());
    run.see(own);
  }
}

TRAP("gradients that the caller keeps", "pytorch #148439: outputs of a CUDA graph are overwritten",
     fresh_handles) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    w.zero_grad();
    Tensor loss = (x * w).square().sum();
    loss.backward();
    return loss.detach();
  });
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    f(range(3, float(i)));
    kept.push_back(w.grad());
  }
  for (const Tensor& t : kept) run.see(t);
}

TRAP("a value that an eager backward needs is changed in place by a call",
     "a version check that replay must not lose", versions) {
  Tensor w = leaf(3), state = range(3);
  auto f = run.wrap([&](Tensor x) { state.add_(x); });
  for (int i = 0; i < 5; ++i) {
    Tensor loss = (state * w).sum();
    f(range(3));
    w.zero_grad();
    run.attempt([&] { loss.backward(); });
    run.see(w.grad());
    run.see(state);
  }
}

TRAP("a value that backward needs is changed in place before it, on some calls",
     "torch.jit.trace: no version check", differences, HostState{"a captured flag"}) {
  Tensor w = leaf(3), state = range(3), copy = range(3);
  bool breaks = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (state * w * x).sum();
    if (breaks)
      state.add_(1.f);
    else
      copy.add_(1.f);
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 7; ++i) {
    breaks = i > 2 && i % 2;
    run.attempt([&] { run.see(f(range(3))); });
    run.see(w.grad());
    run.see(state);
    run.see(copy);
  }
}

TRAP("a result is changed in place before it is differentiated outside", "versions of what leaves a call",
     result_versions) {
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor y = td::exp(x * w);
    y.detach().add_(1.f);
    return y;
  });
  for (int i = 0; i < 5; ++i) {
    const Tensor y = f(range(3) * 0.1f);
    w.zero_grad();
    run.attempt([&] { y.sum().backward(); });
    run.see(w.grad());
    run.see(y);
  }
}

TRAP("a result whose history the body has used up", "torch.compile: silent second backward", consumed_tape,
     HostState{"a captured flag"}) {
  Tensor w = leaf(3);
  bool again = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().sum();
    w.zero_grad();
    loss.backward();
    if (again) run.attempt([&] { (loss * 2.f).backward(); });
    return loss;
  });
  for (int i = 0; i < 6; ++i) {
    again = i > 2;
    const Tensor loss = f(range(3));
    run.see(loss);
    run.attempt([&] { loss.backward(); });
    run.see(w.grad());
  }
}

TRAP("a captured tensor that calls give a history", "in-place ops on captured leaves without grad",
     touched_slots) {
  Tensor w = leaf(3), total = td::zeros({3});
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    if (i % 3 == 0) total.add_(x * w);
    return total * 2.f;
  });
  for (i = 0; i < 9; ++i) {
    const Tensor y = f(range(3, float(i)));
    run.see(y.requires_grad());
    run.see(total.requires_grad());
    if (i % 4 == 3) {
      w.zero_grad();
      y.sum().backward();
      run.see(w.grad());
      total = total.detach();
    }
  }
}

TRAP("gradients as values for leaves that some calls do not reach", "unused inputs of autograd::grad",
     tape_on_demand) {
  Tensor a = leaf(3), b = leaf(3, 4);
  bool both = true;
  auto f = run.wrap([&](Tensor x) {
    Tensor y = (x * a).square().sum();
    if (both) y = y + (x * b).sum();
    return td::autograd::grad({{y}}, {{a, b}}, {}, false, false, true);
  });
  for (int i = 0; i < 8; ++i) {
    both = i % 3 != 1;
    for (const Tensor& g : f(range(3, float(i)))) run.see(g);
  }
}
