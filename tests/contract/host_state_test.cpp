// Traps of host state: numbers, flags, lists and objects that a body reads besides its arguments and that
// change between calls. Most tracers bake the first value in.
#include <map>
#include <random>

#include "tests/contract/trap.h"

using namespace programs;

TRAP("a captured counter", "tinygrad PR #13701: host numbers are frozen at capture, silently",
     store_scalars) {
  int count = 0;
  auto f = run.wrap([&](Tensor x) { return x * float(++count); });
  for (int i = 0; i < 6; ++i) run.see(f(range(3)));
  run.see(count);
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("state inside a mutable lambda", "tf.function, torch.jit.trace: Python state runs only while tracing",
     store_scalars) {
  auto f = run.wrap([n = 0.5f](Tensor x) mutable {
    n += 1;
    return x / n + n;
  });
  for (int i = 0; i < 6; ++i) run.see(f(range(3)));
}

TRAP("a number drawn by the host in the body", "JAX, tf.function: a host random number becomes a constant",
     store_scalars) {
  std::mt19937 host(5);
  auto f = run.wrap([&](Tensor x) { return x + float(host() % 1000); });
  for (int i = 0; i < 6; ++i) run.see(f(range(3)));
  run.see(host());
}

TRAP("fields of a captured options object", "TensorFlow guide: closures are no part of the key",
     compare_attributes) {
  struct Options {
    int64_t axis = 0;
    bool keepdim = false;
    float scale = 1;
  } o;
  auto f = run.wrap([&](Tensor x) { return x.sum({o.axis}, o.keepdim) * o.scale; });
  for (int i = 0; i < 8; ++i) {
    o = {i / 2 % 2, i / 4 == 1, float(i)};
    run.see(f(range(9).view({3, 3})));
  }
}

TRAP("an exponent that becomes 2 has another op", "pytorch #120934: scalars are guarded by value or frozen",
     differences, HostState{"a captured number"}) {
  double exponent = 3;
  auto f = run.wrap([&](Tensor x) { return td::pow(x, exponent) + 1.f; });
  for (const double e : {3., 3., 2.5, 2., 2., 0.5, 3., 1., 2.}) {
    exponent = e;
    run.see(f(range(4)));
  }
}

TRAP("a captured dtype", "torch.jit.trace: casts are frozen", compare_attributes,
     HostState{"a captured dtype"}) {
  td::DType type = td::float32;
  auto f = run.wrap([&](Tensor x) { return (x * 1.1f).to(type); });
  for (const td::DType t : {td::float64, td::float64, td::int64, td::bfloat16, td::float64, td::int64}) {
    type = t;
    run.see(f(range(4)));
  }
}

TRAP("an activation that is a captured function", "torch.jit.trace: the callee is frozen", differences,
     HostState{"a captured function"}) {
  std::function<Tensor(const Tensor&)> act = [](const Tensor& t) { return td::relu(t); };
  auto f = run.wrap([&](Tensor x) { return act(x - 2.f) * 2.f; });
  for (int i = 0; i < 8; ++i) {
    if (i == 3) act = [](const Tensor& t) { return td::tanh(t); };
    if (i == 5) act = [](const Tensor& t) { return td::sigmoid(t) * t; };
    if (i == 7) act = [](const Tensor& t) { return td::relu(t); };
    run.see(f(range(5)));
  }
}

TRAP("a string argument that selects the op", "tf.function retraces by value; tinygrad ignores it",
     differences) {
  auto f = run.wrap([](Tensor x, std::string kind) {
    if (kind == "mean") return x.mean();
    if (kind == "max") return x.amax();
    return x.sum();
  });
  for (const char* kind : {"sum", "sum", "mean", "mean", "max", "sum", "max", "mean"})
    run.see(f(range(5), kind));
}

TRAP("a number as an argument", "MLX: host arguments are constants; tf.function retraces", store_scalars) {
  auto f = run.wrap([](Tensor x, float scale, int shift) { return x * scale + shift; });
  for (int i = 0; i < 6; ++i) run.see(f(range(3), 0.5f * float(i), i * i));
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("keys of a map argument that change while the tensors look alike", "JAX: keys are structure",
     differences) {
  auto f = run.wrap([](std::map<std::string, Tensor> batch) {
    if (batch.count("image")) return td::relu(batch["image"]) * 2.f;
    return td::exp(batch["text"]) * 3.f;
  });
  for (int i = 0; i < 8; ++i)
    run.see(f(std::map<std::string, Tensor>{{i / 2 % 2 ? "text" : "image", range(3, float(i) - 2)}}));
}

TRAP("a list argument whose length and members change",
     "tinygrad #10850: a list argument stuck at its first value", argument_aliasing) {
  auto f = run.wrap([](std::vector<Tensor> list) {
    Tensor sum = td::zeros({3});
    for (const Tensor& t : list) {
      t.mul_(2.f);
      sum = sum + t;
    }
    return sum / float(list.size());
  });
  for (int i = 0; i < 9; ++i) {
    const Tensor a = range(3), b = range(3, 5);
    std::vector<Tensor> list(size_t(1 + i % 3), a);
    if (i < 6 && list.size() > 1) list[1] = b;
    run.see(f(list));
    run.see(a);
    run.see(b);
  }
}

TRAP("a captured list that grows", "tf.function: lists are unrolled once", differences,
     HostState{"a captured list; its tensors live"}) {
  std::vector<Tensor> parts{range(3)};
  auto f = run.wrap([&](Tensor x) {
    Tensor y = x;
    for (const Tensor& p : parts) y = y * 0.5f + p;
    return y;
  });
  for (int i = 0; i < 8; ++i) {
    run.see(f(range(3, float(i))));
    if (i % 2) parts.push_back(range(3, float(10 * i)));
    if (i == 6) parts.erase(parts.begin(), parts.begin() + 2);
  }
}

TRAP("operands of a cat whose number changes", "tinygrad PR #13701: captured lists are frozen", differences) {
  std::vector<Tensor> history;
  auto f = run.wrap([&](Tensor x) {
    history.push_back(x * 2.f);
    if (history.size() > 3) history.erase(history.begin());
    return td::cat(std::span<const Tensor>(history)).sum();
  });
  for (int i = 0; i < 10; ++i) run.see(f(range(3, float(i))));
  for (const Tensor& t : history) run.see(t);
}

TRAP("a key-value cache written at a captured position", "MLX, tinygrad: an integer index is a constant",
     compare_attributes) {
  Tensor cache = td::zeros({8, 2});
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) {
    td::NoGrad no_grad;
    cache.slice(0, at, at + 1).copy_(x);
    return (cache.slice(0, 0, at + 1) * x).sum({1});
  });
  for (int epoch = 0; epoch < 2; ++epoch)
    for (at = 0; at < 8; ++at) run.see(f(range(2, float(at + epoch)).view({1, 2})));
  run.see(cache);
}

TRAP("a switch between train and eval mode", "torch.jit.trace: the mode of the first call stays", differences,
     HostState{"a module's mode"}) {
  td::nn::Dropout drop(0.5);
  auto f = run.wrap([&](Tensor x) { return drop(x * 2.f) + 1.f; });
  for (int i = 0; i < 10; ++i) {
    if (i == 3 || i == 8) drop.eval();
    if (i == 5) drop.train();
    run.see(f(range(6)));
  }
}

TRAP("a weighting of losses in a captured vector", "pytorch #120934: a changing scalar recompiles or freezes",
     store_scalars) {
  Tensor w = leaf(3);
  std::vector<double> weights{1, 0.5, 0.25};
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    Tensor loss = h.sum() * weights[0];
    loss = loss + h.square().sum() * weights[1];
    loss = loss + td::tanh(h).sum() * weights[2];
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 6; ++i) {
    run.see(f((range(3) * 0.1f)));
    run.see(w.grad());
    weights[size_t(i % 3)] *= 1.5;
  }
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("a sign that is a bool operand", "torch.jit.trace: bools are frozen", store_scalars) {
  bool flip = false;
  auto f = run.wrap([&](Tensor x) { return td::logical_xor(x > 2.f, flip); });
  for (int i = 0; i < 6; ++i) {
    flip = i % 3 == 1;
    run.see(f(range(4)));
  }
}

TRAP("a number whose kind changes", "value and type of a host number", differences) {
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    if (i % 3 == 0) return x * 2;
    if (i % 3 == 1) return x * 2.5;
    return x * true;
  });
  for (i = 0; i < 9; ++i) run.see(f(td::tensor<int64_t>({1, 2, 3})));
}

namespace {
Tensor global_scale;
}

TRAP("a global tensor that is made again", "TensorFlow guide: globals are not in the key", compare_operands) {
  global_scale = range(3);
  auto f = run.wrap([](Tensor x) { return x * global_scale; });
  for (int i = 0; i < 6; ++i) {
    if (i % 2) global_scale = range(3, float(i));
    run.see(f(range(3)));
  }
  global_scale = Tensor();
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("a table made lazily by the first call",
     "JAX: tensors that leak from a trace; tf.function: state made in it", differences) {
  Tensor table;
  auto f = run.wrap([&](Tensor x) {
    if (!table.defined()) table = td::exp(range(3) * 0.1f);
    return x * table;
  });
  for (int i = 0; i < 6; ++i) {
    if (i == 4) table = Tensor();
    run.see(f(range(3, float(i))));
    run.see(table);
  }
}

TRAP("a cache of results by a host key", "tf.function: a dictionary filled while tracing", differences) {
  std::map<int, Tensor> cache;
  int key = 0;
  auto f = run.wrap([&](Tensor x) {
    Tensor& entry = cache[key];
    if (!entry.defined()) entry = td::tanh(x * 0.1f);
    return entry * 2.f;
  });
  for (const int k : {0, 0, 1, 0, 2, 1, 3, 0, 3}) {
    key = k;
    run.see(f(range(3, float(10 * k))));
  }
  for (const auto& [k, t] : cache) run.see(t);
}

TRAP("side effects of the host on every call", "tf.function, JAX: prints and appends happen once",
     reads_run) {
  std::vector<float> log;
  int calls = 0;
  auto f = run.wrap([&](Tensor x) {
    ++calls;
    const Tensor loss = x.square().sum();
    log.push_back(loss.item<float>());
    return loss * 0.5f;
  });
  for (int i = 0; i < 5; ++i) run.see(f(range(3, float(i))));
  for (const float v : log) run.see(v);
  run.see(calls);
}
