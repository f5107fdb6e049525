// The tape: accumulation, retain_graph, create_graph, hooks, custom functions, in-place changes, long chains,
// errors.
#include "tandem/eager/autograd.h"

#include "tandem/eager/functions.h"
#include "tandem/eager/nn/clip.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::Tensor;

namespace {

std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }
Tensor leaf(std::initializer_list<float> v) { return td::tensor(v).requires_grad_(); }

using tandem::test::message;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("autograd: gradients add up over calls and are dropped by zero_grad", "[eager]") {
  Tensor w = leaf({1, 2});
  for (int i = 1; i <= 3; ++i) {
    (w * w).sum().backward();
    CHECK(values(w.grad()) == std::vector<float>{2.f * i, 4.f * i});
  }
  w.zero_grad();
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("autograd: the gradients of two leaves of one sum do not share memory", "[eager]") {
  Tensor a = leaf({1, 2}), b = leaf({3, 4});
  (a + b).sum().backward();
  CHECK(a.grad().impl()->storage != b.grad().impl()->storage);
  a.grad().mul_(5.f);
  CHECK(values(b.grad()) == std::vector<float>{1, 1});
}

TEST_CASE("autograd: an operand that needs no gradient gets none, whichever it is", "[eager]") {
  for (const int which : {1, 2, 3}) {
    Tensor a = td::tensor({1.f, 2.f}), b = td::tensor({3.f, 4.f});
    if (which & 1) a.requires_grad_();
    if (which & 2) b.requires_grad_();
    (td::tanh(a) + td::tanh(b)).sum().backward();
    CHECK(a.grad().defined() == ((which & 1) != 0));
    CHECK(b.grad().defined() == ((which & 2) != 0));
  }
}

TEST_CASE("autograd: a freed tape is an error that names the op's line; retain_graph keeps it", "[eager]") {
  Tensor w = leaf({1, 2});
  const Tensor loss = td::exp(w).sum();
  loss.backward({}, true);
  loss.backward();
  const std::string text = message([&] { loss.backward(); });
  CHECK(contains(text, "freed by an earlier backward"));
  CHECK(contains(text, "autograd_test.cpp"));
}

TEST_CASE("autograd: second derivatives through create_graph", "[eager]") {
  Tensor w = leaf({2, 3});
  const Tensor loss = td::pow(w, 3).sum();
  const Tensor outs[] = {loss}, ins[] = {w};
  const Tensor g = td::autograd::grad(outs, ins, {}, false, true)[0];
  CHECK(values(g) == std::vector<float>{12, 27});
  g.sum().backward();
  CHECK(values(w.grad()) == std::vector<float>{12, 18});
}

TEST_CASE("autograd: hooks see and replace gradients of leaves and of results", "[eager]") {
  Tensor w = leaf({1, 2});
  int seen = 0;
  const int number = w.register_hook([&](const Tensor& g) { return ++seen, g * 2.f; });
  const Tensor h = w * 3.f;
  h.register_hook([&](const Tensor&) { ++seen; });
  h.sum().backward();
  CHECK(seen == 2);
  CHECK(values(w.grad()) == std::vector<float>{6, 6});
  w.remove_hook(number);
  w.zero_grad();
  (w * 3.f).sum().backward();
  CHECK(values(w.grad()) == std::vector<float>{3, 3});
}

TEST_CASE("autograd: grad leaves what does not lead to its inputs alone", "[eager]") {
  const Tensor w = leaf({2, 3}), x = leaf({5, 7}), other = leaf({1, 1});
  int seen = 0;
  other.register_hook([&](const Tensor&) { ++seen; });
  const Tensor h = w * x, far = td::exp(other), y = h * far;
  const Tensor g = td::autograd::grad({{y.sum()}}, {{h}})[0];
  CHECK(values(g) == values(far));
  h.backward(g);  // its own tape is still there, and so is that of what was not on the way
  CHECK(values(w.grad()) == values(x.detach() * far.detach()));
  far.sum().backward();
  CHECK(seen == 1);
  CHECK(contains(message([&] { y.sum().backward(); }), "freed by an earlier backward"));
  // Two inputs, one of them behind the other; a root that is an input; one that is not reached.
  const Tensor a = td::exp(w), b = a * a;
  const td::TensorList both = td::autograd::grad({{b.sum()}}, {{a, w}}, {}, true);
  CHECK(values(both[0]) == values(a.detach() * 2.f));
  CHECK(values(both[1]) == values(a.detach() * 2.f * a.detach()));
  CHECK(values(td::autograd::grad({{b}}, {{b}}, {{td::ones({2})}}, true)[0]) == std::vector<float>{1, 1});
  CHECK_FALSE(td::autograd::grad({{b.sum()}}, {{other}}, {}, true, false, true)[0].defined());
}

TEST_CASE("autograd: gradients have memory of their own, also with create_graph", "[eager]") {
  const Tensor x = leaf({1, 2}), b = leaf({3, 4});
  const Tensor y = x + b, given = td::ones({2});
  y.backward(given, true, true);
  CHECK(x.grad().impl()->storage != b.grad().impl()->storage);
  CHECK(x.grad().impl()->storage != given.impl()->storage);
  {
    const td::NoGrad no_grad;
    x.grad().mul_(5.f);
  }
  CHECK(values(b.grad()) == std::vector<float>{1, 1});
  CHECK(values(given) == std::vector<float>{1, 1});
  x.zero_grad(), b.zero_grad();
  y.sum().backward({}, true, true);
  td::nn::utils::clip_grad_norm_({x, b}, 1.f);
  for (const Tensor& t : {x, b}) CHECK(values(t.grad())[0] == Approx(0.5));
}

TEST_CASE("autograd: what comes as a gradient has its value's type", "[eager]") {
  const Tensor x = leaf({1, 2, 3});
  x.reshape({3, 1}).backward(td::ones({3, 1}, {.dtype = td::float64}));
  CHECK(x.grad().dtype() == td::float32);
  CHECK(contains(message([&] {
                   x.reshape({3, 1}).backward(td::ones({3}));
                 }),
                 "the value float32 of shape (3, 1)"));
  CHECK(contains(message([&] { x.exp().backward(td::ones({3}, {.dtype = td::int64})); }), "int64"));
  x.zero_grad();
  const int wide = x.register_hook([](const Tensor& g) { return g.to(td::float64) * 2.; });
  x.exp().sum().backward();
  CHECK(x.grad().dtype() == td::float32);
  x.remove_hook(wide);
  x.register_hook([](const Tensor& g) { return g.sum(); });
  CHECK(contains(message([&] { x.exp().sum().backward(); }), "hook: the gradient is float32 of shape ()"));
}

TEST_CASE("autograd: a leaf that no longer wants a gradient gets none", "[eager]") {
  Tensor x = leaf({1, 2});
  const Tensor y = x * 2.f;
  x.requires_grad_(false);
  y.sum().backward();
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("autograd: who removes a hook removes his own", "[eager]") {
  const Tensor x = leaf({1, 2});
  int seen = 0;
  const int first = x.register_hook([&](const Tensor&) { seen += 100; });
  x.remove_hook(first);
  x.register_hook([&](const Tensor&) { ++seen; });
  x.remove_hook(first);
  x.exp().sum().backward();
  CHECK(seen == 1);
}

TEST_CASE("autograd: a hook walks the tape that is being walked", "[eager]") {
  Tensor w = leaf({2, 3});
  const Tensor h = w * w, y = h * w;
  std::vector<float> within;
  bool entered = false;
  y.register_hook([&](const Tensor&) {
    if (std::exchange(entered, true)) return;  // the walk within calls it, too
    const td::EnableGrad enable;
    within = values(td::autograd::grad({{y.sum()}}, {{w}}, {}, true)[0]);
  });
  y.sum().backward();
  CHECK(within == std::vector<float>{12, 27});
  CHECK(values(w.grad()) == std::vector<float>{12, 27});
}

TEST_CASE("autograd: a custom function has the gradient it says", "[eager]") {
  Tensor w = leaf({1, -2});
  const auto doubled = td::autograd::apply(
      [](td::autograd::Context& c, const td::TensorList& in) {
        c.save_for_backward({in[0]});
        return td::TensorList{in[0] * 2.f};
      },
      [](const td::autograd::Context& c, const td::TensorList& g) {
        CHECK(values(c.saved()[0]) == std::vector<float>{1, -2});
        return td::TensorList{g[0] * 10.f};
      },
      {w});
  doubled[0].sum().backward();
  CHECK(values(w.grad()) == std::vector<float>{10, 10});
}

TEST_CASE("autograd: changing a saved value in place is an error that names both lines", "[eager]") {
  Tensor w = leaf({1, 2});
  const Tensor y = td::exp(w);
  const Tensor loss = y.sum();
  y.mul_(2.f);
  const Tensor z = td::exp(w);
  const Tensor again = z.sum();
  {
    const td::NoGrad no_grad;
    z.add_(1.f);
  }
  const std::string text = message([&] { again.backward(); });
  CHECK(contains(text, "changed in place at"));
  CHECK(contains(text, "the op was called at"));
}

TEST_CASE(
    "autograd: an in-place op whose gradient needs the overwritten value is an error, not a wrong gradient",
    "[eager]") {
  Tensor w = leaf({1, 2}), b = leaf({3, 4});
  const Tensor t = td::exp(w) + 0.f;
  t.mul_(b);
  CHECK(contains(message([&] { t.sum().backward(); }), "changed in place"));
  const Tensor fine = td::exp(w) + 0.f;
  fine.mul_(2.f);
  w.zero_grad();
  fine.sum().backward();
  CHECK(w.grad().defined());
}

TEST_CASE("autograd: bad uses are refused", "[eager]") {
  Tensor w = leaf({1, 2});
  CHECK(contains(message([&] { w.add_(1.f); }), "a leaf that requires grad"));
  CHECK(contains(message([&] { td::exp(w).backward(); }), "a gradient is needed"));
  CHECK(contains(message([&] { td::tensor({1.f}).backward(); }), "does not require grad"));
  CHECK(contains(message([&] { td::tensor<int64_t>({1}).requires_grad_(); }), "floating"));
  CHECK(contains(message([&] { td::exp(w).backward(td::ones({3})); }), "shape"));
  CHECK(contains(message([&] { (Tensor() + w).sum(); }), "undefined tensor"));
  const Tensor unused = leaf({1}), outs[] = {w.sum()}, ins[] = {unused};
  CHECK(contains(message([&] { td::autograd::grad(outs, ins); }), "was not reached"));
}

TEST_CASE("autograd: a chain of 100,000 ops neither overflows the stack forward, backward, nor when dropped",
          "[eager]") {
  Tensor w = leaf({1, 2});
  {
    Tensor h = w;
    for (int i = 0; i < 100000; ++i) h = h + w;
    h.sum().backward();
    CHECK(values(w.grad())[0] == 100001);
  }
  Tensor dropped = w;
  for (int i = 0; i < 100000; ++i) dropped = td::neg(dropped);
}

TEST_CASE("autograd: lists of tensors in braces", "[eager]") {
  const Tensor x = td::tensor({2.f, 3.f}).requires_grad_();
  const Tensor slope = td::autograd::grad({(x * x).sum()}, {x}, {}, false, true)[0];
  CHECK(slope.to_vector<float>() == std::vector<float>{4, 6});
  CHECK(td::autograd::grad({slope}, {x}, {td::ones({2})})[0].to_vector<float>() == std::vector<float>{2, 2});
  td::autograd::backward({x.sum(), x.prod()});
  CHECK(x.grad().to_vector<float>() == std::vector<float>{4, 3});
  CHECK(td::meshgrid({td::arange(2), td::arange(3)})[1].sizes() == td::Dims{2, 3});
}
