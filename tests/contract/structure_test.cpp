// Traps of structure: exceptions, nesting, copies, threads, moved arguments, lifetimes.
#include <thread>

#include "tests/contract/trap.h"

using namespace programs;

TRAP("an exception in the middle of a step", "torch.compile: state half updated; CUDA graphs: capture broken",
     abandon) {
  Tensor w = leaf(3), seen = td::zeros({1});
  td::optim::SGD opt({w}, {.lr = 0.1});
  int fail = 0;
  auto step = run.wrap([&](Tensor x) {
    seen.add_(1.f);
    if (fail == 1) throw std::runtime_error("early");
    Tensor loss = (x * w).square().sum();
    opt.zero_grad();
    loss.backward();
    if (fail == 2) throw std::runtime_error("after backward");
    opt.step();
    if (fail == 3) throw std::runtime_error("after the step");
    return loss.detach();
  });
  for (int i = 0; i < 16; ++i) {
    fail = i % 5 < 4 && i != 4 ? (i * 3) % 4 : 0;
    run.attempt([&] { run.see(step(range(3) * 0.1f)); });
    run.see(w);
    run.see(w.grad());
    run.see(seen);
  }
}

TRAP("an exception between a read and the end", "what was pending after the read", abandon) {
  Tensor w = range(3);
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    w.add_(x);
    const float s = w.sum().item<float>();
    w.mul_(0.5f);
    if (fail) throw std::runtime_error(std::to_string(s));
    return w * 2.f;
  });
  for (int i = 0; i < 9; ++i) {
    fail = i % 3 == 2;
    run.attempt([&] { run.see(f(range(3))); });
    run.see(w);
  }
}

TRAP("the first calls all throw", "torch.compile: a broken cache entry", drop_recording) {
  Tensor w = range(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    if (i < 4) throw std::runtime_error("not yet");
    return y + 1.f;
  });
  for (i = 0; i < 7; ++i) run.attempt([&] { run.see(f(range(3, float(i)))); });
  run.claim(f, [](const auto& r) { return r.branches == 1 && r.ops == 2; });
}

TRAP("a tensor kept from a call that threw", "tracers leak", abandon) {
  Tensor kept;
  bool fail = false;
  auto f = run.wrap([&](Tensor x) {
    kept = x * 3.f;
    if (fail) throw std::runtime_error("stop");
    return kept + 1.f;
  });
  for (int i = 0; i < 6; ++i) {
    fail = i % 2;
    run.attempt([&] { run.see(f(range(3, float(i)))); });
    run.attempt([&] { run.see(kept); });
  }
}

TRAP("a wrong call on a later iteration", "an error of the replayed program must be the eager one",
     slot_types) {
  Tensor w = range(3), state = td::zeros({1});
  auto f = run.wrap([&](Tensor x) {
    state.add_(1.f);
    return (x * w).sum();
  });
  for (int i = 0; i < 8; ++i) {
    w = range(i % 3 == 2 ? 4 : 3);
    run.attempt([&] { run.see(f(range(3))); });
    run.see(state);
  }
}

TRAP("a traced function inside another one, called alone as well",
     "TinyJit: nesting raises on the second call", inline_traces, HostState{"a counter of the body"}) {
  Tensor w = leaf(3);
  int inner_calls = 0;
  auto inner = run.wrap([&](Tensor y) { return ++inner_calls, td::tanh(y * w); });
  auto outer = run.wrap([&](Tensor x) {
    Tensor loss = (inner(x) + inner(x * 2.f)).sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(outer(range(3, float(i)) * 0.1f));
    run.see(w.grad());
    if (i % 2) run.see(inner(range(3)));
    run.see(inner_calls);
  }
  run.claim(outer, [](const auto& r) { return r.recorded == 1; });
  run.claim(inner, [](const auto& r) { return r.calls == 3; });
}

TRAP("a callback that traces on its own", "tf.function: functions defined while tracing", differences) {
  Tensor w = range(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    auto local = run.wrap([&](Tensor y) { return i % 2 ? y * w : y + w; });
    return local(local(x)) * 0.5f;
  });
  for (i = 0; i < 6; ++i) run.see(f(range(3, float(i))));
}

TRAP("a traced function that calls itself", "tf.function: recursion is not supported", differences,
     HostState{"a captured number, the depth"}) {
  Tensor w = range(3) * 0.1f;
  int depth = 0, most = 2;
  std::function<Tensor(Tensor)> self;
  auto f = run.wrap([&](Tensor x) -> Tensor {
    const Tensor y = td::sin(x * w);
    if (++depth >= most) return y;
    return self(y) + y;
  });
  self = [&](Tensor x) { return f(x); };
  for (int i = 0; i < 8; ++i) {
    most = 1 + i / 2 % 3;
    depth = 0;
    run.see(f(range(3, float(i))));
  }
}

TRAP("copies of a traced function with captured values of their own", "tinygrad: shared captures",
     store_scalars) {
  auto f = run.wrap([n = 0.f](Tensor x) mutable { return x * ++n; });
  f(range(3));
  auto g = f;
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3)));
    if (i % 2) run.see(g(range(3)));
  }
}

TRAP("a copy outlives the original", "the trace is shared", store_scalars) {
  std::optional<Tensor> w = range(3);
  float scale = 1;
  const auto make = [&] {
    auto f = run.wrap([&](Tensor x) { return x * *w * scale; });
    f(range(3));
    return std::make_unique<decltype(f)>(f);
  };
  auto f = make();
  for (int i = 0; i < 5; ++i) {
    scale = float(i);
    run.see((*f)(range(3)));
  }
}

TRAP("an argument that is moved in is gone, and its memory is free after a read",
     "JAX: donation by position; use after it raises", given_up_arguments) {
  bool freed = false;
  auto f = run.wrap([&](Tensor x) {
    Tensor sum = x.sum();
    x = Tensor();
    sum.item<float>();
    run.see(freed);
    return sum * 2.f;
  });
  for (int i = 0; i < 4; ++i) {
    float memory[3] = {1, 2, float(i)};
    freed = false;
    Tensor x = td::from_blob(
        memory, {3}, td::float32, [](void* p) { *static_cast<bool*>(p) = true; }, &freed);
    run.see(f(std::move(x)));
    run.attempt([&] { run.see(x.sum()); });
    run.see(freed);
  }
}

TRAP("a trace holds no tensor between calls",
     "JAX #11448, tf.function: captured arrays live as long as the program", dying_slots) {
  const td::OnDevice host(td::cpu);
  int freed = 0;
  float memory[3] = {1, 2, 3};
  const auto make = [&] {
    return td::from_blob(
        memory, {3}, td::float32, [](void* p) { ++*static_cast<int*>(p); }, &freed);
  };
  Tensor w = make();
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    w = make();  // the old one dies while an op that reads it is pending
    return y + w;
  });
  for (int i = 0; i < 5; ++i) {
    run.see(f(range(3)));
    run.see(freed);
  }
  w = Tensor();
  run.see(freed);
}

TRAP("two threads, each with a traced function of its own and one weight",
     "MLX: state of the creating thread", slot_watch) {
  std::optional<Tensor> w = range(3);
  std::vector<float> got[2];
  auto f = run.wrap([&](Tensor x) { return (x * *w).sum(); });
  auto g = run.wrap([&](Tensor x) { return (x + *w).sum(); });
  for (int i = 0; i < 6; ++i) {
    std::thread one = thread_of([&] { got[0].push_back(f(td::ones({1})).item<float>()); });
    std::thread two = thread_of([&] { got[1].push_back(g(td::ones({1})).item<float>()); });
    one.join();
    two.join();
    w.reset();
    w = i % 2 ? range(3) : range(4, float(i));
  }
  for (const auto& list : got)
    for (const float v : list) run.see(v);
}

TRAP("a function traced on one thread is called on another", "tf.function, MLX: thread-local state",
     store_scalars) {
  float scale = 0;
  Tensor w = leaf(3);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).sum() * scale;
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    scale = float(i);
    Tensor y;
    thread_of([&] { y = f(range(3)); }).join();
    run.see(y);
    run.see(w.grad());
  }
}

TRAP("eager ops between the calls use the same tensors", "lazy frameworks: evaluation order", slot_writes) {
  Tensor w = range(3);
  auto f = run.wrap([&](Tensor x) {
    w.add_(x);
    return w * 0.5f;
  });
  for (int i = 0; i < 6; ++i) {
    const Tensor y = f(range(3));
    w.sub_(y);
    run.see(w * y);
  }
}

TRAP("a function without arguments or result", "JAX: nothing to trace", slot_writes) {
  Tensor state = range(3);
  auto f = run.wrap([&] { state.mul_(0.5f).add_(1.f); });
  for (int i = 0; i < 5; ++i) {
    f();
    run.see(state);
  }
}

TRAP("a body without any op on some calls", "an empty graph", end_event) {
  Tensor state = range(3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    if (i % 2) return x;
    state.add_(x);
    return x;
  });
  for (i = 0; i < 6; ++i) {
    run.see(f(range(3)));
    run.see(state);
  }
}

TRAP("a step that ran for a while gets a second model beside the first", "captured objects that appear later",
     differences, HostState{"a captured variable that was empty"}) {
  Tensor a = leaf(3);
  std::optional<Tensor> b;
  auto f = run.wrap([&](Tensor x) {
    Tensor h = x * a;
    if (b) h = h + td::tanh(x * *b);
    a.zero_grad();
    if (b) b->zero_grad();
    h.square().sum().backward();
    return h.detach();
  });
  for (int i = 0; i < 9; ++i) {
    if (i == 3) b = leaf(3, 2);
    if (i == 6) b.reset();
    run.see(f(range(3) * 0.1f));
    run.see(a.grad());
    if (b) run.see(b->grad());
  }
}
