// Activation checkpointing: gradients bit for bit, memory, random numbers, nesting, what it notices.
#include "tandem/eager/checkpoint.h"

#include <algorithm>
#include <set>
#include <thread>

#include "tandem/core/allocator.h"
#include "tandem/eager/autograd_function.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

using Values = std::vector<float>;
void append(Values& out, const Tensor& t) {
  for (const float v : t.to_vector<float>()) out.push_back(v);
}

struct Block : nn::Module {
  explicit Block(double p = 0) : p(p) {}
  double p;
  nn::Linear a = child<nn::Linear>("a", 6, 12);
  nn::Linear b = child<nn::Linear>("b", 12, 6);
  Tensor forward(const Tensor& x) { return x + b(dropout(gelu(a(x)), p)); }
  Tensor operator()(const Tensor& x) { return forward(x); }
};

/// Calls `f`, checkpointed or as it is.
template <class F, class... Args>
auto maybe(bool on, F&& f, const Args&... args) {
  return on ? checkpoint(f, args...) : f(args...);
}

/// A product that saves both factors, whether `w` is an input or captured.
Tensor times(const Tensor& x, const Tensor& w, bool captured) {
  const auto forward = [w](autograd::Context& c, const TensorList& in) -> TensorList {
    c.save_for_backward({in[0], w});
    return {in[0] * w};
  };
  const auto backward = [captured](autograd::Context& c, const TensorList& g) -> TensorList {
    if (captured) return {g[0] * c.saved()[1]};
    return {g[0] * c.saved()[1], g[0] * c.saved()[0]};
  };
  return autograd::apply(forward, backward, captured ? TensorList{x} : TensorList{x, w})[0];
}

struct Square : autograd::Function<Square> {
  static Tensor forward(autograd::Context& c, const Tensor& x) {
    c.save_for_backward({x});
    return x * x;
  }
  static Tensor backward(autograd::Context& c, const TensorList& g) { return g[0] * c.saved()[0] * 2.0; }
};
struct Exponential : autograd::Function<Exponential> {
  static Tensor forward(autograd::Context& c, const Tensor& x) {
    Tensor y = exp(x);
    c.save_for_backward({y});
    return y;
  }
  static Tensor backward(autograd::Context& c, const TensorList& g) { return g[0] * c.saved()[0]; }
};

/// Gradients of everything after two steps of a stack of blocks.
Values stacked(bool on, double p, bool nested = false) {
  manual_seed(4);
  Block first(p), second(p), third(p);
  Tensor x = randn({5, 6}).requires_grad_();
  Values out;
  for (int step = 0; step < 2; ++step) {
    Tensor y;
    if (nested) {
      y = maybe(
          on,
          [&](const Tensor& in) {
            const Tensor h = maybe(on, first, in);
            const Tensor k = maybe(
                on, [&](const Tensor& t) { return maybe(on, third, maybe(on, second, t)); }, h);
            return tanh(k);
          },
          x);
    } else {
      y = tanh(maybe(on, third, maybe(on, second, maybe(on, first, x))));
    }
    y.square().sum().backward();
    append(out, y);
  }
  append(out, x.grad());
  for (Block* b : {&first, &second, &third})
    for (const Tensor& w : b->parameters()) append(out, w.grad());
  out.push_back(static_cast<float>(default_generator().offset()));
  return out;
}

}  // namespace

TEST_CASE("checkpoint: values, gradients and random numbers are those without, bit for bit", "[checkpoint]") {
  for (const double p : {0.0, 0.4}) {
    const Values wanted = stacked(false, p);
    CHECK(stacked(true, p) == wanted);
    const Values nested = stacked(false, p, true);
    CHECK(nested == wanted);
    CHECK(stacked(true, p, true) == wanted);
  }
}

TEST_CASE("checkpoint: inner values are freed after the forward", "[checkpoint]") {
  const auto held = [](bool on) {
    const Tensor x = ones({1 << 18}).requires_grad_();  // 1 MiB
    const int64_t before = core::allocator_stats().live_bytes;
    const Tensor y = maybe(
        on,
        [](const Tensor& t) {
          Tensor h = t;
          for (int i = 0; i < 10; ++i) h = sin(h);
          return h;
        },
        x);
    const int64_t now = core::allocator_stats().live_bytes - before;
    y.sum().backward();
    CHECK(x.grad().defined());
    return static_cast<double>(now) / (1 << 20);
  };
  CHECK(held(false) > 9);
  CHECK(held(true) < 2.5);
}

TEST_CASE("checkpoint: one block's values at a time are there in backward", "[checkpoint]") {
  const auto most = [](int nested) {
    int64_t most = 0;
    const auto look = [&](const Tensor&) { most = std::max(most, core::allocator_stats().live_bytes); };
    const Tensor x = ones({1 << 18}).requires_grad_();  // 1 MiB
    const int64_t before = core::allocator_stats().live_bytes;
    const auto block = [&](const Tensor& t) {
      Tensor h = t;
      for (int i = 0; i < 8; ++i) {
        h = sin(h);
        if (!autograd::recomputing()) h.register_hook(look);
      }
      return h;
    };
    const auto blocks = [&](const Tensor& t) {
      Tensor h = t;
      for (int i = 0; i < 8; ++i) h = nested > 0 ? checkpoint(block, h) : block(h);
      return h;
    };
    Tensor y = nested == 2 ? checkpoint(blocks, x) : blocks(x);
    y = y.sum();
    y.backward();
    return static_cast<double>(most - before) / (1 << 20);
  };
  const double plain = most(0), blocks = most(1), both = most(2);
  CAPTURE(plain, blocks, both);
  CHECK(plain > 60);
  CHECK(blocks < 22);  // the blocks' inputs, the values of one block, gradients
  CHECK(both < 24);
}

TEST_CASE("checkpoint: several arguments and results, captured tensors, arguments without gradient",
          "[checkpoint]") {
  const auto run = [](bool on) {
    manual_seed(9);
    Tensor a = randn({4}).requires_grad_(), w = randn({4}).requires_grad_();
    const Tensor c = randn({4});
    const std::vector<Tensor> list{randn({4}).requires_grad_(), c};
    const auto f = [w](const Tensor& x, const std::vector<Tensor>& l, double scale) {
      const Tensor s = exp(x * w) * scale;
      return std::pair(s * l[0], tanh(s + l[1]));
    };
    const auto [p, q] = maybe(on, f, a, list, 0.5);
    p.sum().backward({}, true);
    (q.sum() + p.sum()).backward();
    Values out;
    for (const Tensor& t : {p, q, a.grad(), w.grad(), list[0].grad()}) append(out, t);
    return out;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("checkpoint: second derivatives", "[checkpoint]") {
  const auto run = [](bool on) {
    Tensor x = full({3}, 0.7).requires_grad_();
    const auto f = [](const Tensor& t) { return sin(t * t) * t; };
    const std::vector<Tensor> y{maybe(on, f, x).sum()}, of{x};
    const Tensor g = autograd::grad(y, of, {}, false, true)[0];
    g.square().sum().backward();
    Values out;
    append(out, g);
    append(out, x.grad());
    return out;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("checkpoint: the second call has the modes of the first, and says that it is one", "[checkpoint]") {
  std::vector<uint8_t> modes_seen;
  std::vector<bool> recomputing;
  Tensor w = ones({2, 2}).requires_grad_();
  const auto f = [&](const Tensor& x) {
    modes_seen.push_back(modes().autocast);
    recomputing.push_back(autograd::recomputing());
    CHECK((modes().grad || modes_seen.size() == 3));
    return matmul(x, w);
  };
  Tensor y;
  {
    const Autocast region(bfloat16);
    y = checkpoint(f, ones({2, 2}));
  }
  CHECK(y.dtype() == bfloat16);
  y.to(float32).sum().backward();
  REQUIRE(modes_seen.size() == 2);
  CHECK(modes_seen[0] == modes_seen[1]);
  CHECK(recomputing == std::vector<bool>{false, true});
  CHECK(w.grad().to_vector<float>() == Values{2, 2, 2, 2});
  const NoGrad no_grad;
  CHECK_FALSE(checkpoint(f, ones({2, 2})).requires_grad());
}

TEST_CASE("checkpoint: custom functions and hooks", "[checkpoint]") {
  const auto run = [](bool on) {
    Tensor x = full({3}, 0.3).requires_grad_();
    int hooks = 0;
    const auto f = [&](const Tensor& t) {
      const Tensor squared = autograd::apply(
          [](autograd::Context& c, const TensorList& in) -> TensorList {
            c.save_for_backward({in[0] * 1.0});
            return {in[0] * in[0]};
          },
          [](const autograd::Context& c, const TensorList& g) -> TensorList {
            return {g[0] * c.saved()[0] * 2.0};
          },
          {exp(t)})[0];
      squared.register_hook([&](const Tensor&) { ++hooks; });
      return squared;
    };
    maybe(on, f, x).sum().backward();
    CHECK(hooks == 1);
    Values out;
    append(out, x.grad());
    return out;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("checkpoint: a tensor that was changed in between is noticed", "[checkpoint]") {
  const auto after = [](auto change, bool w_wants_gradient = true) {
    Tensor x = ones({3}).requires_grad_(), w = full({3}, 2.0).requires_grad_(w_wants_gradient);
    const Tensor in = x * 1.0;
    const Tensor y = checkpoint([&](const Tensor& t) { return exp(t * w); }, in);
    {
      const NoGrad no_grad;
      change(in, w);
    }
    return message([&] { y.sum().backward(); });
  };
  CHECK(after([](const Tensor&, const Tensor&) {}) == "no error");
  CHECK_THAT(after([](const Tensor& in, const Tensor&) { in.add_(1); }),
             Contains("argument 0 was changed in place"));
  CHECK_THAT(after([](const Tensor&, const Tensor& w) { w.add_(1); }), Contains("changed in place"));
  CHECK_THAT(after([](const Tensor&, const Tensor& w) { w.add_(1); }, false), Contains("changed in place"));
}

TEST_CASE("checkpoint: a function that does something else the second time is an error", "[checkpoint]") {
  Tensor x = ones({3}).requires_grad_();
  int calls = 0;
  const Tensor fewer = checkpoint([&](const Tensor& t) { return ++calls == 1 ? exp(sin(t)) : exp(t); }, x);
  CHECK_THAT(message([&] { fewer.sum().backward(); }), Contains("2 with gradients before, 1 now"));
  calls = 0;
  const Tensor other = checkpoint([&](const Tensor& t) { return ++calls == 1 ? exp(t) : sin(t); }, x);
  CHECK_THAT(message([&] { other.sum().backward(); }), Contains("exp before, sin"));
  const Tensor throwing = checkpoint(
      [&](const Tensor& t) {
        if (autograd::recomputing()) fail("again");
        return exp(t);
      },
      x);
  CHECK_THAT(message([&] { throwing.sum().backward(); }), Contains("again"));
  CHECK_FALSE(autograd::recomputing());
  CHECK(modes().grad);
}

TEST_CASE("checkpoint: what is never used again frees everything", "[checkpoint]") {
  const int64_t before = core::allocator_stats().live_bytes;
  {
    Tensor x = ones({1 << 18}).requires_grad_();
    const Tensor y = checkpoint([](const Tensor& t) { return sin(exp(t)); }, x);
    const Tensor z = checkpoint([](const Tensor& t) { return sin(exp(t)); }, y);
    z.sum().backward({}, true);
    z.sum().backward();
  }
  CHECK(core::allocator_stats().live_bytes - before < (1 << 19));
}

TEST_CASE("checkpoint: running statistics move once", "[checkpoint]") {
  Values found[2];
  for (const bool on : {false, true}) {
    manual_seed(4);
    nn::BatchNorm1d norm(3);
    const Tensor x = randn({5, 3}).requires_grad_();
    maybe(
        on, [&](const Tensor& in) { return tanh(norm(in)); }, x)
        .sum()
        .backward();
    CHECK(norm.num_batches_tracked.item<int64_t>() == 1);
    for (const Tensor& t : {norm.running_mean, norm.running_var, norm.weight.grad(), x.grad()})
      append(found[on], t);
  }
  CHECK(found[0] == found[1]);
}

TEST_CASE("checkpoint: a changed tensor is noticed though no gradient needs it", "[checkpoint]") {
  for (const bool wants_gradient : {true, false}) {
    Tensor x = ones({1}).requires_grad_(), b = zeros({1}).requires_grad_(wants_gradient);
    const auto f = [&](const Tensor& t) { return sin(t * 1.0 + b); };
    const Tensor y = checkpoint(f, x), z = checkpoint([&](const Tensor&t) { return checkpoint(f, t); }, x);
    {
      const NoGrad no_grad;
      b.add_(1);
    }
    CHECK_THAT(message([&] { y.sum().backward(); }), Contains("a tensor that add uses was changed in place"));
    CHECK_THAT(message([&] { z.sum().backward(); }), Contains("a tensor that add uses was changed in place"));
    CHECK_FALSE(x.grad().defined());
  }
}

TEST_CASE("checkpoint: a changed tensor that a custom function saved is noticed", "[checkpoint]") {
  for (const bool captured : {false, true})
    for (const bool nested : {false, true}) {
      Tensor x = ones({1}).requires_grad_(), w = full({1}, 2.0).requires_grad_();
      const auto f = [&](const Tensor& t) { return times(t * 1.0, w, captured); };
      const auto twice = [&](const Tensor& t) { return nested ? checkpoint(f, t) : f(t); };
      const Tensor same = checkpoint(twice, x), y = checkpoint(twice, x);
      same.sum().backward();
      CHECK(x.grad().to_vector<float>() == Values{2});
      {
        const NoGrad no_grad;
        w.add_(1);
      }
      CHECK_THAT(message([&] { y.sum().backward(); }), Contains("custom function uses was changed in place"));
    }
}

TEST_CASE("checkpoint: a tensor that the function makes and changes is its own affair", "[checkpoint]") {
  const auto run = [](bool on) {
    Tensor x = full({4}, 0.3).requires_grad_();
    const auto f = [](const Tensor& t) {
      Tensor sum = zeros({4});
      for (int i = 0; i < 5; ++i) sum.add_(sin(t * (1.0 + i)));
      Tensor h = t * 2.0;
      h.mul_(3.0);
      return exp(h) * sum;
    };
    const Tensor y = maybe(on, f, x), z = maybe(on, f, x);
    (y * z).sum().backward();
    Values out;
    append(out, x.grad());
    return out;
  };
  CHECK(run(true) == run(false));
}

TEST_CASE("checkpoint: blocks that add to one sum, which is read outside or inside", "[checkpoint]") {
  const auto run = [](bool on, bool read) {
    Tensor x = full({4}, 0.3).requires_grad_(), sum = zeros({4});
    const auto block = [&](const Tensor& t) {
      sum.add_(sin(t * 2.0));
      return read ? exp(t) * sum : exp(t);
    };
    const Tensor y = maybe(on, block, maybe(on, block, x));
    const Tensor loss = (y + sum * 0.5).sum();
    loss.backward();
    Values out;
    append(out, x.grad());
    return out;
  };
  CHECK(run(true, false) == run(false, false));
  CHECK_THAT(message([&] { (void)run(true, true); }), Contains("changed in place"));
}

TEST_CASE("checkpoint: a function that changes an argument in place is refused and leaves nothing behind",
          "[checkpoint]") {
  const int64_t before = core::allocator_stats().live_bytes;
  {
    const Tensor x = ones({1 << 16}).requires_grad_();
    const Tensor argument = x * 1.0, untouched = x * 1.0;
    const auto changes = [](const Tensor& t) { return t.mul_(2.0), exp(t); };
    CHECK_THAT(message([&] { (void)checkpoint(changes, argument); }),
               Contains("the function changes argument 0 in place"));
    CHECK_THAT(message([&] { argument.sum().backward(); }), !Contains("changed in place between"));
    const auto throws = [](const Tensor& t) -> Tensor {
      t.mul_(t);
      fail("stop");
    };
    CHECK_THAT(message([&] { (void)checkpoint(throws, untouched); }), Contains("stop"));
    CHECK_THAT(message([&] { untouched.sum().backward(); }), Contains("the function threw an exception"));
  }
  CHECK(core::allocator_stats().live_bytes - before < (1 << 14));
}

TEST_CASE("checkpoint: second derivatives through custom functions", "[checkpoint]") {
  const auto inner = [](const Tensor& t) { return Exponential::apply(Square::apply(sin(t))); };
  for (int form = 0; form < 4; ++form) {
    const auto run = [&](bool on) {
      Tensor x = full({3}, 0.5).requires_grad_();
      const auto f = [&](const Tensor& t) -> Tensor {
        if (form == 0) return Square::apply(sin(t));
        if (form == 1) return Exponential::apply(Square::apply(Square::apply(t)));
        if (form == 2) return Square::apply(maybe(on, inner, cos(t))) * t;
        return maybe(
            on, [&](const Tensor& u) { return times(u, u * t, false) * maybe(on, inner, exp(u)); }, cos(t));
      };
      const TensorList y{maybe(on, f, x).sum()}, of{x};
      const Tensor g = autograd::grad(y, of, {}, false, true)[0];
      const TensorList g_sum{g.square().sum()};
      const Tensor h = autograd::grad(g_sum, of, {}, false, true)[0];
      h.sum().backward();
      Values out;
      for (const Tensor& t : {g, h, x.grad()}) append(out, t);
      return out;
    };
    CAPTURE(form);
    CHECK(run(true) == run(false));
  }
}

TEST_CASE("checkpoint: what a function was given lives until those within it have run again",
          "[checkpoint]") {
  static std::set<const void*> alive;
  struct Given {
    Given() { alive.insert(this); }
    Given(const Given&) : Given() {}
    ~Given() { alive.erase(this); }
  };
  int64_t calls = 0, gone = 0;
  const auto outer = [&](const Tensor& t, const Given& given) {
    const auto inner = [&](const Tensor& u) {
      ++calls;
      gone += !alive.contains(&given);
      return exp(sin(u));
    };
    return checkpoint(inner, cos(t));
  };
  checkpoint(outer, full({3}, 0.5).requires_grad_(), Given()).sum().backward();
  CHECK(calls == 3);
  CHECK(gone == 0);
  CHECK(alive.empty());
}

TEST_CASE("checkpoint: autograd::grad within the function", "[checkpoint]") {
  for (const bool create : {true, false}) {
    const auto run = [&](bool on, bool nested = false) {
      manual_seed(3);
      Tensor x = full({4}, 0.5).requires_grad_();
      const auto f = [&](const Tensor& t) {
        // What frees its tape must not reach that of the argument.
        const Tensor start = create ? t : t.detach().requires_grad_();
        const Tensor u = dropout(sin(start), 0.5);
        const TensorList ys{exp(u * u).sum()}, xs{u};
        const Tensor g = autograd::grad(ys, xs, {}, create, create)[0];
        return (g * dropout(tanh(t), 0.5)).sum();
      };
      maybe(
          on, [&](const Tensor& t) { return nested ? maybe(on, f, t * 1.0) * 2.0 : f(t * 1.0) * 2.0; }, x)
          .backward();
      Values out;
      append(out, x.grad());
      out.push_back(static_cast<float>(default_generator().offset()));
      return out;
    };
    CAPTURE(create);
    CHECK(run(true) == run(false));
    CHECK(run(true, true) == run(false));
  }
}

TEST_CASE("checkpoint: other threads draw on while a function runs again", "[checkpoint]") {
  manual_seed(5);
  const Tensor x = ones({64}).requires_grad_();
  uint64_t drawn = 0;
  const auto f = [&](const Tensor& t) {
    if (autograd::recomputing()) std::thread([&] { drawn = default_generator().advance(1); }).join();
    return exp(dropout(t, 0.5));
  };
  const Tensor y = checkpoint(f, x);
  const uint64_t now = default_generator().offset();
  y.sum().backward();
  CHECK(drawn == now);
  CHECK(default_generator().offset() == now + 1);
}
