// Gradients that a traced call drops and makes anew: their tensors and memory are used again. Whoever holds
// or changed one must not notice, so each program runs eagerly, too, and everything visible is compared.
#include <algorithm>
#include <cmath>
#include <functional>

#include "tandem/core/free_lists.h"
#include "tandem/eager/dispatch.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;

namespace {

struct Net : td::nn::Module {
  td::nn::Linear a = child<td::nn::Linear>("a", 3, 5);
  td::nn::Linear b = child<td::nn::Linear>("b", 5, 40);
};

struct Model {
  Net net;
  std::vector<td::Tensor> parameters = net.parameters();
  // In another order than backward meets them.
  td::optim::SGD opt{{parameters[2], parameters[0], parameters[3], parameters[1]}, {.lr = 1e-3}};
  td::Tensor x = td::rand({2, 3});
  std::vector<td::Tensor> kept;  // by the program, from any call
  std::vector<double> seen;
  int call = 0;
  bool versions = true;  // compared

  void see(const td::Tensor& t) {
    seen.push_back(t.defined());
    if (!t.defined()) return;
    seen.push_back(static_cast<double>(t.dtype()));
    for (const int64_t n : t.sizes()) seen.push_back(static_cast<double>(n));
    for (const double v : t.to_vector<double>()) seen.push_back(v);
    if (versions) seen.push_back(td::eager::version_of(t.impl()));
    seen.push_back(t.requires_grad());
  }
  td::Tensor& weight() { return parameters[0]; }
};

using Twist = std::function<void(Model&)>;
/// What the program does besides, and when.
struct Twists {
  Twist between, start, zeroed, after;
  std::function<td::Tensor(Model&, const td::Tensor& loss)> loss;
};

std::vector<double> run(bool traced, const Twists& twists) {
  td::manual_seed(5);
  Model m;
  const auto twist = [&](const Twist& t) {
    if (t) t(m);
  };
  const auto body = [&](const td::Tensor& x) {
    twist(twists.start);
    m.opt.zero_grad();
    twist(twists.zeroed);
    const td::Tensor h = td::tanh(m.net.a(x.to(m.weight().dtype())));
    td::Tensor loss = (m.net.b(h) * h.sum()).sum();
    if (twists.loss) loss = twists.loss(m, loss);
    if (loss.requires_grad()) loss.backward();
    twist(twists.after);
    m.opt.step();
    return loss;
  };
  auto step = td::trace(body, {.compile = false});
  for (m.call = 0; m.call < 14; ++m.call) {
    twist(twists.between);
    try {
      m.see(traced ? step(m.x) : body(m.x));
    } catch (const std::runtime_error&) {
      m.seen.push_back(-1);
    }
    for (const td::Tensor& p : m.parameters) m.see(p), m.see(p.grad());
    for (const td::Tensor& t : m.kept) m.see(t);
  }
  return m.seen;
}

void compare(const Twists& twists) {
  const std::vector<double> eager = run(false, twists);
  REQUIRE(std::all_of(eager.begin(), eager.end(), [](double v) { return std::isfinite(v); }));
  CHECK(run(true, twists) == eager);
}

}  // namespace

TEST_CASE("gradients that a call drops and makes again are the same tensors in the same memory", "[tracer]") {
  if (td::core::kBypassCaches)
    return;  // memory is handed back at once then, for the address sanitizer to see
  std::vector<std::vector<const void*>> found;
  const auto look = [&](Model& m) {
    found.emplace_back();
    for (const td::Tensor& p : m.parameters)
      if (p.grad().defined())
        found.back().push_back(p.grad().impl()), found.back().push_back(p.grad().impl()->data);
  };
  run(true, {.between = look});
  REQUIRE(found.size() == 14);
  for (size_t call = 8; call < 14; ++call) {
    CHECK(found[call].size() == 8);
    CHECK(found[call] == found[7]);
  }
}

TEST_CASE("a gradient that the program holds or shows stays as it is", "[tracer]") {
  compare({});
  compare({.between = [](Model& m) { m.kept.push_back(m.weight().grad()); }});
  compare({.between = [](Model& m) {
    if (m.call > 0) m.kept.push_back(m.weight().grad().slice(0, 1, 3));
  }});
  compare({.between = [](Model& m) {
    if (m.call > 0) m.kept.push_back(m.weight().grad().detach());
  }});
  compare({.after = [](Model& m) { m.kept.push_back(m.weight().grad()); }});
  compare({.after = [](Model& m) {
    if (m.call > 6) m.kept.push_back(m.weight().grad().reshape({-1}));
  }});
  compare({.start = [](Model& m) {
    if (m.call > 0) m.kept.push_back(m.weight().grad() * 2);
  }});
  compare({.start = [](Model& m) {
    if (m.call > 6) m.kept.push_back(m.parameters[1].grad());
  }});
}

TEST_CASE("a gradient that was changed between calls comes back as what the call makes", "[tracer]") {
  compare({.between = [](Model& m) {
    if (m.call > 4) m.weight().grad().mul_(3.0);
  }});
  compare({.between = [](Model& m) {
    if (m.call > 4 && m.call % 2) m.weight().grad().requires_grad_();
  }});
  compare({.between = [](Model& m) {
    if (m.call > 4) m.weight().grad().requires_grad_().requires_grad_(false);
  }});
  compare({.between = [](Model& m) {
    if (m.call == 5) m.net.to(td::float64);
    if (m.call == 8) m.net.to(td::float32);
  }});
  compare({.between = [](Model& m) {
    if (m.call == 5 || m.call == 9) m.weight().set_grad({});
    if (m.call == 7) m.weight().set_grad(td::rand({5, 3}));
  }});
  compare({.between = [](Model& m) {  // two parameters hold one
    if (m.call == 7) m.parameters[2].grad(), m.kept.push_back(m.parameters[2].grad());
    if (m.call == 8) m.kept.clear();
  }});
  compare({.after = [](Model& m) {
    m.versions = false;
    m.weight().grad().mul_(0.5);
  }});
}

TEST_CASE("a call that drops gradients may go on in any way", "[tracer]") {
  const auto other = [](Model& m, const td::Tensor& loss) {
    return m.call % 3 == 2 && m.call > 3 ? loss * (m.weight() * m.weight()).sum() : loss;
  };
  const auto none = [](Model& m, const td::Tensor& loss) { return m.call % 3 == 2 ? loss.detach() : loss; };
  const auto fails = [](Model& m) {
    if (m.call == 6 || m.call == 9) throw std::runtime_error("stop");
  };
  compare({.loss = other});
  compare({.loss = none});
  compare({.zeroed = fails});
  compare({.after = fails});
  compare({.zeroed = fails, .loss = other});
  compare({.zeroed = [](Model& m) { m.opt.zero_grad(); },
           .after =
               [](Model& m) {
                 if (m.call % 4 == 3) m.opt.zero_grad();
               }});
  // Reads end segments before, and after the gradients are there.
  compare({.loss = [](Model& m, const td::Tensor& loss) {
    m.seen.push_back(loss.item<double>());
    return loss;
  }});
  compare({.after = [](Model& m) { m.seen.push_back(m.weight().grad().sum().item<double>()); }});
}

// What such a call recorded is forgotten, and its handles stand for other values later: here for the gradient
// of another parameter.
TEST_CASE("gradients of a recording that was broken off are ordinary tensors", "[tracer]") {
  td::Tensor small = td::rand({3}).requires_grad_(), large = td::rand({40}).requires_grad_(), w = small;
  td::optim::SGD opt({small, large}, {.lr = 1e-3});
  bool fails = true;
  auto step = td::trace(
      [&](const td::Tensor& x) {
        opt.zero_grad();
        const td::Tensor loss = (w * w * x).sum();
        loss.backward();
        if (fails) throw std::runtime_error("stop");
        return loss;
      },
      {.compile = false});
  const td::Tensor x = td::full({1}, 2.f);
  CHECK_THROWS_AS(step(x), std::runtime_error);
  td::Tensor left = small.grad();
  REQUIRE(left.defined());
  small.set_grad({});
  fails = false;
  w = large;
  for (int i = 0; i < 6; ++i) step(x);
  small.set_grad(left);
  left = {};
  step(x);
  CHECK(large.grad().sizes() == td::Dims{40});
  CHECK(large.grad().to_vector<float>() == (large * 4).to_vector<float>());
  CHECK(!small.grad().defined());
}

TEST_CASE("two traced functions take turns with one optimizer", "[tracer]") {
  const auto both = [](bool traced) {
    td::manual_seed(3);
    td::Tensor w = td::rand({4, 4}).requires_grad_(), v = td::rand({4}).requires_grad_();
    td::optim::SGD opt({v, w}, {.lr = 1e-3});
    const auto step = [&](const td::Tensor& loss) {
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    };
    const auto one = [&](const td::Tensor& x) { return step((td::matmul(w, x) * v).sum()); };
    const auto two = [&](const td::Tensor& x) { return step((td::matmul(x, w) + w.sum() * v).sum()); };
    auto traced_one = td::trace(one, {.compile = false});
    auto traced_two = td::trace(two, {.compile = false});
    const td::Tensor x = td::rand({4});
    std::vector<double> seen;
    for (int i = 0; i < 16; ++i) {
      const bool first = i % 4 < 2;
      const td::Tensor loss = traced ? first ? traced_one(x) : traced_two(x) : first ? one(x) : two(x);
      for (const td::Tensor& t : {loss, w, v, w.grad(), v.grad()})
        for (const double d : t.to_vector<double>()) seen.push_back(d);
    }
    return seen;
  };
  CHECK(both(true) == both(false));
}
