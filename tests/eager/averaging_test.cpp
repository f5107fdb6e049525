// Moving averages of parameters.
#include "tandem/eager/optim/averaging.h"

#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

using tandem::test::message;

TEST_CASE("an average follows its parameter by 1 - decay a step", "[optim]") {
  const Tensor p = tensor(std::vector<double>{1, -2}).requires_grad_();
  optim::ExponentialMovingAverage ema({p}, 0.75);
  std::vector<double> expected = {1, -2};
  for (int step = 1; step <= 5; ++step) {
    {
      const NoGrad no_grad;
      p.add_(step);
    }
    if (step == 3) ema.set_decay(0.5);
    ema.update();
    const std::vector<double> now = p.to_vector<double>();
    for (size_t i = 0; i < 2; ++i)
      expected[i] = step == 1 ? now[i] : ema.decay() * expected[i] + (1 - ema.decay()) * now[i];
    for (size_t i = 0; i < 2; ++i) CHECK(ema.averages()[0].to_vector<double>()[i] == Approx(expected[i]));
  }
  CHECK(!ema.averages()[0].requires_grad());
  const std::vector<double> averages = ema.averages()[0].to_vector<double>(), values = p.to_vector<double>();
  ema.swap();
  CHECK(p.to_vector<double>() == averages);
  CHECK(p.requires_grad());
  CHECK(ema.averages()[0].to_vector<double>() == values);
  ema.swap();
  CHECK(p.to_vector<double>() == values);
}

TEST_CASE("the state of averages is taken back whole or not at all", "[optim]") {
  const Tensor a = ones({2}), b = zeros({3});
  optim::ExponentialMovingAverage ema({a, b}), other({zeros({2}), ones({3})});
  other.load_state(ema.state());
  CHECK(other.averages()[0].to_vector<float>() == std::vector<float>{1, 1});
  CHECK(other.averages()[1].to_vector<float>() == std::vector<float>{0, 0, 0});
  std::vector<NamedTensor> state = ema.state();
  state[0].tensor = full({2}, 7.0);
  state[1].tensor = zeros({4});
  CHECK_THAT(message([&] { other.load_state(state); }), Contains("averaging_test.cpp"));
  CHECK(other.averages()[0].to_vector<float>() == std::vector<float>{1, 1});
}

TEST_CASE("a state of averages tells whether there was an update; an older one is of some", "[optim]") {
  const Tensor p = zeros({1});
  optim::ExponentialMovingAverage fresh({p}, 0.5), old({p}, 0.5), moved({p}, 0.5);
  moved.update();
  std::vector<NamedTensor> before = fresh.state();
  before.pop_back();
  old.load_state(before);
  optim::ExponentialMovingAverage again({p}, 0.5);
  again.load_state(moved.state());
  moved.load_state(fresh.state());
  p.fill_(8);
  for (optim::ExponentialMovingAverage* e : {&fresh, &old, &moved, &again}) e->update();
  CHECK(fresh.averages()[0].item<float>() == 8);
  CHECK(old.averages()[0].item<float>() == 4);
  CHECK(moved.averages()[0].item<float>() == 8);
  CHECK(again.averages()[0].item<float>() == 4);
}

TEST_CASE("averages of impossible things are refused", "[optim]") {
  CHECK_THAT(message([&] { optim::ExponentialMovingAverage({zeros({2})}, 1.5); }),
             Contains("decay must lie in [0, 1]"));
  CHECK_THAT(message([&] {
               optim::ExponentialMovingAverage({zeros({2}), zeros({2}, {.dtype = int64})});
             }),
             Contains("parameter 1 is int64"));
  CHECK_THAT(message([&] { optim::ExponentialMovingAverage({Tensor()}); }), Contains("averaging_test.cpp"));
}
