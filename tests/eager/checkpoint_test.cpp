// Activation checkpointing: gradients bit for bit, memory, random numbers, nesting, what it notices.
#include "tandem/eager/checkpoint.h"

#include <algorithm>

#include "tandem/core/allocator.h"
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
