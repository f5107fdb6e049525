// Frozen replay: what a call guards, and what freezing refuses.
#include "tests/tracer/frozen_programs.h"

using namespace programs;

TEST_CASE("a frozen call guards its arguments", "[frozen]") {
  const td::Tensor w = range(4);
  auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) { return x * y + w; });
  const td::Tensor a = range(4), b = range(4, 2);
  auto frozen = frozen_after_two(step, a, b);
  CHECK(frozen(b, a).to_vector<float>() == (b * a + w).to_vector<float>());
  const std::string sizes = error_of([&] { frozen(range(5), range(5)); });
  CHECK(has(sizes, "sizes (4,) before, (5,) now"));
  CHECK(has(sizes, "frozen for (float32(4,), float32(4,))"));
  CHECK(has(sizes, "frozen_programs.h"));
  CHECK(has(error_of([&] { frozen(a.to(td::float64), b); }), "dtype"));
  CHECK(has(error_of([&] { frozen(a, b.requires_grad_()); }), "requires_grad"));
  b.requires_grad_(false);
  CHECK(has(error_of([&] { frozen(range(8).reshape({4, 2}).select(1, 0), b); }), "strides"));
  CHECK(error_of([&] { frozen(a, a); }) != "");
  CHECK(error_of([&] { frozen(a, a.reshape({4})); }) != "");
  CHECK(has(error_of([&] { frozen(a, w); }), "shares memory with captured tensor"));
  CHECK(has(error_of([&] {
              const td::NoGrad no_grad;
              frozen(a, b);
            }),
            "grad"));
  CHECK(error_of([&] { frozen(td::Tensor(), b); }) != "");
  CHECK(error_of([&] { frozen({a}); }) != "");
  CHECK(frozen(a, b).to_vector<float>() == (a * b + w).to_vector<float>());
  // A second signature is frozen when it was called as often.
  step(range(4).reshape({1, 4}), range(4));
  CHECK(step.freeze().report().signatures == 1);
  step(range(4).reshape({1, 4}), range(4));
  CHECK(step.freeze().report().signatures == 2);
}

TEST_CASE("a frozen call guards captured tensors", "[frozen]") {
  std::optional<td::Tensor> w = leaf(3);
  const td::Tensor u = range(3);
  auto step = td::trace([&](const td::Tensor& x) {
    const td::NoGrad no_grad;
    return x * *w + u;
  });
  auto frozen = frozen_after_two(step, range(3));
  CHECK(frozen.report().scans == 0);
  frozen(range(3));
  CHECK(frozen.report().scans == 1);
  w->requires_grad_(false);
  CHECK(has(error_of([&] { frozen(range(3)); }), "requires_grad true before, false now"));
  w->requires_grad_();
  const Values expected = {2, 6, 12};
  CHECK(frozen(range(3)).to_vector<float>() == expected);
  frozen(range(3));
  CHECK(frozen.report().scans == 3);
  CHECK(frozen.state().size() == 2);
  CHECK(frozen.parameters().size() == 1);
  // Another parameter in its place: the frozen function does not know it.
  *w = leaf(3, 7);
  const std::string gone = error_of([&] { frozen(range(3)); });
  CHECK(has(gone, "is gone"));
  CHECK(has(gone, "frozen_guards_test.cpp"));
  CHECK(has(error_of([&] { frozen(range(3)); }), "is gone"));
  CHECK(frozen.state().size() == 1);
}

TEST_CASE("a frozen backward guards gradients and hooks", "[frozen]") {
  const td::Tensor w = leaf(3);
  auto step = td::trace([&](const td::Tensor& x) {
    td::Tensor loss = (x * w).sum();
    loss.backward();
    return loss;
  });
  step(range(3));
  w.zero_grad();
  step(range(3));
  w.zero_grad();
  auto frozen = step.freeze();
  CHECK(frozen(range(3)).item<float>() == 14);
  CHECK(w.grad().to_vector<float>() == Values{1, 2, 3});
  // The body would add to this gradient.
  CHECK(has(error_of([&] { frozen(range(3)); }), "has a gradient already"));
  w.zero_grad();
  const td::Tensor loss = frozen(range(3));
  CHECK(loss.requires_grad());
  CHECK(error_of([&] { loss.backward(); }) != "");
  w.zero_grad();
  const int hook = w.register_hook([](const td::Tensor& g) { return g * 2; });
  CHECK(has(error_of([&] { frozen(range(3)); }), "has a hook"));
  w.remove_hook(hook);
  frozen(range(3));
  CHECK(w.grad().to_vector<float>() == Values{1, 2, 3});
}

TEST_CASE("what only the body can do is refused with its line", "[frozen]") {
  const td::Tensor x = range(3), w = leaf(3);
  std::vector<td::Tensor> kept;
  td::Tensor other = range(3);
  int calls = 0;
  const auto refused = [&](auto body, int line, const std::string& part, auto... more) {
    auto step = td::trace(body);
    for (int i = 0; i < 3; ++i) ++calls, step(x.clone(), more...);
    const std::string text = error_of([&] { step.freeze(); });
    CAPTURE(text, line);
    CHECK(has(text, "freeze: "));
    CHECK(has(text, part));
    if (line) CHECK(has(text, here(line)));
  };
  refused([](const td::Tensor& t) { return t.sum().item<float>() > 0 ? t * 2 : t; }, __LINE__, "a read");
  refused([&](const td::Tensor& t) { return calls % 2 ? t * 2 : t + 1; }, __LINE__, "a branch");
  refused([](const td::Tensor& t) { return t * td::tensor({1.f, 2.f, 3.f}); }, __LINE__, "captured tensor");
  refused([&](const td::Tensor& t) { return t * calls; }, __LINE__, "mul: number 0 changed between");
  refused([&](const td::Tensor& t) { return td::dropout(t, 0.01 * calls); }, __LINE__, "changed between");
  refused([](const td::Tensor& t) { return std::pair(t * 2, 5); }, 0, "not a tensor");
  refused([](const td::Tensor& t) { return (t * 2).sizes(); }, 0, "not a tensor");
  refused([](const td::Tensor& t, double by) { return t * by; }, 0, "an argument is not made of tensors",
          2.0);
  refused(
      [&](const td::Tensor& t) {
        kept.push_back(t * 3);
        return t * 2;
      },
      __LINE__ - 3, "lives on after the call");
  refused([&](const td::Tensor& t) { return t * w; }, __LINE__, "keeps its history");
  refused(
      [&](const td::Tensor& t) {
        td::Tensor loss = (t * w).sum();
        loss.register_hook([](const td::Tensor& g) { return g; });
        loss.backward();
        w.zero_grad();
        return loss;
      },
      __LINE__ - 4, "host code");
  refused([&](const td::Tensor& t) { return t.narrow(0, calls % 2, 2) * 2; }, __LINE__, "follows the body");
  refused(
      [&](const td::Tensor& t) {
        other = t * 2;
        return t + 1;
      },
      __LINE__ - 3, "");
  refused([&](const td::Tensor& t) { return other = t, t + 1; }, 0, "argument 0 lives on after the call");
  refused([&](const td::Tensor& t) { return other = t.detach(), t + 1; }, __LINE__,
          "lives on after the call");
  refused(
      [&](const td::Tensor& t) {
        const td::Tensor sum = t + 1;
        other = sum.detach();
        return sum;
      },
      0, "lives on after the call");
  refused([&](const td::Tensor& t) { return td::manual_seed(3), td::dropout(t, 0.5); }, 0, "");
  td::Generator own(4);
  refused([&](const td::Tensor& t) { return t + td::rand({3}, {}, &own); }, __LINE__, "another generator");
  refused(
      [&](const td::Tensor& t) {
        const td::Tensor made = td::zeros({3});
        made.requires_grad_();
        (made * t).sum().backward();
        return made.grad();
      },
      0, "");
}

TEST_CASE("freezing needs calls to look at", "[frozen]") {
  auto step = td::trace([](const td::Tensor& x) { return x * 2; });
  CHECK(has(error_of([&] { step.freeze(); }), "nothing was recorded"));
  step(range(3));
  const std::string once = error_of([&] { step.freeze(); });
  CHECK(has(once, "two calls in a row"));
  CHECK(has(once, here(__LINE__ - 2)));
  step(range(3));
  CHECK(step.freeze()(range(3)).to_vector<float>() == Values{2, 4, 6});
}
