// Programs at the edges of the rules, traced against eager: accumulators changed in place, exceptions in
// hooks, results that are arguments, captured tensors of another batch size, nesting, threads, recursion.
#include <mutex>
#include <thread>

#include "tests/contract/trap.h"

using namespace programs;
using td::Tensor;

TEST_CASE("contract cases: an exception in a hook leaves what eager mode leaves", "[contract]") {
  for (const bool on_leaf : {false, true}) {
    for (const bool caught : {false, true}) {
      CAPTURE(on_leaf);
      CAPTURE(caught);
      CHECK(same([&](bool traced) {
        Tensor w = leaf(3), v = leaf(3, 2);
        bool fail = false;
        const auto hook = [&](const Tensor& g) {
          if (fail) throw std::runtime_error("hook");
          return g * 2.f;
        };
        if (on_leaf) v.register_hook(hook);
        auto f = wrapped(traced, [&](Tensor x) {
          Tensor h = x * w;
          if (!on_leaf) h.register_hook(hook);
          Tensor loss = (h * v).sum();
          if (caught) {
            try {
              loss.backward();
            } catch (const std::runtime_error&) {
              return loss.detach() * -1.f;
            }
          } else {
            loss.backward();
          }
          return loss.detach();
        });
        Values out;
        for (int i = 0; i < 10; ++i) {
          fail = i == 0 || i == 3 || i == 4 || i == 7;
          if (i % 3 == 0) w.zero_grad(), v.zero_grad();
          try {
            append(out, f(range(3, float(i))));
          } catch (const std::runtime_error& e) {
            out.push_back(e.what() == std::string("hook") ? -7 : -8);
          }
          append(out, w.grad());
          append(out, v.grad());
        }
        return out;
      }));
    }
  }
}

TEST_CASE("contract cases: an argument returned as it is, changed in place or not", "[contract]") {
  for (const int kind : {0, 1, 2, 3}) {
    CAPTURE(kind);
    CHECK(same([&](bool traced) {
      auto body = [&](Tensor a, Tensor b) {
        if (kind & 1) a.add_(b);
        const Tensor unused = a * 2.f;
        return kind & 2 ? std::vector<Tensor>{b, a, a} : std::vector<Tensor>{a};
      };
      auto traced_body = td::trace(body);
      Values out;
      std::vector<Tensor> kept;
      for (int i = 0; i < 5; ++i) {
        const Tensor a = range(3, float(i)), b = range(3, 7);
        const std::vector<Tensor> r = traced ? traced_body(a, b) : body(a, b);
        for (const Tensor& t : r) {
          append(out, t);
          out.push_back(t.impl() == a.impl());
          out.push_back(t.impl() == b.impl());
          t.add_(1.f);
          kept.push_back(t);
        }
        append(out, a);
      }
      for (const Tensor& t : kept) append(out, t);
      return out;
    }));
  }
}

TEST_CASE("contract cases: a result handed back as the next call's argument", "[contract]") {
  for (const bool grad : {false, true}) {
    CAPTURE(grad);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(3);
      auto f = wrapped(traced, [&](Tensor x) { return grad ? td::tanh(x * w) : (x * w).detach(); });
      Values out;
      Tensor h = range(3);
      for (int i = 0; i < 6; ++i) {
        h = f(h);
        append(out, h.detach());
        out.push_back(h.requires_grad());
      }
      if (grad) {
        h.sum().backward();
        append(out, w.grad());
      }
      return out;
    }));
  }
}

TEST_CASE("contract cases: a captured tensor is replaced by one of another batch size, and back",
          "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(3), mask = td::ones({4, 3});
    auto f = wrapped(traced, [&](Tensor x) {
      Tensor loss = (x * w * mask).mean();
      w.zero_grad();
      loss.backward();
      return loss.detach();
    });
    Values out;
    for (const int64_t batch : {4, 4, 7, 7, 1, 1, 4, 7, 2, 2}) {
      if (mask.size(0) != batch) mask = td::ones({batch, 3}) * float(batch);
      append(out, f(range(batch * 3).view({batch, 3})));
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("contract cases: a captured tensor is resized while the argument is not", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor batch = range(6).view({2, 3});
    auto f = wrapped(traced, [&](Tensor x) { return (batch * x).sum() + float(batch.size(0)); });
    Values out;
    for (const int64_t n : {2, 2, 2, 5, 5, 5, 2, 1, 1, 5, 2}) {
      batch = range(n * 3, float(n)).view({n, 3});
      append(out, f(range(3)));
    }
    return out;
  }));
}

TEST_CASE("contract cases: nested traced functions, alone and inside each other", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(3);
    float scale = 1;
    auto inner = wrapped(traced, [&](Tensor y) { return td::tanh(y * w) * scale; });
    auto middle = wrapped(traced, [&](Tensor y) {
      const Tensor a = inner(y);
      return a.sum().item<float>() > 0 ? inner(a) : a;
    });
    auto outer = wrapped(traced, [&](Tensor x) {
      Tensor loss = (inner(x) + middle(x)).sum();
      w.zero_grad();
      loss.backward();
      return loss.detach();
    });
    Values out;
    for (int i = 0; i < 6; ++i) {
      scale = i % 2 ? 1.f : -1.f;
      append(out, outer(range(3, float(i))));
      append(out, w.grad());
      append(out, inner(range(3)).detach());
      append(out, middle(range(3)).detach());
    }
    return out;
  }));
}

TEST_CASE("contract cases: an inner traced function throws and the outer one goes on", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = range(3);
    bool fail = false;
    auto inner = wrapped(traced, [&](Tensor y) {
      w.add_(y);
      if (fail) throw std::runtime_error("inner");
      return y * 2.f;
    });
    auto outer = wrapped(traced, [&](Tensor x) {
      Tensor y = x + 1.f;
      try {
        y = inner(y);
      } catch (const std::runtime_error&) {
        y = y - 100.f;
      }
      return y * w;
    });
    Values out;
    for (int i = 0; i < 8; ++i) {
      fail = i == 1 || i == 2 || i == 5;
      append(out, outer(range(3, float(i))));
      append(out, w);
    }
    return out;
  }));
}

TEST_CASE("contract cases: one traced function called from two threads", "[contract]") {
  Tensor w = range(8);
  auto f = td::trace([&](Tensor x) {
    Tensor y = td::tanh(x * w);
    if (y.sum().item<float>() > 0) y = y * 2.f;
    return y + x;
  });
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 2; ++t)
    threads.push_back(thread_of([&, t] {
      for (int i = 0; i < 100; ++i) {
        const Tensor x = range(8, float(t * 10 + i % 7 - 3)) * (i % 2 ? 0.1f : -0.1f);
        Tensor y = td::tanh(x * w);
        if (y.sum().item<float>() > 0) y = y * 2.f;
        const Values expected = (y + x).to_vector<float>();
        if (!equal_bits(f(x).to_vector<float>(), expected)) ++wrong;
      }
    }));
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
  CHECK(f.report().calls == 200);
}

TEST_CASE("contract cases: two threads train with one traced step, taking turns", "[contract]") {
  Tensor w = td::zeros({4}).requires_grad_();
  auto step = td::trace([&](Tensor x) {
    Tensor loss = (x * w).sum();
    w.zero_grad();
    loss.backward();
    td::NoGrad no_grad;
    w.sub_(w.grad());
    return loss.detach();
  });
  std::mutex turn;  // as the bare function would need one
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.push_back(thread_of([&] {
      for (int i = 0; i < 50; ++i) {
        const std::lock_guard lock(turn);
        step(td::ones({4}));
      }
    }));
  for (std::thread& t : threads) t.join();
  // Each call subtracts the gradient, which is 1.
  CHECK(w.detach().to_vector<float>() == Values{-100, -100, -100, -100});
}

TEST_CASE("contract cases: a traced function that calls itself runs inside its own call", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(3);
    std::function<Tensor(Tensor)> f;
    int depth = 0, most = 3;
    auto body = [&](Tensor x) -> Tensor {
      Tensor y = td::tanh(x * w);
      if (++depth < most) y = f(y) + y;
      --depth;
      return y;
    };
    f = wrapped(traced, body);
    Values out;
    for (int i = 0; i < 8; ++i) {
      most = i < 3 ? 3 : i < 5 ? 1 : 4;
      depth = 0;
      w.zero_grad();
      const Tensor y = f(range(3, float(i)));
      append(out, y.detach());
      y.sum().backward();
      append(out, w.grad());
    }
    return out;
  }));
}
