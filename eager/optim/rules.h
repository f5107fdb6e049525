// What differs between the optimizers: names, options as numbers and back, what is wrong with numbers, which
// moments they keep, and the op of an update with its words, in the order of ops/update.def: from the host's
// step count, or, as the numbers of a guard, from the device's. Stateless.
#pragma once

#include <cmath>
#include <string>

#include "tandem/eager/functions.h"
#include "tandem/eager/optim/optimizers.h"
#include "tandem/eager/optim/update_run.h"

namespace tandem::optim {

using ops::OpId;
using Numbers = std::array<double, Optimizer::kNumbers>;

/// "name must be ..., found x; ", or nothing.
inline std::string unless(bool fine, const char* name, const char* rule, double found) {
  return fine ? "" : std::string(name) + " must " + rule + ", found " + std::to_string(found) + "; ";
}
/// Of the numbers listed, those that are negative or not finite.
inline std::string unless_sizes(const Numbers& n, const char* const* names,
                                std::initializer_list<size_t> which) {
  std::string text;
  for (const size_t k : which)
    text += unless(n[k] >= 0 && std::isfinite(n[k]), names[k], "be 0 or more", n[k]);
  return text;
}
/// Of the numbers listed, those outside [0, 1).
inline std::string unless_parts(const Numbers& n, const char* const* names,
                                std::initializer_list<size_t> which) {
  std::string text;
  for (const size_t k : which) text += unless(n[k] >= 0 && n[k] < 1, names[k], "lie in [0, 1)", n[k]);
  return text;
}

/// Of the numbers listed, those that are neither 0 nor 1.
inline std::string unless_switches(const Numbers& n, const char* const* names,
                                   std::initializer_list<size_t> which) {
  std::string text;
  for (const size_t k : which) text += unless(n[k] == 0 || n[k] == 1, names[k], "be 0 or 1", n[k]);
  return text;
}

/// Arithmetic on float64 scalars of the device, at the line of a step.
struct OnDeviceNumber {
  Tensor value;
  Location where;
  OnDeviceNumber(const Tensor& value, Location where) : value(value), where(where) {}
  // clang-format off
#define TANDEM_NUMBERS(sign, function)                                                                        \
  friend OnDeviceNumber operator sign(const OnDeviceNumber& a, const OnDeviceNumber& b) {                     \
    return {function(Operand(a.value, a.where), Operand(b.value, a.where)), a.where}; }                       \
  friend OnDeviceNumber operator sign(const OnDeviceNumber& a, double b) {                                    \
    return {function(Operand(a.value, a.where), Operand(b, a.where)), a.where}; }                             \
  friend OnDeviceNumber operator sign(double a, const OnDeviceNumber& b) {                                    \
    return {function(Operand(a, b.where), Operand(b.value, b.where)), b.where}; }
  TANDEM_NUMBERS(+, add)
  TANDEM_NUMBERS(-, sub)
  TANDEM_NUMBERS(*, mul)
  TANDEM_NUMBERS(/, div)
#undef TANDEM_NUMBERS
  // clang-format on
  OnDeviceNumber root() const { return {sqrt(value, where), where}; }
  /// `base` to its power.
  OnDeviceNumber power_of(double base) const {
    return {pow(Operand(base, where), Operand(value, where)), where};
  }
  /// 1 - base to its power, as Adam corrects a moment.
  OnDeviceNumber correction(double beta) const { return 1.0 - power_of(beta); }
};

/// A step of the device: its number, from 1 on, and the product of NAdam's momenta before it.
struct DeviceStep {
  Tensor now, product;
  Location where;
  OnDeviceNumber number() const { return {now, where}; }
};

struct AnyRules {
  static double initial_moment(const Numbers&) { return 0; }
  /// Appends the numbers of a guard behind the first, each (1). Gives the product after this step, or none.
  static Tensor step_numbers(const Numbers&, const DeviceStep&, std::vector<Tensor>&) { return {}; }
  static void append(std::vector<Tensor>& out, std::initializer_list<OnDeviceNumber> numbers) {
    for (const OnDeviceNumber& n : numbers) out.push_back(n.value.reshape({1}, n.where));
  }
};
template <class Options>
struct Rules;

template <>
struct Rules<SGDOptions> : AnyRules {
  static constexpr const char* kNumbers[] = {"lr",           "momentum", "dampening",
                                             "weight_decay", "nesterov", "maximize"};
  static constexpr const char* kMoments[] = {"momentum_buffer"};
  enum : size_t { kLr, kMomentum, kDampening, kDecay, kNesterov, kMaximize };
  static constexpr Optimizer::Names names() { return {"SGD", kNumbers, kMoments, nullptr, 1}; }
  static Numbers numbers(const SGDOptions& o) {
    return {o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov ? 1.0 : 0.0, o.maximize ? 1.0 : 0.0};
  }
  static SGDOptions options(const Numbers& n) {
    return {.lr = n[kLr],
            .momentum = n[kMomentum],
            .dampening = n[kDampening],
            .weight_decay = n[kDecay],
            .nesterov = n[kNesterov] != 0,
            .maximize = n[kMaximize] != 0};
  }
  static uint32_t moments(const Numbers& n) { return n[kMomentum] != 0; }
  static std::string mistakes(const Numbers& n) {
    std::string text = unless_sizes(n, kNumbers, {kLr, kMomentum, kDecay});
    text += unless(std::isfinite(n[kDampening]), "dampening", "be finite", n[kDampening]);
    text += unless_switches(n, kNumbers, {kNesterov, kMaximize});
    if (n[kNesterov] != 0) {
      text += unless(n[kMomentum] > 0, "momentum", "be above 0 with nesterov", n[kMomentum]);
      text += unless(n[kDampening] == 0, "dampening", "be 0 with nesterov", n[kDampening]);
    }
    return text;
  }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections&) {
    if (n[kMomentum] == 0) {
      run.op(OpId::sgd_update, {});
      run.words({n[kLr], n[kDecay]});
      return;
    }
    run.op(OpId::sgd_momentum_update, {0});
    run.words({n[kLr], n[kMomentum], n[kDampening], n[kDecay]});
    run.flag(n[kNesterov] != 0);
    // The first step fills the buffer with the gradient, undampened. Without dampening a buffer of zeros does
    // the same, and the first step is an op like the later ones.
    run.flag(steps == 0 && n[kDampening] != 0);
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    if (n[kMomentum] == 0) return {};
    const Tensor later = gt(Operand(step.now, step.where), Operand(1.0, step.where)).to(float64, step.where);
    append(out, {OnDeviceNumber(later, step.where) * n[kDampening]});
    return {};
  }
};

/// Adam's relatives: two moments, and numbers that begin with lr, beta1, beta2, eps, weight_decay.
template <class Options>
struct AdamRules : AnyRules {
  static constexpr const char* kNumbers[] = {"lr", "beta1", "beta2", "eps", "weight_decay", "maximize"};
  static constexpr const char* kMoments[] = {"exp_avg", "exp_avg_sq"};
  enum : size_t { kLr, kBeta1, kBeta2, kEps, kDecay, kMaximize };
  static Numbers numbers(const Options& o) {
    return {o.lr, o.betas.first, o.betas.second, o.eps, o.weight_decay, o.maximize ? 1.0 : 0.0};
  }
  static Options options(const Numbers& n) {
    return {.lr = n[kLr],
            .betas = {n[kBeta1], n[kBeta2]},
            .eps = n[kEps],
            .weight_decay = n[kDecay],
            .maximize = n[kMaximize] != 0};
  }
  static uint32_t moments(const Numbers&) { return 0b11; }
  static std::string mistakes(const Numbers& n) {
    return mistakes_but_of_maximize(n) + unless_switches(n, kNumbers, {kMaximize});
  }
  static std::string mistakes_but_of_maximize(const Numbers& n) {
    return unless_sizes(n, kNumbers, {kLr, kEps, kDecay}) + unless_parts(n, kNumbers, {kBeta1, kBeta2});
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    const OnDeviceNumber first = step.number().correction(n[kBeta1]);
    const OnDeviceNumber second = step.number().correction(n[kBeta2]);
    append(out, {first, second});
    return {};
  }
};
/// Those of them that may keep the largest second moment.
template <class Options>
struct AmsgradRules : AdamRules<Options> {
  using Base = AdamRules<Options>;
  using Base::kBeta1, Base::kBeta2, Base::kDecay, Base::kEps, Base::kLr;
  static constexpr const char* kNumbers[] = {"lr",           "beta1",    "beta2",  "eps",
                                             "weight_decay", "maximize", "amsgrad"};
  static constexpr const char* kMoments[] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  static constexpr size_t kAmsgrad = Base::kMaximize + 1;
  static Numbers numbers(const Options& o) {
    Numbers n = Base::numbers(o);
    n[kAmsgrad] = o.amsgrad ? 1.0 : 0.0;
    return n;
  }
  static Options options(const Numbers& n) {
    Options o = Base::options(n);
    o.amsgrad = n[kAmsgrad] != 0;
    return o;
  }
  static uint32_t moments(const Numbers& n) { return n[kAmsgrad] != 0 ? 0b111 : 0b11; }
  static std::string mistakes(const Numbers& n) {
    return Base::mistakes(n) + unless_switches(n, kNumbers, {kAmsgrad});
  }
  static void adam(OpId plain, OpId amsgrad, UpdateRun& run, const Numbers& n, int64_t steps,
                   Corrections& c) {
    if (n[kAmsgrad] != 0)
      run.op(amsgrad, {0, 1, 2});
    else
      run.op(plain, {0, 1});
    run.words({n[kLr], n[kBeta1], n[kBeta2], n[kEps], n[kDecay], c.bias[0].at(n[kBeta1], steps + 1),
               c.bias[1].at(n[kBeta2], steps + 1)});
  }
};
template <>
struct Rules<AdamOptions> : AmsgradRules<AdamOptions> {
  static constexpr Optimizer::Names names() { return {"Adam", kNumbers, kMoments, nullptr, 2}; }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections& c) {
    adam(OpId::adam_update, OpId::adam_amsgrad_update, run, n, steps, c);
  }
};
template <>
struct Rules<AdamWOptions> : AmsgradRules<AdamWOptions> {
  static constexpr Optimizer::Names names() { return {"AdamW", kNumbers, kMoments, nullptr, 2}; }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections& c) {
    adam(OpId::adamw_update, OpId::adamw_amsgrad_update, run, n, steps, c);
  }
};
template <>
struct Rules<AdamaxOptions> : AdamRules<AdamaxOptions> {
  static constexpr const char* kMoments[] = {"exp_avg", "exp_inf"};
  static constexpr Optimizer::Names names() { return {"Adamax", kNumbers, kMoments, nullptr, 1}; }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections& c) {
    run.op(OpId::adamax_update, {0, 1});
    run.words({n[kLr], n[kBeta1], n[kBeta2], n[kEps], n[kDecay], c.bias[0].at(n[kBeta1], steps + 1)});
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    append(out, {step.number().correction(n[kBeta1])});
    return {};
  }
};

template <>
struct Rules<NAdamOptions> : AdamRules<NAdamOptions> {
  static constexpr const char* kNumbers[] = {"lr",           "beta1",          "beta2",   "eps",
                                             "weight_decay", "momentum_decay", "maximize"};
  enum : size_t { kMomentumDecay = kDecay + 1, kMaximize };
  static constexpr Optimizer::Names names() { return {"NAdam", kNumbers, kMoments, "mu_product", 1}; }
  static Numbers numbers(const NAdamOptions& o) {
    return {o.lr,           o.betas.first,    o.betas.second,        o.eps,
            o.weight_decay, o.momentum_decay, o.maximize ? 1.0 : 0.0};
  }
  static NAdamOptions options(const Numbers& n) {
    return {.lr = n[kLr],
            .betas = {n[kBeta1], n[kBeta2]},
            .eps = n[kEps],
            .weight_decay = n[kDecay],
            .momentum_decay = n[kMomentumDecay],
            .maximize = n[kMaximize] != 0};
  }
  static std::string mistakes(const Numbers& n) {
    return AdamRules::mistakes_but_of_maximize(n) + unless_sizes(n, kNumbers, {kMomentumDecay}) +
           unless_switches(n, kNumbers, {kMaximize});
  }
  /// beta * (1 - 0.5 * 0.96^(step * decay)) (Dozat, 2016)
  static double momentum(const Numbers& n, int64_t step) {
    return n[kBeta1] * (1 - 0.5 * std::pow(0.96, static_cast<double>(step) * n[kMomentumDecay]));
  }
  /// Of the momenta up to a step. Once 0.96^(step * decay) is lost in rounding they are all beta.
  static double product_of(const Numbers& n, int64_t steps) {
    constexpr double kLost = 1000;  // 0.96^1000 is below 2^-58
    double product = 1;
    for (int64_t step = 1; step <= steps && product != 0; ++step) {
      if (static_cast<double>(step) * n[kMomentumDecay] > kLost)
        return product * std::pow(n[kBeta1], static_cast<double>(steps - step + 1));
      product *= momentum(n, step);
    }
    return product;
  }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections& c) {
    const double now = momentum(n, steps + 1), next = momentum(n, steps + 2);
    c.product *= now;
    run.op(OpId::nadam_update, {0, 1});
    run.words({n[kLr] * (1 - now) / (1 - c.product), n[kLr] * next / (1 - c.product * next), n[kBeta1],
               n[kBeta2], n[kEps], n[kDecay], c.bias[1].at(n[kBeta2], steps + 1)});
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    const double beta = n[kBeta1], base = std::pow(0.96, n[kMomentumDecay]);
    const OnDeviceNumber decayed = step.number().power_of(base);
    const OnDeviceNumber now = beta * (1.0 - 0.5 * decayed);
    const OnDeviceNumber next = beta * (1.0 - 0.5 * base * decayed);
    const OnDeviceNumber product = now * OnDeviceNumber(step.product, step.where);
    const OnDeviceNumber left = 1.0 - product, left_next = 1.0 - product * next;
    const OnDeviceNumber gradient_rate = n[kLr] * (1.0 - now) / left;
    const OnDeviceNumber moment_rate = n[kLr] * next / left_next;
    const OnDeviceNumber second = step.number().correction(n[kBeta2]);
    append(out, {gradient_rate, moment_rate, second});
    return product.value;
  }
};

template <>
struct Rules<RAdamOptions> : AdamRules<RAdamOptions> {
  static constexpr Optimizer::Names names() { return {"RAdam", kNumbers, kMoments, nullptr, 1}; }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections& c) {
    const double first = c.bias[0].at(n[kBeta1], steps + 1), second = c.bias[1].at(n[kBeta2], steps + 1),
                 most = 2 / (1 - n[kBeta2]) - 1, step = static_cast<double>(steps + 1),
                 length = most - 2 * step * (1 - second) / second;  // of the moving average
    const bool rectified = length > 5;
    const double factor =
        rectified
            ? std::sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length) * second)
            : 1;
    run.op(OpId::radam_update, {0, 1});
    run.words({n[kLr] / first * factor, n[kBeta1], n[kBeta2], n[kEps], n[kDecay]});
    run.flag(rectified);
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    const double most = 2 / (1 - n[kBeta2]) - 1;
    const OnDeviceNumber first = step.number().correction(n[kBeta1]);
    const OnDeviceNumber second = step.number().correction(n[kBeta2]);
    const OnDeviceNumber left = 1.0 - second;
    const OnDeviceNumber length = most - 2.0 * step.number() * left / second;
    const Tensor rectified = gt(Operand(length.value, step.where), Operand(5.0, step.where));
    const OnDeviceNumber less_4 = length - 4.0, less_2 = length - 2.0;
    const OnDeviceNumber over = less_4 * less_2 * most;
    const OnDeviceNumber under = (most - 4) * (most - 2) * length;
    const OnDeviceNumber factor = (over / under * second).root();
    const Tensor chosen =
        where(Operand(rectified, step.where), Operand(factor.value, step.where), Operand(1.0, step.where));
    append(out, {n[kLr] / first * OnDeviceNumber(chosen, step.where),
                 {rectified.to(float64, step.where), step.where}});
    return {};
  }
};

template <>
struct Rules<AdagradOptions> : AnyRules {
  static constexpr const char* kNumbers[] = {"lr",  "lr_decay", "weight_decay", "initial_accumulator_value",
                                             "eps", "maximize"};
  static constexpr const char* kMoments[] = {"sum"};
  enum : size_t { kLr, kLrDecay, kDecay, kFirst, kEps, kMaximize };
  static constexpr Optimizer::Names names() { return {"Adagrad", kNumbers, kMoments, nullptr, 1}; }
  static Numbers numbers(const AdagradOptions& o) {
    return {o.lr, o.lr_decay, o.weight_decay, o.initial_accumulator_value, o.eps, o.maximize ? 1.0 : 0.0};
  }
  static AdagradOptions options(const Numbers& n) {
    return {.lr = n[kLr],
            .lr_decay = n[kLrDecay],
            .weight_decay = n[kDecay],
            .initial_accumulator_value = n[kFirst],
            .eps = n[kEps],
            .maximize = n[kMaximize] != 0};
  }
  static uint32_t moments(const Numbers&) { return 1; }
  static double initial_moment(const Numbers& n) { return n[kFirst]; }
  static std::string mistakes(const Numbers& n) {
    return unless_sizes(n, kNumbers, {kLr, kLrDecay, kDecay, kFirst, kEps}) +
           unless_switches(n, kNumbers, {kMaximize});
  }
  static void update(UpdateRun& run, const Numbers& n, int64_t steps, Corrections&) {
    run.op(OpId::adagrad_update, {0});
    run.words({n[kLr] / (1 + static_cast<double>(steps) * n[kLrDecay]), n[kEps], n[kDecay]});
  }
  static Tensor step_numbers(const Numbers& n, const DeviceStep& step, std::vector<Tensor>& out) {
    append(out, {n[kLr] / (1.0 + (step.number() - 1.0) * n[kLrDecay])});
    return {};
  }
};

template <>
struct Rules<RMSpropOptions> : AnyRules {
  static constexpr const char* kNumbers[] = {"lr",       "alpha",    "eps",     "weight_decay",
                                             "momentum", "centered", "maximize"};
  static constexpr const char* kMoments[] = {"square_avg", "grad_avg", "momentum_buffer"};
  enum : size_t { kLr, kAlpha, kEps, kDecay, kMomentum, kCentered, kMaximize };
  static constexpr Optimizer::Names names() { return {"RMSprop", kNumbers, kMoments, nullptr, 1}; }
  static Numbers numbers(const RMSpropOptions& o) {
    return {o.lr, o.alpha, o.eps, o.weight_decay, o.momentum, o.centered ? 1.0 : 0.0, o.maximize ? 1.0 : 0.0};
  }
  static RMSpropOptions options(const Numbers& n) {
    return {.lr = n[kLr],
            .alpha = n[kAlpha],
            .eps = n[kEps],
            .weight_decay = n[kDecay],
            .momentum = n[kMomentum],
            .centered = n[kCentered] != 0,
            .maximize = n[kMaximize] != 0};
  }
  static uint32_t moments(const Numbers& n) {
    return 1u | (n[kCentered] != 0 ? 0b010u : 0u) | (n[kMomentum] != 0 ? 0b100u : 0u);
  }
  static std::string mistakes(const Numbers& n) {
    return unless_sizes(n, kNumbers, {kLr, kAlpha, kEps, kDecay, kMomentum}) +
           unless_switches(n, kNumbers, {kCentered, kMaximize});
  }
  static void update(UpdateRun& run, const Numbers& n, int64_t, Corrections&) {
    const bool centered = n[kCentered] != 0, momentum = n[kMomentum] != 0;
    if (centered && momentum)
      run.op(OpId::rmsprop_centered_momentum_update, {0, 1, 2});
    else if (centered)
      run.op(OpId::rmsprop_centered_update, {0, 1});
    else if (momentum)
      run.op(OpId::rmsprop_momentum_update, {0, 2});
    else
      run.op(OpId::rmsprop_update, {0});
    run.words({n[kLr], n[kAlpha], n[kEps], n[kDecay]});
    if (momentum) run.words({n[kMomentum]});
  }
};

template <>
struct Rules<LionOptions> : AnyRules {
  static constexpr const char* kNumbers[] = {"lr", "beta1", "beta2", "weight_decay"};
  static constexpr const char* kMoments[] = {"exp_avg"};
  enum : size_t { kLr, kBeta1, kBeta2, kDecay };
  static constexpr Optimizer::Names names() { return {"Lion", kNumbers, kMoments}; }
  static Numbers numbers(const LionOptions& o) {
    return {o.lr, o.betas.first, o.betas.second, o.weight_decay};
  }
  static LionOptions options(const Numbers& n) {
    return {.lr = n[kLr], .betas = {n[kBeta1], n[kBeta2]}, .weight_decay = n[kDecay]};
  }
  static uint32_t moments(const Numbers&) { return 1; }
  static std::string mistakes(const Numbers& n) {
    return unless_sizes(n, kNumbers, {kLr, kDecay}) + unless_parts(n, kNumbers, {kBeta1, kBeta2});
  }
  static void update(UpdateRun& run, const Numbers& n, int64_t, Corrections&) {
    run.op(OpId::lion_update, {0});
    run.words({n[kLr], n[kBeta1], n[kBeta2], n[kDecay]});
  }
};

}  // namespace tandem::optim
