// Ten steps of a small network with each optimizer, scheduler and way of clipping against PyTorch: losses,
// learning rates, parameters.
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tests/pytorch/exchange.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr int kSteps = 10;
/// What ReduceLROnPlateau watches: better, then not for a while, then better again.
constexpr double kWatched[kSteps] = {1, 0.8, 0.9, 0.85, 0.81, 0.83, 0.7, 0.7001, 0.71, 0.72};

struct Clip {
  const char* by = "";
  double at = 0;
};

struct Trained {
  std::string name;
  DType type;
  Tensor losses, rates;
  std::vector<Tensor> parameters;
};

class Suite {
 public:
  /// Trains with `make(parameters)`, which gives an optimizer (a unique_ptr), and asks for the same. After
  /// each step `after(optimizer, step)` is called.
  template <class Make, class After>
  void train(const std::string& name, DType type, const char* optimizer, const Fields& options, Make make,
             const char* scheduler, const Fields& scheduler_options, After after, Clip clip = {}) {
    const std::string full = name + '.' + tandem::name(type);
    manual_seed(11);
    const TensorOptions o{.dtype = type};
    std::vector<Tensor> p = {randn({8, 5}, o), randn({8}, o), randn({3, 8}, o), randn({3}, o)};
    const Tensor x = randn({16, 5}, o), target = randn({16, 3}, o);
    for (size_t i = 0; i < p.size(); ++i) {
      exchange_.give(full, "p" + std::to_string(i), p[i].clone());
      p[i].requires_grad_();
    }
    exchange_.give(full, "x", x);
    exchange_.give(full, "target", target);
    const auto opt = make(p);
    auto step_scheduler = after(*opt);
    std::vector<Tensor> losses;
    std::vector<double> rates;
    for (int t = 0; t < kSteps; ++t) {
      const Tensor loss = mse_loss(linear(tanh(linear(x, p[0], p[1])), p[2], p[3]), target);
      opt->zero_grad();
      loss.backward();
      if (clip.by == std::string("norm")) nn::utils::clip_grad_norm_(p, clip.at);
      if (clip.by == std::string("value")) nn::utils::clip_grad_value_(p, clip.at);
      rates.push_back(opt->lr());
      opt->step();
      step_scheduler(t);
      losses.push_back(loss.detach());
    }
    Fields f;
    f.text("optimizer", optimizer).raw("options", options.object()).integer("steps", kSteps);
    f.text("scheduler", scheduler).raw("scheduler_options", scheduler_options.object());
    std::string watched;
    for (const double w : kWatched) watched += (watched.empty() ? "" : ", ") + Fields::json(w);
    f.raw("watched", '[' + watched + ']').text("clip", clip.by).number("clip_at", clip.at);
    exchange_.ask(full, "training", f);
    trained_.push_back({full, type, stack(losses, 0), tensor(rates), {}});
    for (const Tensor& t : p) trained_.back().parameters.push_back(t.detach());
  }

  template <class O>
  void optimizer(const std::string& name, const typename O::Options& ours, const char* theirs,
                 const Fields& options, Clip clip = {}) {
    for (const DType type : {DType::float32, DType::float64})
      train(
          name, type, theirs, options, [&](const auto& p) { return std::make_unique<O>(p, ours); }, "", {},
          [](auto&) { return [](int) {}; }, clip);
  }

  /// `make(optimizer)` gives the scheduler.
  template <class Make>
  void scheduler(const char* theirs, const Fields& options, Make make) {
    train(
        theirs, DType::float64, "SGD", Fields().number("lr", 0.1),
        [](const auto& p) { return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = 0.1}); }, theirs,
        options,
        [&](optim::Optimizer& o) {
          return [s = make(o)](int t) {
            if constexpr (requires { s->step(kWatched[t]); })
              s->step(kWatched[t]);
            else
              s->step();
          };
        });
  }

  void compare() {
    exchange_.run();
    for (const Trained& t : trained_) {
      INFO(t.name << ' ' << exchange_.without(t.name));
      const double allowed = agreement(t.type);
      CHECK(disagreement(t.losses, exchange_.answer(t.name, "losses"), allowed) == "");
      CHECK(disagreement(t.rates, exchange_.answer(t.name, "rates"), 1e-12) == "");
      for (size_t i = 0; i < t.parameters.size(); ++i)
        CHECK(disagreement(t.parameters[i], exchange_.answer(t.name, "p" + std::to_string(i)), allowed) ==
              "");
    }
  }

 private:
  Exchange exchange_;
  std::vector<Trained> trained_;
};

Fields lr(double value) { return Fields().number("lr", value); }
Fields betas(double rate, double beta1, double beta2) {
  return lr(rate).raw("betas", '[' + Fields::json(beta1) + ", " + Fields::json(beta2) + ']');
}

}  // namespace

TEST_CASE("Ten steps of every optimizer are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  Suite s;
  using namespace optim;
  s.optimizer<SGD>("SGD", {.lr = 0.1}, "SGD", lr(0.1));
  s.optimizer<SGD>("SGD momentum", {.lr = 0.05, .momentum = 0.9, .dampening = 0.2, .weight_decay = 0.01},
                   "SGD",
                   lr(0.05).number("momentum", 0.9).number("dampening", 0.2).number("weight_decay", 0.01));
  s.optimizer<SGD>("SGD Nesterov", {.lr = 0.05, .momentum = 0.9, .nesterov = true}, "SGD",
                   lr(0.05).number("momentum", 0.9).flag("nesterov", true));
  s.optimizer<Adam>("Adam", {}, "Adam", {});
  s.optimizer<Adam>("Adam options", {.lr = 0.02, .betas = {0.8, 0.95}, .eps = 1e-4, .weight_decay = 0.1},
                    "Adam", betas(0.02, 0.8, 0.95).number("eps", 1e-4).number("weight_decay", 0.1));
  s.optimizer<AdamW>("AdamW", {}, "AdamW", {});
  s.optimizer<AdamW>("AdamW options", {.lr = 0.02, .betas = {0.8, 0.95}, .eps = 1e-4, .weight_decay = 0.1},
                     "AdamW", betas(0.02, 0.8, 0.95).number("eps", 1e-4).number("weight_decay", 0.1));
  s.optimizer<Adamax>("Adamax", {}, "Adamax", {});
  s.optimizer<Adamax>("Adamax options", {.lr = 0.02, .betas = {0.8, 0.95}, .eps = 1e-4, .weight_decay = 0.1},
                      "Adamax", betas(0.02, 0.8, 0.95).number("eps", 1e-4).number("weight_decay", 0.1));
  s.optimizer<NAdam>("NAdam", {}, "NAdam", {});
  s.optimizer<NAdam>("NAdam options",
                     {.lr = 0.02, .betas = {0.8, 0.95}, .weight_decay = 0.1, .momentum_decay = 0.01}, "NAdam",
                     betas(0.02, 0.8, 0.95).number("weight_decay", 0.1).number("momentum_decay", 0.01));
  s.optimizer<RAdam>("RAdam", {}, "RAdam", {});
  s.optimizer<RAdam>("RAdam options", {.lr = 0.02, .betas = {0.8, 0.9}, .weight_decay = 0.1}, "RAdam",
                     betas(0.02, 0.8, 0.9).number("weight_decay", 0.1));
  s.optimizer<Adagrad>("Adagrad", {}, "Adagrad", {});
  s.optimizer<Adagrad>("Adagrad options",
                       {.lr = 0.1, .lr_decay = 0.03, .weight_decay = 0.02, .initial_accumulator_value = 0.25},
                       "Adagrad",
                       lr(0.1)
                           .number("lr_decay", 0.03)
                           .number("weight_decay", 0.02)
                           .number("initial_accumulator_value", 0.25));
  s.optimizer<RMSprop>("RMSprop", {}, "RMSprop", {});
  s.optimizer<RMSprop>("RMSprop options",
                       {.lr = 0.02, .alpha = 0.9, .weight_decay = 0.02, .momentum = 0.8, .centered = true},
                       "RMSprop",
                       lr(0.02)
                           .number("alpha", 0.9)
                           .number("weight_decay", 0.02)
                           .number("momentum", 0.8)
                           .flag("centered", true));
  s.optimizer<RMSprop>("RMSprop centered", {.lr = 0.02, .centered = true}, "RMSprop",
                       lr(0.02).flag("centered", true));
  s.optimizer<RMSprop>("RMSprop momentum", {.lr = 0.02, .momentum = 0.5}, "RMSprop",
                       lr(0.02).number("momentum", 0.5));
  s.optimizer<Lion>("Lion", {.lr = 0.01, .betas = {0.8, 0.95}, .weight_decay = 0.1}, "Lion",
                    betas(0.01, 0.8, 0.95).number("weight_decay", 0.1));
  const auto up = [](Fields f) { return f.flag("maximize", true).number("weight_decay", 0.1); };
  s.optimizer<SGD>("SGD up", {.lr = 0.02, .momentum = 0.9, .weight_decay = 0.1, .maximize = true}, "SGD",
                   up(lr(0.02).number("momentum", 0.9)));
  s.optimizer<Adam>("Adam up", {.weight_decay = 0.1, .maximize = true}, "Adam", up({}));
  s.optimizer<AdamW>("AdamW up", {.weight_decay = 0.1, .maximize = true}, "AdamW", up({}));
  s.optimizer<Adamax>("Adamax up", {.weight_decay = 0.1, .maximize = true}, "Adamax", up({}));
  s.optimizer<Adagrad>("Adagrad up", {.weight_decay = 0.1, .maximize = true}, "Adagrad", up({}));
  s.optimizer<RMSprop>("RMSprop up", {.weight_decay = 0.1, .maximize = true}, "RMSprop", up({}));
  const auto largest = [](Fields f) { return f.flag("amsgrad", true); };
  s.optimizer<Adam>("Adam amsgrad", {.lr = 0.01, .betas = {0.8, 0.6}, .amsgrad = true}, "Adam",
                    largest(betas(0.01, 0.8, 0.6)));
  s.optimizer<AdamW>(
      "AdamW amsgrad up",
      {.lr = 0.01, .betas = {0.8, 0.6}, .weight_decay = 0.1, .amsgrad = true, .maximize = true}, "AdamW",
      up(largest(betas(0.01, 0.8, 0.6))));
  s.optimizer<SGD>("clip norm", {.lr = 0.1}, "SGD", lr(0.1), {"norm", 0.5});
  s.optimizer<SGD>("clip value", {.lr = 0.1}, "SGD", lr(0.1), {"value", 0.1});
  s.compare();
}

TEST_CASE("Ten epochs of every scheduler are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  Suite s;
  using namespace optim;
  const auto with = [](auto... arguments) {
    return [=]<class S>(S*, Optimizer& o) { return std::make_unique<S>(o, arguments...); };
  };
  const auto add = [&]<class S>(S* type, const char* name, const Fields& options, auto make) {
    s.scheduler(name, options, [&](Optimizer& o) { return make(type, o); });
  };
  add(static_cast<StepLR*>(nullptr), "StepLR", Fields().integer("step_size", 3).number("gamma", 0.5),
      with(3, 0.5));
  add(static_cast<MultiStepLR*>(nullptr), "MultiStepLR",
      Fields().list("milestones", std::vector{2, 5, 5}).number("gamma", 0.5),
      with(std::vector<int64_t>{2, 5, 5}, 0.5));
  add(static_cast<ExponentialLR*>(nullptr), "ExponentialLR", Fields().number("gamma", 0.9), with(0.9));
  add(static_cast<ConstantLR*>(nullptr), "ConstantLR",
      Fields().number("factor", 0.25).integer("total_iters", 4), with(0.25, 4));
  add(static_cast<LinearLR*>(nullptr), "LinearLR",
      Fields().number("start_factor", 0.25).number("end_factor", 0.75).integer("total_iters", 6),
      with(0.25, 0.75, 6));
  add(static_cast<PolynomialLR*>(nullptr), "PolynomialLR",
      Fields().integer("total_iters", 7).number("power", 2), with(7, 2.0));
  add(static_cast<CosineAnnealingLR*>(nullptr), "CosineAnnealingLR",
      Fields().integer("T_max", 6).number("eta_min", 0.01), with(6, 0.01));
  add(static_cast<CosineAnnealingWarmRestarts*>(nullptr), "CosineAnnealingWarmRestarts",
      Fields().integer("T_0", 2).integer("T_mult", 2).number("eta_min", 0.01), with(2, 2, 0.01));
  s.scheduler("LambdaLR", Fields().number("lr_lambda", 0.8), [](Optimizer& o) {
    return std::make_unique<LambdaLR>(
        o, [](int64_t epoch) { return std::pow(0.8, static_cast<double>(epoch)); });
  });
  s.scheduler("OneCycleLR",
              Fields().number("max_lr", 0.3).integer("total_steps", kSteps).flag("cycle_momentum", false),
              [](Optimizer& o) {
                return std::make_unique<OneCycleLR>(o, OneCycleOptions{.max_lr = 0.3, .total_steps = kSteps});
              });
  s.scheduler("ReduceLROnPlateau", Fields().number("factor", 0.5).integer("patience", 1), [](Optimizer& o) {
    return std::make_unique<ReduceLROnPlateau>(o, PlateauOptions{.factor = 0.5, .patience = 1});
  });
  s.compare();
}
