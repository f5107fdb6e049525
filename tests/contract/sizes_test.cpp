// Traps of sizes, positions and types of what comes in.
#include "tests/contract/trap.h"

using namespace programs;

TRAP("a last short batch", "pytorch #188150: a recompile a padding; CUDA graphs: a recording a size",
     argument_sizes) {
  Tensor w = leaf(3);
  td::optim::SGD opt({w}, {.lr = 0.01});
  auto step = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss.detach();
  });
  for (int epoch = 0; epoch < 3; ++epoch)
    for (const int64_t n : {4, 4, 4, 1 + epoch % 2}) run.see(step(td::sin(range(3 * n).view({n, 3}))));
  run.see(w);
}

TRAP("a sequence that grows by one in every call", "pytorch #97783: a recompile a length", argument_sizes) {
  const Tensor w = range(4).view({2, 2}) * 0.1f;
  auto f = run.wrap([&](Tensor x) { return td::softmax(td::matmul(x, w), 0).select(0, -1); });
  for (int64_t n = 0; n < 12; ++n) run.see(f(td::sin(range(2 * (n + 1)).view({n + 1, 2}))));
}

TRAP("a generated sequence that is its own next input", "MLX #4464: a live trace a shape", argument_sizes) {
  auto f = run.wrap([](Tensor x) {
    const Tensor next = td::tanh(x.sum() * 0.1f).view({1});
    return td::cat({x, next});
  });
  Tensor x = range(1);
  for (int i = 0; i < 10; ++i) x = f(x);
  run.see(x);
}

TRAP("a size is a number in the body",
     "MLX shapeless: the first size stays; torch.jit.trace: frozen integers", argument_sizes) {
  auto f = run.wrap([](Tensor x) {
    const int64_t n = x.size(0);
    return x.view({n / 2, 2}).sum({0}) / float(n) + float(n % 3);
  });
  for (const int64_t n : {4, 4, 6, 2, 10, 4, 6}) run.see(f(range(n)));
}

TRAP("the size of a captured tensor is a number in the body", "torch.jit.trace: frozen integers",
     slot_types) {
  Tensor table = range(4);
  auto f = run.wrap([&](Tensor x) { return table.sum() * x / float(table.size(0)); });
  for (int i = 0; i < 9; ++i) {
    if (i % 3 == 2) table = range(4 + i, float(i));
    run.see(f(range(2)));
  }
}

TRAP("sizes 0 and 1", "Dynamo, vllm #38933: 0 and 1 are special", argument_sizes) {
  Tensor w = leaf(1);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (x * w).sum() + (x.sum({0}, true) * 2.f).sum();
    w.zero_grad();
    loss.backward();
    return std::pair(loss.detach(), x * 2.f);
  });
  for (const int64_t n : {3, 3, 1, 0, 0, 1, 2, 3, 0}) {
    const auto [loss, y] = f(range(n));
    run.see(loss);
    run.see(y);
    run.see(w.grad());
  }
}

TRAP("a mean over nothing", "an empty batch", argument_sizes) {
  auto f = run.wrap([](Tensor x) {
    const Tensor m = x.mean();
    return std::pair(td::isnan(m), x * 2.f);  // a stale plan may read NaN by chance, but not the sizes
  });
  for (const int64_t n : {2, 0, 2, 0, 0, 5}) {
    const auto [nan, y] = f(range(n));
    run.see(nan);
    run.see(y);
  }
}

TRAP("the rank of a captured tensor changes", "JAX: a trace a rank", slot_types) {
  Tensor w;
  auto f = run.wrap([&](Tensor x) { return (w * x).sum({0}); });
  for (int i = 0; i < 8; ++i) {
    w = i % 3 ? range(6).view({2, 3}) : range(6);
    run.see(f(td::ones({1})));
  }
}

TRAP("an argument begins to be broadcast", "a size that becomes 1", argument_sizes) {
  const Tensor w = range(6).view({2, 3});
  auto f = run.wrap([&](Tensor x) { return (x * w).sum({0}); });
  for (int i = 0; i < 9; ++i)
    run.see(f(i % 3 == 0 ? range(3) : i % 3 == 1 ? range(1) : range(2).view({2, 1})));
}

TRAP("the type of an argument changes", "tinygrad: a mismatch is an error; MLX: a trace a dtype",
     argument_types) {
  auto f = run.wrap([](Tensor x) { return x * 2 + 1; });
  for (int i = 0; i < 10; ++i) {
    const td::DType types[] = {td::float32, td::float64, td::int64, td::bfloat16, td::float32};
    run.see(f(range(3).to(types[i % 5])));
  }
}

TRAP("the layout of an argument changes", "CUDA graphs, Dynamo: strides are guarded", argument_types) {
  auto f = run.wrap([](Tensor x) { return (x * 2.f).sum({1}) + x.select(1, 0); });
  for (int i = 0; i < 8; ++i) {
    const Tensor m = range(9).view({3, 3});
    run.see(f(i % 2 ? m.t() : m));
  }
}

TRAP("an argument begins to want a gradient", "tf.function: trainable is no part of the key",
     argument_types) {
  auto f = run.wrap([](Tensor x) {
    Tensor y = x.square().sum();
    if (x.requires_grad()) y.backward();
    return y;
  });
  for (int i = 0; i < 8; ++i) {
    const Tensor x = i % 3 == 1 ? leaf(3) : range(3);
    const Tensor y = f(x);
    run.see(y.requires_grad());
    run.see(y.detach());
    run.see(x.grad());
  }
}

TRAP("a window over captured data moves",
     "tinygrad: an integer index is a constant; JAX: a recompile a position", moving_slices) {
  const Tensor data = range(60);
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) { return (data.slice(0, at, at + 4) * x + data.select(0, at)).sum(); });
  for (int i = 0; i < 12; ++i) {
    at = (i * 17) % 50;
    run.see(f(range(4)));
  }
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("a window over a value of the body moves", "torch.jit.trace: starts of slices are frozen",
     compare_attributes) {
  int64_t at = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * 2.f;
    return y.slice(0, at, at + 3) + float(at);
  });
  for (int i = 0; i < 10; ++i) {
    at = (i * 5) % 7;
    run.see(f(range(10)));
  }
}

TRAP("a window becomes wider", "the shape of a slice follows the host", compare_attributes,
     HostState{"a captured number, the end of a slice"}) {
  int64_t width = 1;
  Tensor w = leaf(8);
  auto f = run.wrap([&](Tensor x) {
    Tensor loss = (w.slice(0, 0, width) * x).square().sum();
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (const int64_t n : {1, 1, 4, 4, 8, 1, 2, 8, 4}) {
    width = n;
    run.see(f(range(1)));
    run.see(w.grad());
  }
}

TRAP("an axis counted from the end, of tensors of several ranks", "negative axes are resolved once",
     slot_types) {
  Tensor x;
  auto f = run.wrap([&] { return td::softmax(x, -1).sum({-1}); });
  for (int i = 0; i < 9; ++i) {
    x = range(8);
    if (i % 3 == 1) x = x.view({2, 4});
    if (i % 3 == 2) x = x.view({2, 2, 2});
    run.see(f());
  }
}

TRAP("hundreds of sizes do not fill the memory", "MLX #4464: no eviction, 16 crashes; Mava #346",
     byte_bound) {
  auto f = run.wrap([](Tensor x) { return (x * 2.f).sum(); }, {.compile = false, .max_bytes = 200'000});
  for (int64_t n = 1; n < 300; ++n) {
    const Tensor y = f(range(n));
    if (n % 50 == 0) run.see(y);
  }
  run.see(f(range(3)));
  run.claim(f, [](const auto& r) { return r.record_bytes <= 200'000 && r.forgotten > 0; });
}
