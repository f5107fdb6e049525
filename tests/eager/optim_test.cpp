#include "tandem/eager/optim/optim.h"

#include <cmath>
#include <numbers>

#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }
Tensor leaf(const std::vector<double>& v) { return tensor(v).requires_grad_(); }

using tandem::test::message;

/// The gradients of step t: something that changes sign and size.
std::vector<double> gradient(int t) { return {std::sin(t + 1.0), 0.1 * t - 0.25, -2.0 / (t + 1)}; }

/// PyTorch's formulas, one element at a time.
struct Reference {
  std::vector<double> p = {1, -2, 3}, m = {0, 0, 0}, v = {0, 0, 0};
  void adam(int t, double lr, double b1, double b2, double eps, double decay, bool decoupled) {
    const std::vector<double> g = gradient(t);
    for (size_t i = 0; i < 3; ++i) {
      double d = g[i];
      if (decoupled) {
        p[i] *= 1 - lr * decay;
      } else {
        d += decay * p[i];
      }
      m[i] = b1 * m[i] + (1 - b1) * d;
      v[i] = b2 * v[i] + (1 - b2) * d * d;
      const double m_hat = m[i] / (1 - std::pow(b1, t + 1)), v_hat = v[i] / (1 - std::pow(b2, t + 1));
      p[i] -= lr * m_hat / (std::sqrt(v_hat) + eps);
    }
  }
  void sgd(int t, double lr, double momentum, double dampening, double decay, bool nesterov) {
    const std::vector<double> g = gradient(t);
    for (size_t i = 0; i < 3; ++i) {
      double d = g[i] + decay * p[i];
      if (momentum != 0) {
        m[i] = t == 0 ? d : momentum * m[i] + (1 - dampening) * d;
        d = nesterov ? d + momentum * m[i] : m[i];
      }
      p[i] -= lr * d;
    }
  }
};

template <class Opt, class Step>
void compare(Opt& opt, Tensor& p, Step reference_step) {
  Reference r;
  for (int t = 0; t < 6; ++t) {
    p.set_grad(tensor(gradient(t)));
    opt.step();
    reference_step(r, t);
    const std::vector<double> now = values(p);
    for (size_t i = 0; i < 3; ++i) CHECK(now[i] == Approx(r.p[i]).epsilon(1e-12));
  }
}

}  // namespace

TEST_CASE("AdamW and Adam follow PyTorch's formulas", "[optim]") {
  {
    Tensor p = leaf({1, -2, 3});
    optim::AdamW opt({p}, {.lr = 0.1, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.2});
    compare(opt, p, [](Reference& r, int t) { r.adam(t, 0.1, 0.8, 0.95, 1e-3, 0.2, true); });
  }
  {
    Tensor p = leaf({1, -2, 3});
    optim::AdamW opt({p});
    compare(opt, p, [](Reference& r, int t) { r.adam(t, 1e-3, 0.9, 0.999, 1e-8, 1e-2, true); });
  }
  {
    Tensor p = leaf({1, -2, 3});
    optim::Adam opt({p}, {.lr = 0.1, .weight_decay = 0.2});
    compare(opt, p, [](Reference& r, int t) { r.adam(t, 0.1, 0.9, 0.999, 1e-8, 0.2, false); });
  }
}

TEST_CASE("SGD follows PyTorch's formulas", "[optim]") {
  struct Case {
    double momentum, dampening, decay;
    bool nesterov;
  };
  for (const Case& c : {Case{0, 0, 0, false}, Case{0, 0, 0.1, false}, Case{0.9, 0, 0.1, false},
                        Case{0.9, 0.3, 0, false}, Case{0.9, 0, 0.1, true}}) {
    CAPTURE(c.momentum, c.dampening, c.decay, c.nesterov);
    Tensor p = leaf({1, -2, 3});
    optim::SGD opt({p}, {.lr = 0.1,
                         .momentum = c.momentum,
                         .dampening = c.dampening,
                         .weight_decay = c.decay,
                         .nesterov = c.nesterov});
    compare(opt, p,
            [&](Reference& r, int t) { r.sgd(t, 0.1, c.momentum, c.dampening, c.decay, c.nesterov); });
  }
}

TEST_CASE("parameters without a gradient are skipped and keep their own step count", "[optim]") {
  Tensor a = leaf({1, -2, 3}), b = leaf({1, -2, 3});
  optim::AdamW opt({a, b}, {.lr = 0.1});
  a.set_grad(tensor(gradient(0)));
  opt.step();
  CHECK(values(b) == std::vector<double>{1, -2, 3});
  b.set_grad(tensor(gradient(0)));
  a.set_grad({});
  const std::vector<double> after_one = values(a);
  opt.step();
  CHECK(values(a) == after_one);
  CHECK(values(b) == after_one);  // its first step, with the corrections of a first step
  a.set_grad(tensor(gradient(1)));
  b.set_grad(tensor(gradient(1)));
  opt.zero_grad();
  CHECK_FALSE(a.grad().defined());
  CHECK_FALSE(b.grad().defined());
}

TEST_CASE("groups have numbers of their own, which may change between steps", "[optim]") {
  Tensor a = leaf({1, 1, 1}), b = leaf({1, 1, 1});
  optim::SGD opt({{{a}, {.lr = 0.5}}, {{b}, {.lr = 0.25}}});
  CHECK(opt.group_count() == 2);
  const auto step = [&] {
    a.set_grad(tensor({1., 2., 3.}));
    b.set_grad(tensor({1., 2., 3.}));
    opt.step();
  };
  step();
  CHECK(values(a) == std::vector<double>{0.5, 0, -0.5});
  CHECK(values(b) == std::vector<double>{0.75, 0.5, 0.25});
  opt.set_lr(0, 1);
  opt.set_lr(1);
  step();
  CHECK(values(a) == std::vector<double>{-0.5, -2, -3.5});
  CHECK(values(b) == std::vector<double>{0.75, 0.5, 0.25});
  // Momentum that is switched on later finds a buffer.
  optim::SGD::Options o = opt.options(1);
  o.lr = 1;
  o.momentum = 0.5;
  opt.set_options(o, 1);
  step();
  step();
  CHECK(values(b)[0] == Approx(0.75 - 1 - 1.5));
  CHECK_THAT(message([&] { opt.set_lr(1, 7); }), Contains("no group 7 among 2"));
}

TEST_CASE("float32 and half parameters keep their types", "[optim]") {
  for (const DType t : {float32, float16, bfloat16}) {
    Tensor p = ones({4}).to(t);
    p.requires_grad_();
    optim::AdamW opt({p}, {.lr = 0.125, .weight_decay = 0});
    p.set_grad(ones({4}).to(t));
    opt.step();
    CHECK(p.dtype() == t);
    CHECK(values(p)[0] == Approx(0.875).epsilon(1e-2));
  }
}

TEST_CASE("impossible parameters and numbers are refused by name", "[optim]") {
  Tensor p = leaf({1});
  CHECK_THAT(message([&] { optim::AdamW({p, p}); }), Contains("given twice") && Contains("optim_test.cpp"));
  CHECK_THAT(message([&] { optim::AdamW({p * 2}); }),
             Contains("parameter 0 of group 0") && Contains("not a leaf"));
  CHECK_THAT(message([&] { optim::AdamW({tensor({int64_t{1}})}); }), Contains("int64"));
  CHECK_THAT(message([&] { optim::AdamW({p}, {.lr = -1}); }), Contains("AdamW: lr must be 0 or more"));
  CHECK_THAT(message([&] { optim::Adam({p}, {.betas = {0.9, 1}}); }), Contains("beta2 must lie in [0, 1)"));
  CHECK_THAT(message([&] { optim::SGD({p}, {.lr = std::nan("")}); }), Contains("lr must be 0 or more"));
  CHECK_THAT(message([&] { optim::SGD({p}, {.nesterov = true}); }),
             Contains("momentum must be above 0 with nesterov"));
  CHECK_THROWS_AS(optim::AdamW({Tensor()}), Error);
  optim::AdamW opt({p});
  const double before = opt.lr();
  CHECK_THROWS_AS(opt.set_lr(-1), Error);
  CHECK(opt.lr() == before);
}

TEST_CASE("the state names numbers, step counts and moments", "[optim]") {
  Tensor p = leaf({1, 2});
  optim::AdamW opt({p});
  p.set_grad(tensor({1., 1.}));
  opt.step();
  std::vector<std::string> names;
  for (const NamedTensor& n : opt.state()) names.push_back(n.name);
  CHECK(names == std::vector<std::string>{"group.0.lr", "group.0.beta1", "group.0.beta2", "group.0.eps",
                                          "group.0.weight_decay", "group.0.maximize", "group.0.amsgrad",
                                          "0.step", "0.exp_avg", "0.exp_avg_sq"});
  CHECK(opt.state()[7].tensor.item<int64_t>() == 1);
  CHECK(optim::SGD({p}).state().size() == 7);
  CHECK(optim::SGD({p}, {.momentum = 0.9}).state().back().name == "0.momentum_buffer");
  CHECK(optim::Adam({p}, {.amsgrad = true}).state().back().name == "0.max_exp_avg_sq");
}

TEST_CASE("state continues another optimizer exactly", "[optim]") {
  Tensor a = leaf({1, -2, 3}), b = leaf({1, -2, 3});
  optim::AdamW first({a}, {.lr = 0.1}), second({b}, {.lr = 0.7, .eps = 1e-2});
  for (int t = 0; t < 3; ++t) {
    a.set_grad(tensor(gradient(t)));
    first.step();
  }
  first.set_lr(0.05);
  {
    const NoGrad no_grad;
    b.copy_(a);
  }
  second.load_state(first.state());
  CHECK(second.lr() == 0.05);
  CHECK(second.options().eps == 1e-8);
  for (int t = 3; t < 6; ++t) {
    a.set_grad(tensor(gradient(t)));
    b.set_grad(tensor(gradient(t)));
    first.step();
    second.step();
    REQUIRE(values(a) == values(b));
  }
}

TEST_CASE("a wrong state is refused and changes nothing", "[optim]") {
  Tensor p = leaf({1, -2, 3});
  optim::AdamW opt({p}, {.lr = 0.1});
  const auto with = [&](const std::string& name, const Tensor& t) {
    std::vector<NamedTensor> s = opt.state();
    for (NamedTensor& n : s)
      if (n.name == name) n.tensor = t;
    return s;
  };
  CHECK_THAT(message([&] { opt.load_state(with("0.exp_avg", zeros({4}, {.dtype = float64}))); }),
             Contains("0.exp_avg is float64(3,), given float64(4,)"));
  CHECK_THAT(message([&] { opt.load_state(with("0.step", scalar_tensor(int64_t{-1}))); }),
             Contains("0.step is negative"));
  CHECK_THAT(message([&] { opt.load_state(with("group.0.lr", scalar_tensor(-1.0))); }),
             Contains("lr must be"));
  std::vector<NamedTensor> changed = with("group.0.lr", scalar_tensor(0.5));
  changed.pop_back();
  CHECK_THAT(message([&] { opt.load_state(changed); }), Contains("missing: 0.exp_avg_sq"));
  CHECK(opt.lr() == 0.1);
  optim::SGD plain({p}, {.lr = 0.1});
  std::vector<NamedTensor> needs_more = plain.state();
  for (NamedTensor& n : needs_more)
    if (n.name == "group.0.momentum") n.tensor = scalar_tensor(0.9);
  for (const bool check : {true, false})
    CHECK_THAT(message([&] { check ? plain.check_state(needs_more) : plain.load_state(needs_more); }),
               Contains("group 0 need a momentum_buffer"));
  CHECK(plain.options().momentum == 0);
  p.set_grad(tensor({1., 1., 1.}));
  plain.step();
}

TEST_CASE("a state of before maximize and amsgrad were options is loaded, without them", "[optim]") {
  const Tensor p = leaf({1, -2, 3});
  optim::SGD opt({p}, {.lr = 0.1}), other({p}, {.maximize = true});
  std::vector<NamedTensor> state = opt.state();
  std::erase_if(state, [](const NamedTensor& n) { return n.name.ends_with("maximize"); });
  other.load_state(state);
  CHECK_FALSE(other.options().maximize);
  CHECK(other.lr() == 0.1);
  optim::Adam before({p}, {.lr = 0.1}), after({p}, {.maximize = true});
  state = before.state();
  std::erase_if(state, [](const NamedTensor& n) { return n.name.ends_with("amsgrad"); });
  after.load_state(state);
  CHECK_FALSE(after.options().amsgrad);
  CHECK_FALSE(after.options().maximize);
  state = opt.state();
  std::erase_if(state, [](const NamedTensor& n) { return n.name.ends_with("maximize"); });
  std::erase_if(state, [](const NamedTensor& n) { return n.name.ends_with("nesterov"); });
  CHECK_THAT(message([&] { other.load_state(state); }), Contains("missing: group.0.nesterov"));
}

TEST_CASE("StepLR and CosineAnnealingLR follow PyTorch's formulas", "[optim]") {
  Tensor a = leaf({1}), b = leaf({1});
  optim::SGD opt({{{a}, {.lr = 1}}, {{b}, {.lr = 0.5}}});
  optim::StepLR steps(opt, 2, 0.1);
  std::vector<double> seen;
  for (int i = 0; i < 5; ++i) steps.step(), seen.push_back(opt.lr());
  const std::vector<double> expected = {1, 0.1, 0.1, 0.01, 0.01};
  for (size_t i = 0; i < 5; ++i) CHECK(seen[i] == Approx(expected[i]));
  CHECK(opt.lr(1) == Approx(0.005));

  opt.set_lr(1, 0);
  optim::CosineAnnealingLR cosine(opt, 10, 0.2);
  double chained = 1;  // PyTorch's recursive form
  for (int t = 1; t <= 10; ++t) {
    cosine.step();
    const double pi = std::numbers::pi;
    chained = (1 + std::cos(pi * t / 10)) / (1 + std::cos(pi * (t - 1) / 10)) * (chained - 0.2) + 0.2;
    CHECK(opt.lr() == Approx(chained));
  }
  CHECK(opt.lr() == Approx(0.2));
  CHECK_THROWS_AS(optim::StepLR(opt, 0), Error);
  CHECK_THROWS_AS(optim::CosineAnnealingLR(opt, 0), Error);

  optim::CosineAnnealingLR other(opt, 10, 0.2);
  other.load_state(cosine.state());
  CHECK(other.last_epoch() == 10);
  const double now = opt.lr();
  cosine.step();
  const double next = opt.lr();
  opt.set_lr(now);
  other.step();
  CHECK(opt.lr() == next);
}

TEST_CASE("Adam's bias corrections are right at every step, in any order and for any beta", "[optim]") {
  optim::BiasCorrection kept;
  for (const double beta : {0.9, 0.999, 0.9, 0.0})
    for (const int64_t step : {1, 2, 300, 400, 401, 10, 40000, 400, 1, 1000000})
      CHECK(kept.at(beta, step) == 1 - std::pow(beta, static_cast<double>(step)));
}
