// The optimizers beside SGD and Adam: each against its formula as its paper or PyTorch's documentation writes
// it, one element at a time in float64.
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/optim/optim.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

constexpr int kSteps = 12;

/// The gradient of element i in step t (from 1): something that changes sign and size.
double gradient(int t, int i) { return std::sin(1.7 * t + i) * (i + 0.5) + 0.1 * t; }

/// One element's formula: p after step t; `s` is its memory, all 0 at first.
using Formula = std::function<double(double p, double g, int t, double (&s)[4])>;

/// Runs an optimizer and the formula side by side.
template <class O>
void compare(const typename O::Options& options, const Formula& formula, double s0 = 0) {
  const Tensor p = tensor(std::vector<double>{1, -2, 3}).requires_grad_();
  O opt({p}, options);
  double expected[3] = {1, -2, 3}, memory[3][4] = {};
  for (auto& m : memory) m[0] = s0;
  for (int t = 1; t <= kSteps; ++t) {
    std::vector<double> g;
    for (int i = 0; i < 3; ++i) g.push_back(gradient(t, i));
    p.set_grad(tensor(g));
    if (t == kSteps / 2) {  // a state that is saved and taken back goes on as before
      O other({p}, options);
      other.load_state(opt.state());
      opt.load_state(other.state());
    }
    opt.step();
    for (int i = 0; i < 3; ++i) expected[i] = formula(expected[i], g[static_cast<size_t>(i)], t, memory[i]);
    const std::vector<double> found = p.to_vector<double>();
    for (int i = 0; i < 3; ++i) {
      INFO("step " << t << ", element " << i);
      CHECK(found[static_cast<size_t>(i)] == Approx(expected[i]).epsilon(1e-12));
    }
  }
}

using tandem::test::message;

}  // namespace

TEST_CASE("RMSprop follows its formula, centered and with momentum", "[optim]") {
  for (const bool centered : {false, true})
    for (const double momentum : {0.0, 0.8}) {
      INFO(centered << ' ' << momentum);
      compare<optim::RMSprop>({.lr = 0.05,
                               .alpha = 0.9,
                               .eps = 1e-3,
                               .weight_decay = 0.02,
                               .momentum = momentum,
                               .centered = centered},
                              [&](double p, double g, int, double(&s)[4]) {
                                g += 0.02 * p;
                                s[0] = 0.9 * s[0] + 0.1 * g * g;
                                s[1] = 0.9 * s[1] + 0.1 * g;
                                const double root = std::sqrt(s[0] - (centered ? s[1] * s[1] : 0)) + 1e-3;
                                s[2] = momentum * s[2] + g / root;
                                return p - 0.05 * s[2];
                              });
    }
}

TEST_CASE("Adagrad follows its formula, with a falling rate and a first sum", "[optim]") {
  compare<optim::Adagrad>(
      {.lr = 0.1, .lr_decay = 0.03, .weight_decay = 0.02, .initial_accumulator_value = 0.25, .eps = 1e-4},
      [](double p, double g, int t, double(&s)[4]) {
        g += 0.02 * p;
        s[0] += g * g;
        return p - 0.1 / (1 + (t - 1) * 0.03) * g / (std::sqrt(s[0]) + 1e-4);
      },
      0.25);
}

TEST_CASE("Adamax follows its formula", "[optim]") {
  compare<optim::Adamax>({.lr = 0.1, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.02},
                         [](double p, double g, int t, double(&s)[4]) {
                           g += 0.02 * p;
                           s[0] = 0.8 * s[0] + 0.2 * g;
                           s[1] = std::max(0.95 * s[1], std::abs(g) + 1e-3);
                           return p - 0.1 / (1 - std::pow(0.8, t)) * s[0] / s[1];
                         });
}

TEST_CASE("Adam and AdamW divide by the largest second moment, if asked to", "[optim]") {
  const auto formula = [](bool decays_weights) {
    return [=](double p, double g, int t, double(&s)[4]) {
      if (decays_weights)
        p -= 0.1 * 0.02 * p;
      else
        g += 0.02 * p;
      s[0] = 0.8 * s[0] + 0.2 * g;
      s[1] = 0.5 * s[1] + 0.5 * g * g;
      s[2] = std::max(s[1], s[2]);
      const double root = std::sqrt(s[2]) / std::sqrt(1 - std::pow(0.5, t)) + 1e-3;
      return p - 0.1 / (1 - std::pow(0.8, t)) * s[0] / root;
    };
  };
  compare<optim::Adam>({.lr = 0.1, .betas = {0.8, 0.5}, .eps = 1e-3, .weight_decay = 0.02, .amsgrad = true},
                       formula(false));
  compare<optim::AdamW>({.lr = 0.1, .betas = {0.8, 0.5}, .eps = 1e-3, .weight_decay = 0.02, .amsgrad = true},
                        formula(true));
}

TEST_CASE("NAdam follows its formula", "[optim]") {
  const auto mu = [](int t) { return 0.8 * (1 - 0.5 * std::pow(0.96, t * 0.1)); };
  compare<optim::NAdam>(
      {.lr = 0.1, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.02, .momentum_decay = 0.1},
      [&](double p, double g, int t, double(&s)[4]) {
        g += 0.02 * p;
        s[0] = 0.8 * s[0] + 0.2 * g;
        s[1] = 0.95 * s[1] + 0.05 * g * g;
        s[2] = (t == 1 ? 1 : s[2]) * mu(t);
        const double m = mu(t + 1) * s[0] / (1 - s[2] * mu(t + 1)) + (1 - mu(t)) * g / (1 - s[2]);
        return p - 0.1 * m / (std::sqrt(s[1] / (1 - std::pow(0.95, t))) + 1e-3);
      });
}

// Both parameters have made as many steps at the end, but b some of them with other momenta than a.
TEST_CASE("NAdam: the product of momenta is of those that there were", "[optim]") {
  const auto run = [](unsigned on_device, bool saved) {
    const Tensor a = tensor(std::vector<double>{1, -2, 3}).requires_grad_(),
                 b = tensor(std::vector<double>{1, -2, 3}).requires_grad_();
    const auto made = [&](const optim::NAdamOptions& o) {
      return std::make_unique<optim::NAdam>(std::vector{a, b}, o);
    };
    optim::NAdamOptions options{.lr = 0.05};
    auto opt = made(options);
    for (int t = 0; t < 12; ++t) {
      if (t == 4) options.betas.first = 0.7;
      if (t == 6) options.momentum_decay = 0.3;
      opt->set_options(options);
      opt->zero_grad();
      const Tensor g = tensor(std::vector<double>{gradient(t, 0), gradient(t, 1), gradient(t, 2)});
      if (t != 9) a.set_grad(g.clone());
      if (t != 2) b.set_grad(g.clone());
      if (on_device >> t & 1)
        opt->step_unless(scalar_tensor(false));
      else
        opt->step();
      if (!saved) continue;
      auto other = made({.lr = 1});
      other->load_state(opt->state());
      opt = std::move(other);
    }
    std::vector<double> out;
    for (const Tensor& p : {a, b})
      for (const double x : p.to_vector<double>()) out.push_back(x);
    for (const NamedTensor& n : opt->state())
      if (n.name.ends_with(".step") || n.name.ends_with(".mu_product"))
        out.push_back(n.tensor.item<double>());
    return out;
  };
  double product[2] = {1, 1};
  std::vector<double> p(6), m(6), v(6);
  for (int i = 0; i < 6; ++i)
    p[static_cast<size_t>(i)] = std::vector<double>{1, -2, 3}[static_cast<size_t>(i % 3)];
  for (int k = 0; k < 2; ++k)
    for (int t = 0, step = 0; t < 12; ++t) {
      if (t == (k == 0 ? 9 : 2)) continue;
      ++step;
      const double beta = t < 4 ? 0.9 : 0.7, decay = t < 6 ? 4e-3 : 0.3;
      const auto momentum = [&](int s) { return beta * (1 - 0.5 * std::pow(0.96, s * decay)); };
      product[k] *= momentum(step);
      for (int i = 0; i < 3; ++i) {
        const auto e = static_cast<size_t>(3 * k + i);
        const double g = gradient(t, i);
        m[e] = beta * m[e] + (1 - beta) * g;
        v[e] = 0.999 * v[e] + 0.001 * g * g;
        const double way = momentum(step + 1) * m[e] / (1 - product[k] * momentum(step + 1)) +
                           (1 - momentum(step)) * g / (1 - product[k]);
        p[e] -= 0.05 * way / (std::sqrt(v[e] / (1 - std::pow(0.999, step))) + 1e-8);
      }
    }
  std::vector<double> wanted = p;
  for (const double x : product) wanted.insert(wanted.end(), {11, x});
  for (const unsigned on_device : {0u, 0xFFFu, 0x0F0u, 0xA5Au})
    for (const bool saved : {false, true}) {
      CAPTURE(on_device, saved);
      const std::vector<double> found = run(on_device, saved);
      REQUIRE(found.size() == wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i) CHECK(found[i] == Approx(wanted[i]).epsilon(1e-11));
    }
}

TEST_CASE("NAdam: an impossible product of momenta is not loaded", "[optim]") {
  const Tensor p = ones({3}).requires_grad_();
  optim::NAdam opt({p});
  for (const double impossible : {-0.5, 1.5, std::nan("")}) {
    std::vector<NamedTensor> state = opt.state();
    for (NamedTensor& n : state)
      if (n.name == "0.mu_product") n.tensor = scalar_tensor(impossible);
    CHECK_THAT(message([&] { opt.load_state(state); }),
               Contains("NAdam: the state's 0.mu_product must lie in [0, 1], found"));
  }
}

TEST_CASE("NAdam: a state of before its products were kept has those of its step counts", "[optim]") {
  const auto older = [](const optim::NAdam& opt) {
    std::vector<NamedTensor> state = opt.state();
    std::erase_if(state, [](const NamedTensor& n) { return n.name.ends_with(".mu_product"); });
    return state;
  };
  for (const double decay : {0.0, 4e-3, 0.3, 1500.0}) {
    Tensor a = ones({2}).requires_grad_(), b = ones({2}).requires_grad_();
    Tensor c = ones({2}).requires_grad_(), d = ones({2}).requires_grad_();
    optim::NAdam saved({a, b}, {.betas = {0.8, 0.99}, .momentum_decay = decay}), loaded({c, d});
    for (int t = 0; t < 40; ++t) {
      a.set_grad(full({2}, std::cos(t)));
      if (t % 3 == 0) b.set_grad(full({2}, std::sin(t)));
      saved.step();
      saved.zero_grad();
    }
    loaded.load_state(older(saved));
    const std::vector<NamedTensor> kept = saved.state(), computed = loaded.state();
    REQUIRE(kept.size() == computed.size());
    for (size_t i = 0; i < kept.size(); ++i) {
      CAPTURE(kept[i].name, decay);
      CHECK(computed[i].name == kept[i].name);
      if (kept[i].name.ends_with(".mu_product"))
        CHECK(computed[i].tensor.item<double>() == Approx(kept[i].tensor.item<double>()).epsilon(1e-14));
      else
        CHECK(computed[i].tensor.to_vector<double>() == kept[i].tensor.to_vector<double>());
    }
  }
  // One of two products is no older version's state.
  optim::NAdam opt({ones({1}).requires_grad_(), ones({1}).requires_grad_()});
  std::vector<NamedTensor> state = opt.state();
  std::erase_if(state, [](const NamedTensor& n) { return n.name == "1.mu_product"; });
  CHECK_THAT(message([&] { opt.load_state(state); }), Contains("missing: 1.mu_product"));
  // Steps beyond all that were ever made take no time.
  state = older(opt);
  for (NamedTensor& n : state)
    if (n.name.ends_with(".step")) n.tensor = scalar_tensor(std::numeric_limits<int64_t>::max() - 2);
  opt.load_state(state);
  for (const NamedTensor& n : opt.state())
    if (n.name.ends_with(".mu_product")) CHECK(n.tensor.item<double>() == 0);
}

TEST_CASE("RAdam follows its formula, before and after it is rectified", "[optim]") {
  for (const double beta2 : {0.8, 0.95}) {  // 0.8: the length stays below 9
    int rectified = 0;
    compare<optim::RAdam>({.lr = 0.1, .betas = {0.8, beta2}, .eps = 1e-3, .weight_decay = 0.02},
                          [&](double p, double g, int t, double(&s)[4]) {
                            g += 0.02 * p;
                            s[0] = 0.8 * s[0] + 0.2 * g;
                            s[1] = beta2 * s[1] + (1 - beta2) * g * g;
                            const double m = s[0] / (1 - std::pow(0.8, t)), b = std::pow(beta2, t),
                                         most = 2 / (1 - beta2) - 1, rho = most - 2 * t * b / (1 - b);
                            if (rho <= 5) return p - 0.1 * m;
                            ++rectified;
                            const double r =
                                std::sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho));
                            return p - 0.1 * m * r * std::sqrt(1 - b) / (std::sqrt(s[1]) + 1e-3);
                          });
    CHECK(rectified > 0);
    CHECK(rectified < 3 * kSteps);
  }
}

TEST_CASE("Lion follows its formula", "[optim]") {
  compare<optim::Lion>({.lr = 0.01, .betas = {0.8, 0.95}, .weight_decay = 0.1},
                       [](double p, double g, int, double(&s)[4]) {
                         const double c = 0.8 * s[0] + 0.2 * g;
                         s[0] = 0.95 * s[0] + 0.05 * g;
                         return p * (1 - 0.01 * 0.1) - 0.01 * (c > 0 ? 1 : c < 0 ? -1 : 0);
                       });
}

TEST_CASE("options switched on later get their moments; impossible ones are refused", "[optim]") {
  const Tensor p = tensor(std::vector<double>{1, -2, 3}).requires_grad_();
  p.set_grad(tensor(std::vector<double>{1, 1, 1}));
  optim::RMSprop opt({p}, {.lr = 0.1});
  opt.step();
  const auto names = [&] {
    std::string out;
    for (const NamedTensor& n : opt.state()) out += n.name + ' ';
    return out;
  };
  CHECK_THAT(names(), Contains("0.square_avg") && !Contains("0.grad_avg") && !Contains("0.momentum_buffer"));
  opt.set_options({.lr = 0.1, .momentum = 0.9, .centered = true});
  opt.step();
  CHECK_THAT(names(), Contains("0.square_avg") && Contains("0.grad_avg") && Contains("0.momentum_buffer"));
  CHECK_THAT(message([&] { optim::RMSprop({p}, {.alpha = -1}); }),
             Contains("RMSprop: alpha must be 0 or more"));
  CHECK_THAT(message([&] {
               optim::NAdam({p}, {.betas = {0.9, 1}});
             }),
             Contains("NAdam: beta2 must lie in [0, 1)"));
  CHECK_THAT(message([&] { optim::Adagrad({p}, {.lr_decay = -1}); }),
             Contains("Adagrad: lr_decay must be 0 or more"));
  CHECK_THAT(message([&] { optim::Lion({p}, {.weight_decay = std::nan("")}); }),
             Contains("Lion: weight_decay"));
}

namespace {

/// Steps up gradients are those down their negatives, bit for bit.
template <class O>
void goes_up(typename O::Options options) {
  const auto run = [&](bool up, bool on_device) {
    options.maximize = up;
    const Tensor a = tensor(std::vector<double>{1, -2, 3}).requires_grad_(), b = ones({40}).requires_grad_();
    O opt({a, b}, options);
    for (int t = 1; t <= 4; ++t) {
      const double sign = up ? 1 : -1;
      a.set_grad(tensor(std::vector<double>{sign * gradient(t, 0), sign * gradient(t, 1), sign}));
      b.set_grad(full({40}, sign * (t - 2.5)));
      if (on_device)
        opt.step_unless(scalar_tensor(false));
      else
        opt.step();
      CHECK(a.grad().to_vector<double>()[2] == sign);
    }
    std::vector<double> out;
    for (const NamedTensor& n : opt.state())
      if (!n.name.ends_with("maximize"))
        for (const double v : n.tensor.to_vector<double>()) out.push_back(v);
    for (const Tensor& p : {a, b})
      for (const double v : p.to_vector<double>()) out.push_back(v);
    return out;
  };
  CHECK(run(true, false) == run(false, false));
  CHECK(run(true, true) == run(false, true));
}

}  // namespace

TEST_CASE("maximize goes up the gradient, with every optimizer that has it", "[optim]") {
  goes_up<optim::SGD>({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true});
  goes_up<optim::Adam>({.weight_decay = 0.1});
  goes_up<optim::AdamW>({});
  goes_up<optim::AdamW>({.amsgrad = true});
  goes_up<optim::Adamax>({.weight_decay = 0.1});
  goes_up<optim::NAdam>({.weight_decay = 0.1});
  goes_up<optim::RAdam>({.weight_decay = 0.1});
  goes_up<optim::Adagrad>({.weight_decay = 0.1});
  goes_up<optim::RMSprop>({.weight_decay = 0.1, .momentum = 0.5, .centered = true});
}
