// Traps of options: every kind of attribute and number that an op takes from the host, changing between
// calls.
#include <limits>

#include "tests/contract/trap.h"

using namespace programs;

TRAP("flags, axes and reductions of library functions change", "torch.jit.trace, tinygrad: frozen options",
     compare_attributes, HostState{"captured numbers and flags"}) {
  Tensor w = leaf(4), weight = leaf(4, 2), bias = leaf(4, 3);
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor h = x * w;
    Tensor y = td::gelu(h, i % 2);
    y = td::layer_norm(y, 1 + i / 2 % 2, i / 2 % 2 ? Tensor() : weight, i % 3 ? bias * 1.f : Tensor());
    y = td::softmax(y, i % 3 == 1 ? 0 : 1);
    y = y.var({i % 2}, i / 3 % 2, true) + y.permute({0, 1}).cumsum(i % 2);
    Tensor loss = td::mse_loss(y, y * 0.5f, i % 4 == 3 ? td::Reduction::sum : td::Reduction::mean);
    for (const Tensor& t : {w, weight, bias}) t.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (const int k : {0, 0, 1, 2, 3, 4, 5, 1, 6, 7, 0, 3, 11, 5}) {
    i = k;
    run.attempt([&] {
      if (i / 2 % 2 && i % 3) return;  // a bias of one axis does not fit two
      run.see(f(range(8, float(i)).view({2, 4}) * 0.1f));
      for (const Tensor& t : {w, weight, bias}) run.see(t.grad());
    });
  }
}

TRAP("numbers of library functions change", "pytorch #120934: floats are guards or frozen", store_scalars) {
  Tensor w = leaf(4);
  double a = 0;
  int64_t skip = 0;
  auto f = run.wrap([&](Tensor x, Tensor labels) {
    const Tensor h = td::clamp((x * w).view({2, 2}), -a, a + 1);
    Tensor y = h.masked_fill(h > 0.5f, a) + td::where(h < a, a, h) + td::full({2, 2}, a) + td::maximum(h, -a);
    y = td::layer_norm(y, 1, {}, {}, 1e-3 + a);
    Tensor loss = td::cross_entropy(y, labels, td::Reduction::mean, skip);
    w.zero_grad();
    loss.backward();
    return loss.detach();
  });
  for (int i = 0; i < 8; ++i) {
    a = i * 0.3;
    skip = i % 2;
    run.see(f(td::sin(range(4, float(i))), td::tensor<int64_t>({0, 1})));
    run.see(w.grad());
  }
  run.claim(f, [](const auto& r) { return r.recorded == 1; });
}

TRAP("a bound of clamp that is there in some calls", "None is frozen", store_scalars) {
  Tensor w = leaf(4);
  std::optional<double> low, high;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = td::clamp(x * w, low, high) * 2.f;
    w.zero_grad();
    y.sum().backward();
    return y.detach();
  });
  for (int i = 0; i < 9; ++i) {
    low = i % 3 != 1 ? std::optional(-0.5) : std::nullopt;
    high = i % 3 != 2 ? std::optional(0.5 * i) : std::nullopt;
    run.see(f(td::sin(range(4, float(i)))));
    run.see(w.grad());
  }
}

TRAP("sizes of tensors that the body makes follow the host", "JAX: shapes are static", compare_attributes,
     HostState{"a captured number, the size of what the body makes"}) {
  int64_t n = 2;
  auto f = run.wrap([&](Tensor x) {
    return td::zeros({n}) + td::arange(0, double(n)) + td::rand({n}) + td::full({n, n}, 2.0).sum({0}) * x;
  });
  for (const int64_t k : {2, 2, 4, 1, 4, 2, 3}) {
    n = k;
    run.see(f(range(1)));
  }
}

TRAP("options of random ops change", "CUDA graphs: frozen bounds", store_scalars) {
  Tensor w = td::empty({4});
  double a = 1;
  int64_t high = 5;
  auto f = run.wrap([&](Tensor x) {
    w.normal_(a, 2 * a);
    const Tensor u = td::empty({4}).uniform_(-a, a), b = td::empty({4}).bernoulli_(0.1 * a);
    return w + u * 10.f + b * 100.f + td::randint(1, high, {4}).to(td::float32) * 1000.f + x;
  });
  for (int i = 0; i < 7; ++i) {
    a = 1 + i;
    high = 5 + 3 * i;
    run.see(f(range(4)));
  }
}

TRAP("numbers that are special", "0, 1, -0, infinities and NaN are folded or guarded by value",
     store_scalars) {
  Tensor w = leaf(3);
  double a = 1;
  auto f = run.wrap([&](Tensor x) {
    const Tensor y = x * a + (w - a) / a;
    w.zero_grad();
    y.sum().backward();
    return y.detach();
  });
  const double inf = std::numeric_limits<double>::infinity();
  for (const double v : {1., 0., -0., 1., inf, -inf, 1e-45, 1e300, -1., std::nan(""), 2., 0.}) {
    a = v;
    run.see(f(range(3, -1)));
    run.see(w.grad());
  }
}

TRAP("a dtype and an axis of what is made and joined", "frozen options", compare_attributes) {
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const td::DType type = i % 3 == 1 ? td::float64 : td::float32;
    const Tensor a = td::ones({2, 2}, {.dtype = type}) * x, b = x.t().to(type);
    const Tensor list[] = {a, b};
    return td::stack(list, i % 2).sum({i % 3}) + td::cat(list, i % 2).sum();
  });
  for (i = 0; i < 12; ++i) run.see(f(range(4, float(i)).view({2, 2})));
}

TRAP("a transpose by axes of the host, changed in place", "views of the host's choice", compare_attributes) {
  Tensor m = range(8).view({2, 2, 2});
  int i = 0;
  auto f = run.wrap([&](Tensor x) {
    const Tensor v = m.transpose(i % 2, 2).select(i % 3, i / 3 % 2);
    v.add_(x);
    return v.flatten() * 1.f;
  });
  for (i = 0; i < 12; ++i) run.see(f(range(2)));
  run.see(m);
}
