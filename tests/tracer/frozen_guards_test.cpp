// Frozen replay: what a call guards, and what freezing refuses.
#include <sstream>

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
  // Also of what is real already.
  refused([](const td::Tensor& t) { return t * (t.to_vector<float>()[0] > 0 ? 2 : 3); }, __LINE__, "a read");
  const td::Tensor mode = td::ones({1});
  refused([&](const td::Tensor& t) { return mode.item<float>() > 0 ? t * 2 : t; }, __LINE__, "a read");
  refused([&](const td::Tensor& t) { return t * *mode.data<float>(); }, __LINE__, "a read");
  refused([&](const td::Tensor& t) { return std::ostringstream() << mode, t * 2; }, 0, "a read");
  auto inner = td::trace([&](const td::Tensor& t) { return t * mode; });
  const td::FrozenFunction untyped = frozen_after_two(inner, x);
  refused([&](const td::Tensor& t) { return t + untyped({x})[0]; }, 0, "a read");
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

namespace {

struct Left {
  td::Tensor a, b;
};
struct Right {
  td::Tensor a, b;
};

}  // namespace

TEST_CASE("frozen calls are told apart by the types of their arguments, before any effect", "[frozen]") {
  const td::Tensor seen = td::zeros({3});
  int bodies = 0;
  auto step = td::trace([&](const auto& of) {
    ++bodies;
    seen.add_(of.a);
    if constexpr (std::is_same_v<decltype(of), const Left&>)
      return of.a * 2;
    else
      return std::pair(of.a * 3, of.b + 1);
  });
  const Left left{range(3), range(3)};
  const Right right{range(3), range(3)};
  auto frozen = frozen_after_two(step, left);
  CHECK(frozen(left).to_vector<float>() == Values{2, 4, 6});
  const Values before = seen.to_vector<float>();
  CHECK(has(error_of([&] { frozen(right); }), "types in C++"));
  CHECK(seen.to_vector<float>() == before);
  CHECK(bodies == 2);
  // One type of arguments, another of results.
  struct Body {
    td::Tensor seen;
    td::Tensor operator()(const td::Tensor& x) & { return seen.add_(x), x * 2; }
    std::pair<td::Tensor, td::Tensor> operator()(td::Tensor&& x) & {
      return seen.add_(x), std::pair(x * 2, x * 3);
    }
  };
  auto overloaded = td::trace(Body{seen});
  const td::Tensor x = range(3);
  auto one = frozen_after_two(overloaded, x);
  one(x);
  const Values last = seen.to_vector<float>();
  CHECK(has(error_of([&] { one(range(3)); }), "result of another type"));
  CHECK(seen.to_vector<float>() == last);
}

TEST_CASE("Replay::frozen freezes each structure of one signature once", "[frozen]") {
  using List = std::vector<td::Tensor>;
  int bodies = 0;
  auto step = td::trace(
      [&](const List& a, const List& b) {
        ++bodies;
        std::vector<td::Tensor> all = a;
        all.insert(all.end(), b.begin(), b.end());
        return all[0] * 2 + all[1] * all[2];
      },
      {.replay = td::Replay::frozen});
  const td::Tensor one = range(3), two = range(3, 2), three = range(3, 3);
  for (int i = 0; i < 10; ++i) {
    CHECK(step(List{one, two}, List{three}).to_vector<float>() == Values{8, 16, 26});
    CHECK(step(List{one}, List{two, three}).to_vector<float>() == Values{8, 16, 26});
  }
  for (int i = 0; i < 4; ++i) step(List{}, List{one, two, three});
  CHECK(bodies <= 12);
  CHECK(step.report().constants.size() == 3);
  CHECK(step.report().frozen_calls + bodies == 24);
}

TEST_CASE("Replay::frozen can be called again as its message says", "[frozen]") {
  td::Tensor w = range(3), old = w;
  auto step = td::trace([&](const td::Tensor& x) { return x * w; }, {.replay = td::Replay::frozen});
  step(range(3));
  step(range(3));
  w = range(3, 5);
  step.check(range(3));  // runs the body, observes nothing
  CHECK(has(error_of([&] { step(range(3)); }), "call the function twice more first"));
  for (int i = 0; i < 4; ++i) CHECK(step(range(3)).to_vector<float>() == Values{5, 12, 21});
  CHECK(step.report().frozen_calls >= 2);
}

TEST_CASE("Replay::frozen refuses a body that returns a reference", "[frozen]") {
  const td::Tensor w = range(3);
  auto step = td::trace([&](const td::Tensor& x) -> const td::Tensor& { return w.add_(x), w; },
                        {.replay = td::Replay::frozen});
  CHECK(has(error_of([&] { step(range(3)); }), "returns a reference"));
  CHECK(w.to_vector<float>() == Values{1, 2, 3});
}

TEST_CASE("a gradient that the body reads, and then drops, is the very one", "[frozen]") {
  const td::Tensor w = leaf(3), g = range(3, 4), h = range(3, 7);
  auto step = td::trace([&](const td::Tensor& x) {
    const td::NoGrad no_grad;
    const td::Tensor y = x * w.grad();
    td::Tensor found = w.grad();
    w.zero_grad();
    return std::pair(y, found);
  });
  const auto bare = [&](auto& f) {
    auto [y, found] = f(range(3));
    CHECK(found.impl() == g.impl());
    CHECK_FALSE(w.grad().defined());
    return y.template to_vector<float>();
  };
  for (int i = 0; i < 2; ++i) w.set_grad(g), bare(step);
  auto frozen = step.freeze();
  w.set_grad(g);
  CHECK(bare(frozen) == Values{4, 10, 18});
  CHECK(has(error_of([&] { frozen(range(3)); }), "gradient"));
  w.set_grad(h);
  CHECK(has(error_of([&] { frozen(range(3)); }), "had another gradient"));
  w.set_grad(g);
  CHECK(bare(frozen) == Values{4, 10, 18});
}

TEST_CASE("a gradient that only its leaf holds may be a frozen call's result", "[frozen]") {
  // The call that hands it out is the one that lets it go.
  const td::Tensor w = leaf(3);
  td::Tensor g = range(3, 4);
  auto step = td::trace([&](const td::Tensor& x) {
    const td::NoGrad no_grad;
    const td::Tensor y = x * w.grad();
    td::Tensor found = w.grad();
    w.zero_grad();
    return std::pair(y, found);
  });
  for (int i = 0; i < 2; ++i) w.set_grad(g), step(range(3));
  auto frozen = step.freeze();
  w.set_grad(g);
  g = td::Tensor();
  for (int i = 0; i < 3; ++i) {
    auto [y, found] = frozen(range(3));
    CHECK(y.to_vector<float>() == Values{4, 10, 18});
    CHECK(found.to_vector<float>() == Values{4, 5, 6});
    w.set_grad(found);
  }
}

TEST_CASE("a signature depends on the captured tensors that it uses, and on no others", "[frozen]") {
  const td::Tensor w = range(3);
  auto v = std::make_unique<td::Tensor>(range(4));
  auto t = std::make_unique<Training<td::optim::AdamW>>(0.0, td::optim::AdamWOptions{});
  const td::Tensor x = batch(0).first, y = batch(0).second;
  auto step = td::trace([&](const td::Tensor& a, const td::Tensor& b) {
    if (a.dim() == 2) return (*t)(a, b);
    return a.size(0) == 3 ? a * w + b : a * *v + b;
  });
  for (int i = 0; i < 2; ++i) step(range(3), range(3)), step(range(4), range(4)), step(x, y);
  auto frozen = step.freeze();
  CHECK(frozen(range(3), range(3)).to_vector<float>() == Values{2, 6, 12});
  v->requires_grad_();
  CHECK(has(error_of([&] { frozen(range(4), range(4)); }), "requires_grad false before"));
  CHECK(frozen(range(3), range(3)).to_vector<float>() == Values{2, 6, 12});
  v->requires_grad_(false);
  CHECK(frozen(range(4), range(4)).to_vector<float>() == Values{2, 6, 12, 20});
  // An argument over memory that only another signature uses.
  const td::Tensor first = t->net.parameters()[0].detach().reshape({48}).slice(0, 0, 4);
  CHECK(frozen(range(4), first).numel() == 4);
  CHECK(has(error_of([&] { frozen(range(4), *v); }), "shares memory with captured tensor"));
  t.reset();
  CHECK(has(error_of([&] { frozen(x, y); }), "is gone"));
  v.reset();
  CHECK(has(error_of([&] { frozen(range(4), range(4)); }), "is gone"));
  const int64_t scans = frozen.report().scans;
  for (int i = 0; i < 3; ++i) CHECK(frozen(range(3), range(3)).to_vector<float>() == Values{2, 6, 12});
  CHECK(frozen.report().scans == scans);
}

TEST_CASE("momentum with dampening is not frozen", "[frozen]") {
  // Its first step is another one, which a frozen call would miss after the optimizer begins anew.
  Training<td::optim::SGD> t(0, td::optim::SGDOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
  const auto [x, y] = batch(1);
  t(x, y);
  auto step = td::trace([&](const td::Tensor& a, const td::Tensor& b) { return t(a, b); });
  step(x, y);
  step(x, y);
  CHECK(has(error_of([&] { step.freeze(); }), "with dampening"));
}

TEST_CASE("a signature that is refused leaves nothing behind", "[frozen]") {
  const td::Tensor w = range(3), v = range(3);
  auto step = td::trace(
      [&](const td::Tensor& x) {
        if (x.numel() == 4) return w.sum() + x * v.sum().item<float>();
        return x * w + v;
      },
      {.replay = td::Replay::frozen});
  for (int i = 0; i < 3; ++i) step(range(3));
  for (int i = 0; i < 2; ++i) step(range(4));
  CHECK(has(error_of([&] { step(range(4)); }), "a read"));
  CHECK(step(range(3)).to_vector<float>() == Values{2, 6, 12});
}
