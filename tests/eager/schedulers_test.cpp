// Schedulers against PyTorch's recursive formulas, their states and bad input.
#include "tandem/eager/optim/schedulers.h"

#include <cmath>
#include <limits>
#include <memory>
#include <numbers>

#include "tandem/eager/functions.h"
#include "tandem/eager/optim/optimizers.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

constexpr double kPi = std::numbers::pi;

/// An optimizer of two groups with rates 1 and 0.5.
struct Two {
  Tensor a = zeros({1}).requires_grad_(), b = zeros({1}).requires_grad_();
  optim::SGD opt{{{{a}, {.lr = 1}}, {{b}, {.lr = 0.5}}}};
};

/// The first group's rate now and after each of n steps; the second group's is half of it.
std::vector<double> rates(Two& two, optim::EpochScheduler& s, int n) {
  std::vector<double> out;
  for (int i = 0;; ++i) {
    out.push_back(two.opt.lr());
    CHECK(two.opt.lr(1) == Approx(out.back() / 2));
    if (i == n) return out;
    s.step();
  }
}

void near(const std::vector<double>& found, const std::vector<double>& expected) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    INFO(i);
    CHECK(found[i] == Approx(expected[i]).margin(1e-12));
  }
}

using tandem::test::message;

}  // namespace

TEST_CASE("schedulers of one optimizer work together as PyTorch's do", "[optim]") {
  const auto run = [](auto&& make, int epochs) {  // the first group's rates from epoch 1 on
    Two two;
    two.opt.set_lr(0.5);
    std::vector<double> out;
    auto step = make(two.opt);
    for (int i = 0; i < epochs; ++i) {
      step(i);
      out.push_back(two.opt.lr());
    }
    return out;
  };
  const auto both = [](auto first, auto second) {
    return [first, second](int) { first->step(), second->step(); };
  };
  using optim::Optimizer;
  near(run(
           [&](Optimizer& o) {
             return both(std::make_shared<optim::ExponentialLR>(o, 0.9),
                         std::make_shared<optim::MultiStepLR>(o, std::vector<int64_t>{3, 6}, 0.1));
           },
           4),
       {0.45, 0.405, 0.03645, 0.032805});
  near(run(
           [&](Optimizer& o) {
             return both(std::make_shared<optim::ConstantLR>(o, 0.1, 2),
                         std::make_shared<optim::ExponentialLR>(o, 0.9));
           },
           3),
       {0.045, 0.405, 0.3645});
  near(run(
           [&](Optimizer& o) {
             return both(std::make_shared<optim::LinearLR>(o, 0.25, 1, 4),
                         std::make_shared<optim::StepLR>(o, 5, 0.1));
           },
           6),
       {0.21875, 0.3125, 0.40625, 0.5, 0.05, 0.05});
  near(run(
           [&](Optimizer& o) {
             return both(std::make_shared<optim::CosineAnnealingLR>(o, 2, 0.1),
                         std::make_shared<optim::StepLR>(o, 1, 0.5));
           },
           4),
       {0.15, 0.05, 0.125, 0.075});
  near(run(
           [](Optimizer& o) {  // a rate set by hand stays
             return [s = std::make_shared<optim::StepLR>(o, 3, 0.5), &o](int i) {
               if (i == 4) o.set_lr(7);
               s->step();
             };
           },
           6),
       {0.5, 0.5, 0.25, 0.25, 7, 3.5});
  near(run(
           [](Optimizer& o) {  // and so does a plateau's cut
             return [e = std::make_shared<optim::ExponentialLR>(o, 0.9),
                     p = std::make_shared<optim::ReduceLROnPlateau>(
                         o, optim::PlateauOptions{.factor = 0.5, .patience = 0})](int i) {
               e->step(), p->step(i < 2 ? 1 - i : 5);
             };
           },
           4),
       {0.45, 0.405, 0.18225, 0.0820125});
  Two two;
  optim::StepLR s(two.opt, 2, 0.5);
  const Tensor late = zeros({1}).requires_grad_();
  two.opt.add_group({late}, {.lr = 3});
  for (int i = 0; i < 4; ++i) s.step();
  CHECK(two.opt.lr(2) == 0.75);
}

TEST_CASE("schedulers by the epoch follow PyTorch's formulas", "[optim]") {
  {
    Two two;
    optim::MultiStepLR s(two.opt, {4, 2, 2}, 0.5);
    near(rates(two, s, 5), {1, 1, 0.25, 0.25, 0.125, 0.125});
  }
  {
    Two two;
    optim::ExponentialLR s(two.opt, 0.5);
    near(rates(two, s, 3), {1, 0.5, 0.25, 0.125});
  }
  {
    Two two;
    optim::ConstantLR s(two.opt, 0.25, 2);
    near(rates(two, s, 3), {0.25, 0.25, 1, 1});
  }
  {
    Two two;
    optim::LinearLR s(two.opt, 0.5, 1, 4);
    near(rates(two, s, 5), {0.5, 0.625, 0.75, 0.875, 1, 1});
  }
  {
    Two two;
    optim::PolynomialLR s(two.opt, 4, 2);
    near(rates(two, s, 5), {1, 0.5625, 0.25, 0.0625, 0, 0});
  }
  {
    Two two;
    optim::PolynomialLR s(two.opt, 2, 0);
    near(rates(two, s, 3), {1, 1, 1, 1});
  }
  {
    Two two;
    optim::LambdaLR s(two.opt, [](int64_t epoch) { return 1 / (1 + static_cast<double>(epoch)); });
    near(rates(two, s, 2), {1, 0.5, 1.0 / 3});
  }
}

TEST_CASE("warm restarts begin again at the first rate, each after a longer time", "[optim]") {
  Two two;
  optim::CosineAnnealingWarmRestarts s(two.opt, 2, 2);
  const auto at = [](double t, double length) { return (1 + std::cos(kPi * t / length)) / 2; };
  near(rates(two, s, 7), {1, at(1, 2), 1, at(1, 4), at(2, 4), at(3, 4), 1, at(1, 8)});
  Two other;
  optim::CosineAnnealingWarmRestarts even(other.opt, 3);
  near(rates(other, even, 4), {1, at(1, 3), at(2, 3), 1, at(1, 3)});
}

TEST_CASE("one cycle rises, falls and ends", "[optim]") {
  const Tensor p = zeros({1}).requires_grad_();
  optim::SGD opt({p}, {.lr = 7});
  optim::OneCycleLR s(
      opt, {.max_lr = 1, .total_steps = 10, .pct_start = 0.5, .div_factor = 4, .final_div_factor = 10});
  std::vector<double> found = {opt.lr()}, expected;
  for (int i = 0; i < 10; ++i) s.step(), found.push_back(opt.lr());  // the last one behind the last batch
  const auto cosine = [](double from, double to, double way) {
    return to + (from - to) / 2 * (1 + std::cos(kPi * way));
  };
  for (int i = 0; i <= 10; ++i)
    expected.push_back(i <= 4 ? cosine(0.25, 1, i / 4.0) : cosine(1, 0.025, (i - 4) / 5.0));
  near(found, expected);
  CHECK_THAT(message([&] { s.step(); }), Contains("ends after 10 steps") && Contains("schedulers_test.cpp"));
  CHECK(s.last_epoch() == 10);
  CHECK(opt.lr() == found.back());
}

TEST_CASE("one cycle that only rises stays at its top", "[optim]") {
  const Tensor p = zeros({1}).requires_grad_();
  optim::SGD opt({p}, {.lr = 7});
  optim::OneCycleLR s(opt, {.max_lr = 1, .total_steps = 4, .pct_start = 1, .final_div_factor = 10});
  for (int i = 0; i < 3; ++i) s.step();
  CHECK(opt.lr() == Approx(1));
  s.step();
  CHECK(opt.lr() == Approx(0.004));
}

TEST_CASE("a rate falls on a plateau, and not in the cooldown after it", "[optim]") {
  const Tensor p = zeros({1}).requires_grad_();
  optim::SGD opt({p}, {.lr = 1});
  optim::ReduceLROnPlateau s(opt,
                             {.factor = 0.5, .patience = 1, .threshold = 0.1, .cooldown = 2, .min_lr = 0.2});
  const auto after = [&](double value) { return s.step(value), opt.lr(); };
  CHECK(after(std::numeric_limits<double>::quiet_NaN()) == 1);  // never better
  CHECK(after(10) == 1);
  CHECK(after(9.5) == 1);  // better by less than a tenth
  CHECK(after(9.5) == 0.5);
  CHECK(after(9.5) == 0.5);  // cooldown
  CHECK(after(9.5) == 0.5);
  CHECK(after(8.9) == 0.5);  // better
  CHECK(after(9) == 0.5);

  optim::SGD other({p}, {.lr = 0.5});
  optim::ReduceLROnPlateau again(
      other, {.factor = 0.5, .patience = 1, .threshold = 0.1, .cooldown = 2, .min_lr = 0.2});
  again.load_state(s.state());
  CHECK(again.last_epoch() == 8);
  again.step(9);
  CHECK(other.lr() == 0.25);
  for (int i = 0; i < 5; ++i) again.step(9);
  CHECK(other.lr() == 0.2);

  optim::SGD up({p}, {.lr = 1});
  optim::ReduceLROnPlateau best(
      up, {.mode = optim::PlateauMode::max, .patience = 0, .threshold_mode = optim::PlateauThreshold::abs});
  for (const double v : {0.5, 0.6, 0.7}) best.step(v);
  CHECK(up.lr() == 1);
  best.step(0.7);
  CHECK(up.lr() == Approx(0.1));
}

TEST_CASE("impossible schedulers and states are refused with the caller's line", "[optim]") {
  Two two;
  optim::SGD& opt = two.opt;
  const auto refused = [](const std::string& text, const char* what) {
    INFO(text);
    CHECK_THAT(text, Contains(what));
    CHECK_THAT(text, Contains("schedulers_test.cpp"));
  };
  refused(message([&] { optim::MultiStepLR(opt, {3, 0}); }), "a milestone must be at least 1, found 0");
  refused(message([&] { optim::ExponentialLR(opt, -1); }), "gamma must be 0 or more");
  refused(message([&] { optim::ConstantLR(opt, 1.5); }), "factor must lie in [0, 1]");
  refused(message([&] { optim::LinearLR(opt, 0); }), "start_factor must lie in (0, 1]");
  refused(message([&] { optim::PolynomialLR(opt, 0); }), "total_iters must be at least 1");
  refused(message([&] { optim::CosineAnnealingWarmRestarts(opt, 2, 0); }), "t_mult must be at least 1");
  refused(message([&] { optim::LambdaLR(opt, nullptr); }), "the function is empty");
  refused(message([&] { optim::OneCycleLR(opt, {.max_lr = 1, .total_steps = 0}); }), "total_steps");
  refused(message([&] { optim::ReduceLROnPlateau(opt, {.factor = 1}); }), "factor must lie in [0, 1)");
  refused(message([&] { optim::LambdaLR(opt, [](int64_t) { return std::nan(""); }); }), "lr must be");
  CHECK(opt.lr() == 1);
  optim::ReduceLROnPlateau s(opt);
  std::vector<NamedTensor> state = s.state();
  state.back().tensor = scalar_tensor(std::nan(""));
  refused(message([&] { s.load_state(state); }), "cooldown_counter is not a number");
  state.pop_back();
  refused(message([&] { s.load_state(state); }), "missing: cooldown_counter");
}
