#include "tandem/eager/optim/schedulers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tandem/eager/functions.h"

namespace tandem::optim {

namespace {

void require(bool fine, const char* scheduler, const char* what, double found, Location where) {
  if (!fine) fail(std::string(scheduler) + ": " + what + ", found " + std::to_string(found), where);
}
void require_count(int64_t n, const char* scheduler, const char* name, Location where) {
  if (n < 1)
    fail(std::string(scheduler) + ": " + name + " must be at least 1, found " + std::to_string(n), where);
}
void require_size(double v, const char* scheduler, const char* name, Location where) {
  if (!(v >= 0 && std::isfinite(v)))
    fail(std::string(scheduler) + ": " + name + " must be 0 or more, found " + std::to_string(v), where);
}

double power(double base, int64_t exponent) { return std::pow(base, static_cast<double>(exponent)); }
double part(int64_t of, int64_t whole) { return static_cast<double>(of) / static_cast<double>(whole); }
/// From `from` to `to` along half a cosine; `way` in [0, 1].
double half_cosine(double from, double to, double way) {
  return to + (from - to) * (1 + std::cos(std::numbers::pi * way)) / 2;
}

enum OwnNumber : size_t { kBest, kBadEpochs, kCooldown };  // of ReduceLROnPlateau

}  // namespace

struct Scheduler::Loaded {
  int64_t epoch;
  std::vector<double> base;
  std::vector<Number> own;
};

Scheduler::Scheduler(Optimizer& optimizer, std::vector<Number> own)
    : optimizer_(optimizer), own_(std::move(own)) {
  for (size_t g = 0; g < optimizer.group_count(); ++g) base_.push_back(optimizer.initial_lr(g));
}

std::vector<NamedTensor> Scheduler::state() const {
  std::vector<NamedTensor> out = {{"last_epoch", scalar_tensor(epoch_)}};
  for (size_t g = 0; g < base_.size(); ++g)
    out.push_back({"base_lr." + std::to_string(g), scalar_tensor(base_[g])});
  for (const Number& n : own_) out.push_back({n.name, scalar_tensor(n.value)});
  return out;
}

Scheduler::Loaded Scheduler::read_state(const std::vector<NamedTensor>& state, Location where) const {
  const std::vector<int64_t> found = eager::match_names(this->state(), state, true, "Scheduler", where);
  size_t at = 0;
  const auto next = [&]() -> const Tensor& { return state[static_cast<size_t>(found[at++])].tensor; };
  Loaded l{next().item<int64_t>(where), {}, own_};
  if (l.epoch < 0) fail("Scheduler: the state's last_epoch is negative", where);
  for (size_t g = 0; g < base_.size(); ++g) {
    l.base.push_back(next().item<double>(where));
    if (!std::isfinite(l.base.back()))
      fail("Scheduler: the state's base_lr." + std::to_string(g) + " is not finite", where);
  }
  for (Number& n : l.own) {
    n.value = next().item<double>(where);
    if (std::isnan(n.value))
      fail(std::string("Scheduler: the state's ") + n.name + " is not a number", where);
  }
  return l;
}

void Scheduler::check_state(const std::vector<NamedTensor>& state, Location where) const {
  read_state(state, where);
}
void Scheduler::load_state(const std::vector<NamedTensor>& state, Location where) {
  Loaded l = read_state(state, where);
  epoch_ = l.epoch;
  base_ = std::move(l.base);
  own_ = std::move(l.own);
}

void EpochScheduler::step(Location where) {
  if (epoch_ >= end()) fail("Scheduler: this one ends after " + std::to_string(end()) + " steps", where);
  go_to(epoch_, epoch_ + 1, where);
}
void EpochScheduler::go_to(std::optional<int64_t> from, int64_t epoch, Location where) {
  while (base_.size() < optimizer_.group_count()) base_.push_back(optimizer_.initial_lr(base_.size()));
  std::vector<double> rates;
  for (size_t g = 0; g < base_.size(); ++g) {
    const double now = optimizer_.lr(g), before = from ? lr_at(base_[g], *from) : base_[g],
                 after = lr_at(base_[g], epoch), low = lowest();
    if (absolute() || now == before)
      rates.push_back(after);
    else if (before == low)
      rates.push_back(now + (after - before));
    else
      rates.push_back(low + (now - low) * ((after - low) / (before - low)));
  }
  for (size_t g = 0; g < base_.size(); ++g) optimizer_.set_lr(rates[g], g, where);
  epoch_ = epoch;
}

StepLR::StepLR(Optimizer& optimizer, int64_t step_size, double gamma, Location where)
    : EpochScheduler(optimizer), step_size_(step_size), gamma_(gamma) {
  require_count(step_size, "StepLR", "step_size", where);
  require_size(gamma, "StepLR", "gamma", where);
}
double StepLR::lr_at(double base_lr, int64_t epoch) const {
  return base_lr * power(gamma_, epoch / step_size_);
}

MultiStepLR::MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma, Location where)
    : EpochScheduler(optimizer), milestones_(std::move(milestones)), gamma_(gamma) {
  for (const int64_t m : milestones_) require_count(m, "MultiStepLR", "a milestone", where);
  require_size(gamma, "MultiStepLR", "gamma", where);
}
double MultiStepLR::lr_at(double base_lr, int64_t epoch) const {
  return base_lr * power(gamma_, std::count_if(milestones_.begin(), milestones_.end(),
                                               [&](int64_t m) { return m <= epoch; }));
}

ExponentialLR::ExponentialLR(Optimizer& optimizer, double gamma, Location where)
    : EpochScheduler(optimizer), gamma_(gamma) {
  require_size(gamma, "ExponentialLR", "gamma", where);
}
double ExponentialLR::lr_at(double base_lr, int64_t epoch) const { return base_lr * power(gamma_, epoch); }

ConstantLR::ConstantLR(Optimizer& optimizer, double factor, int64_t total_iters, Location where)
    : EpochScheduler(optimizer), factor_(factor), total_iters_(total_iters) {
  require(factor >= 0 && factor <= 1, "ConstantLR", "factor must lie in [0, 1]", factor, where);
  require_count(total_iters, "ConstantLR", "total_iters", where);
  begin(where);
}
double ConstantLR::lr_at(double base_lr, int64_t epoch) const {
  return epoch < total_iters_ ? base_lr * factor_ : base_lr;
}

LinearLR::LinearLR(Optimizer& optimizer, double start_factor, double end_factor, int64_t total_iters,
                   Location where)
    : EpochScheduler(optimizer),
      start_factor_(start_factor),
      end_factor_(end_factor),
      total_iters_(total_iters) {
  require(start_factor > 0 && start_factor <= 1, "LinearLR", "start_factor must lie in (0, 1]", start_factor,
          where);
  require(end_factor >= 0 && end_factor <= 1, "LinearLR", "end_factor must lie in [0, 1]", end_factor, where);
  require_count(total_iters, "LinearLR", "total_iters", where);
  begin(where);
}
double LinearLR::lr_at(double base_lr, int64_t epoch) const {
  const double way = part(std::min(epoch, total_iters_), total_iters_);
  return base_lr * (start_factor_ + (end_factor_ - start_factor_) * way);
}

PolynomialLR::PolynomialLR(Optimizer& optimizer, int64_t total_iters, double power, Location where)
    : EpochScheduler(optimizer), total_iters_(total_iters), power_(power) {
  require_count(total_iters, "PolynomialLR", "total_iters", where);
  require_size(power, "PolynomialLR", "power", where);
}
double PolynomialLR::lr_at(double base_lr, int64_t epoch) const {
  return base_lr * std::pow(1 - part(std::min(epoch, total_iters_), total_iters_), power_);
}

CosineAnnealingLR::CosineAnnealingLR(Optimizer& optimizer, int64_t t_max, double eta_min, Location where)
    : EpochScheduler(optimizer), t_max_(t_max), eta_min_(eta_min) {
  require_count(t_max, "CosineAnnealingLR", "t_max", where);
  require_size(eta_min, "CosineAnnealingLR", "eta_min", where);
}
double CosineAnnealingLR::lr_at(double base_lr, int64_t epoch) const {
  return half_cosine(base_lr, eta_min_, part(epoch, t_max_));
}

CosineAnnealingWarmRestarts::CosineAnnealingWarmRestarts(Optimizer& optimizer, int64_t t_0, int64_t t_mult,
                                                         double eta_min, Location where)
    : EpochScheduler(optimizer), t_0_(t_0), t_mult_(t_mult), eta_min_(eta_min) {
  require_count(t_0, "CosineAnnealingWarmRestarts", "t_0", where);
  require_count(t_mult, "CosineAnnealingWarmRestarts", "t_mult", where);
  require_size(eta_min, "CosineAnnealingWarmRestarts", "eta_min", where);
}
double CosineAnnealingWarmRestarts::lr_at(double base_lr, int64_t epoch) const {
  int64_t length = t_0_;
  if (t_mult_ == 1) epoch %= length;
  for (; epoch >= length; length *= t_mult_) epoch -= length;
  return half_cosine(base_lr, eta_min_, part(epoch, length));
}

LambdaLR::LambdaLR(Optimizer& optimizer, std::function<double(int64_t epoch)> factor, Location where)
    : EpochScheduler(optimizer), factor_(std::move(factor)) {
  if (!factor_) fail("LambdaLR: the function is empty", where);
  begin(where);
}
double LambdaLR::lr_at(double base_lr, int64_t epoch) const { return base_lr * factor_(epoch); }

OneCycleLR::OneCycleLR(Optimizer& optimizer, const OneCycleOptions& options, Location where)
    : EpochScheduler(optimizer), o_(options) {
  require_size(o_.max_lr, "OneCycleLR", "max_lr", where);
  require_count(o_.total_steps, "OneCycleLR", "total_steps", where);
  require(o_.pct_start >= 0 && o_.pct_start <= 1, "OneCycleLR", "pct_start must lie in [0, 1]", o_.pct_start,
          where);
  for (const double divisor : {o_.div_factor, o_.final_div_factor})
    require(divisor > 0 && std::isfinite(divisor), "OneCycleLR",
            "div_factor and final_div_factor must be above 0", divisor, where);
  begin(where);
}
double OneCycleLR::lr_at(double, int64_t step) const {
  const double first = o_.max_lr / o_.div_factor, last = first / o_.final_div_factor,
               top = o_.pct_start * static_cast<double>(o_.total_steps) - 1,
               end = static_cast<double>(o_.total_steps) - 1, now = static_cast<double>(step);
  if (now <= top) return half_cosine(first, o_.max_lr, top > 0 ? now / top : 1);
  return half_cosine(o_.max_lr, last, end > top ? (now - top) / (end - top) : 1);
}

ReduceLROnPlateau::ReduceLROnPlateau(Optimizer& optimizer, const PlateauOptions& options, Location where)
    : Scheduler(optimizer,
                {{"best", options.mode == PlateauMode::min ? std::numeric_limits<double>::infinity()
                                                           : -std::numeric_limits<double>::infinity()},
                 {"num_bad_epochs", 0},
                 {"cooldown_counter", 0}}),
      o_(options) {
  const char* const me = "ReduceLROnPlateau";
  require(o_.factor >= 0 && o_.factor < 1, me, "factor must lie in [0, 1)", o_.factor, where);
  require(o_.patience >= 0, me, "patience must be 0 or more", static_cast<double>(o_.patience), where);
  require(o_.cooldown >= 0, me, "cooldown must be 0 or more", static_cast<double>(o_.cooldown), where);
  require_size(o_.threshold, me, "threshold", where);
  require_size(o_.min_lr, me, "min_lr", where);
  require_size(o_.eps, me, "eps", where);
}

bool ReduceLROnPlateau::better(double value) const {
  const double best = own_[kBest].value, sign = o_.mode == PlateauMode::min ? -1 : 1;
  const double margin = std::isinf(best)                             ? 0
                        : o_.threshold_mode == PlateauThreshold::rel ? best * o_.threshold
                                                                     : o_.threshold;
  return sign * value > sign * (best + sign * margin);
}

void ReduceLROnPlateau::step(double value, Location where) {
  ++epoch_;
  double &bad = own_[kBadEpochs].value, &cooldown = own_[kCooldown].value;
  if (better(value))
    own_[kBest].value = value, bad = 0;
  else
    ++bad;
  if (cooldown > 0) --cooldown, bad = 0;
  if (bad <= static_cast<double>(o_.patience)) return;
  for (size_t g = 0; g < optimizer_.group_count(); ++g) {
    const double now = optimizer_.lr(g), next = std::max(now * o_.factor, o_.min_lr);
    if (now - next > o_.eps) optimizer_.set_lr(next, g, where);
  }
  cooldown = static_cast<double>(o_.cooldown);
  bad = 0;
}

}  // namespace tandem::optim
