// A program's own ops in traced calls: formulas, functions with a gradient of their own, kernels, and tensors
// shared by DLPack.
#include <cmath>

#include "tests/contract/trap.h"

using namespace programs;

namespace {

const td::Kernel& mirrored() {
  static const td::Kernel kernel({.name = "mirrored",
                                  .inputs = {"x", "scale"},
                                  .outputs = {"y"},
                                  .cuda = "y[thread] = x[count - 1 - thread] * (float)scale[0];",
                                  .cpu = [](const td::KernelCall& k) {
                                    const int64_t n = k.in_sizes()[0];
                                    const auto scale = static_cast<float>(*k.input<double>(1));
                                    for (int64_t i = 0; i < n; ++i)
                                      k.output<float>()[i] = k.input<float>()[n - 1 - i] * scale;
                                  }});
  return kernel;
}

struct Mirrored : td::autograd::Function<Mirrored> {
  static Tensor forward(td::autograd::Context& c, const Tensor& x, double scale) {
    c.saved_data["scale"] = scale;
    return mirrored()(x, scale);
  }
  static td::TensorList backward(td::autograd::Context& c, const td::TensorList& g) {
    return {mirrored()(g[0], std::any_cast<double>(c.saved_data.at("scale"))), Tensor()};
  }
};

struct Cube : td::autograd::Function<Cube> {
  static inline int forwards = 0, backwards = 0;
  static inline float slope = 1;
  static Tensor forward(td::autograd::Context& c, const Tensor& x) {
    ++forwards;
    c.save_for_backward({x});
    return x * x * x;
  }
  static Tensor backward(td::autograd::Context& c, const td::TensorList& g) {
    ++backwards;
    return g[0] * td::square(c.saved()[0]) * slope;
  }
};

}  // namespace

TRAP("a pointwise op of the program's own, with a number that changes", "captured numbers are constants",
     store_scalars, HostState{"a captured number"}) {
  const auto f = td::pointwise("swish", [](auto x, auto beta) { return x * td::sigmoid(x * beta); });
  Tensor w = leaf(3);
  double beta = 1;
  auto step = run.wrap([&](Tensor x) {
    const Tensor h = f(x * w + 1.f, beta);
    w.zero_grad();
    (h * 2.f).sum().backward();
    return h.detach();
  });
  for (int i = 0; i < 6; ++i) {
    beta = 1 + 0.5 * (i / 2);
    run.see(step(range(3, static_cast<float>(i))));
    run.see(w.grad());
  }
}

TRAP("second derivatives of a pointwise op of the program's own", "no double backward", tape_on_demand,
     HostState{"a captured flag"}) {
  const auto f = td::pointwise([](auto x, auto y) { return td::exp(-x * x) * y; });
  Tensor w = leaf(3);
  bool squared = false;
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = f(w, x);
    const Tensor g = td::autograd::grad({{y.sum()}}, {{w}}, {}, true, true)[0];
    w.zero_grad();
    (squared ? g.square() : g).sum().backward();
    return g.detach();
  });
  for (int i = 0; i < 6; ++i) {
    squared = i == 3;
    run.see(step(range(3, 0.25f * static_cast<float>(i))));
    run.see(w.grad());
  }
}

TRAP("a class with a gradient of its own, and host state in it", "custom functions are inlined or refused",
     tape_on_demand) {
  Tensor w = leaf(3);
  Cube::forwards = Cube::backwards = 0;
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = Cube::apply(x * w);
    w.zero_grad();
    y.sum().backward();
    return y.detach();
  });
  for (int i = 0; i < 6; ++i) {
    Cube::slope = static_cast<float>(i % 3);
    run.see(step(range(3, -1)));
    run.see(w.grad());
    run.see(Cube::forwards * 100 + Cube::backwards);
  }
}

TRAP("second derivatives of a class that saves its result", "the saved result is a constant",
     tape_on_demand) {
  struct Exponential : td::autograd::Function<Exponential> {
    static Tensor forward(td::autograd::Context& c, const Tensor& x) {
      const Tensor y = td::exp(x);
      c.save_for_backward({y});
      return y;
    }
    static Tensor backward(td::autograd::Context& c, const td::TensorList& g) { return g[0] * c.saved()[0]; }
  };
  Tensor w = leaf(3, -1);
  bool squared = false;
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = Exponential::apply(w * x);
    const Tensor g = td::autograd::grad({{y.sum()}}, {{w}}, {}, true, true)[0];
    w.zero_grad();
    (squared ? g.square() : g).sum().backward();
    return g.detach();
  });
  for (int i = 0; i < 6; ++i) {
    squared = i == 3;
    run.see(step(range(3, 0.25f * static_cast<float>(i))));
    run.see(w.grad());
  }
}

TRAP("a kernel of the program's own between other ops", "custom kernels break the graph", store_scalars,
     HostState{"a captured number"}) {
  double scale = 2;
  auto step = run.wrap([&](Tensor x) {
    const td::NoGrad no_grad;
    return mirrored()(x + 1.f, scale) * 3.f - x;
  });
  for (int i = 0; i < 6; ++i) {
    scale = 2 + i / 2;
    run.see(step(range(5 + i / 4, static_cast<float>(i))));
  }
  run.claim(step, [](const auto& r) { return r.op_by_op == 0; });
}

TRAP("a kernel with a gradient around it", "custom kernels have none", tape_on_demand) {
  Tensor w = leaf(4);
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = Mirrored::apply(x * w, 0.5);
    w.zero_grad();
    (y * x).sum().backward();
    return y.detach();
  });
  for (int i = 0; i < 5; ++i) {
    run.see(step(range(4, static_cast<float>(i))));
    run.see(w.grad());
  }
}

TRAP("a value is handed to another library inside the call", "pending memory is handed out", reads_run) {
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = x * 2.f;
    const Tensor seen = td::from_dlpack(td::to_dlpack(y));
    const float first = seen.to(td::cpu).data<float>()[0];
    return y + first;
  });
  for (int i = 0; i < 4; ++i) run.see(step(range(3, static_cast<float>(i))));
}

TRAP("captured memory is handed to another library, which writes to it", "stale exports", owed_pointers) {
  const td::NoGrad no_grad;
  Tensor w = td::ones({3});
  float next = 2;
  auto step = run.wrap([&](Tensor x) {
    const Tensor y = x * w;
    td::dlpack::ManagedTensorVersioned* shared = td::to_dlpack(w);
    const float values[] = {next, next, next};
    td::core::copy_in(*w.impl()->storage, values, sizeof values);
    shared->deleter(shared);
    return y;
  });
  for (int i = 0; i < 4; ++i, ++next) {
    run.see(step(range(3, static_cast<float>(i))));
    run.see(w);
  }
}
