#include "tandem/eager/optim/schedulers.h"

#include <cmath>
#include <numbers>

#include "tandem/eager/functions.h"

namespace tandem::optim {

Scheduler::Scheduler(Optimizer& optimizer) : optimizer_(optimizer) {
  for (size_t g = 0; g < optimizer.group_count(); ++g) base_.push_back(optimizer.lr(g));
}

void Scheduler::step(Location where) {
  ++epoch_;
  for (size_t g = 0; g < base_.size(); ++g) optimizer_.set_lr(lr_at(base_[g], epoch_), g, where);
}

std::vector<NamedTensor> Scheduler::state() const {
  std::vector<NamedTensor> out = {{"last_epoch", scalar_tensor(epoch_)}};
  for (size_t g = 0; g < base_.size(); ++g)
    out.push_back({"base_lr." + std::to_string(g), scalar_tensor(base_[g])});
  return out;
}

std::pair<int64_t, std::vector<double>> Scheduler::read_state(const std::vector<NamedTensor>& state,
                                                              Location where) const {
  const std::vector<int64_t> found = eager::match_names(this->state(), state, true, "Scheduler", where);
  const auto given = [&](size_t i) -> const Tensor& { return state[static_cast<size_t>(found[i])].tensor; };
  const auto epoch = given(0).item<int64_t>(where);
  if (epoch < 0) fail("Scheduler: the state's last_epoch is negative", where);
  std::vector<double> base;
  for (size_t g = 0; g < base_.size(); ++g) {
    base.push_back(given(g + 1).item<double>(where));
    if (!std::isfinite(base.back()))
      fail("Scheduler: the state's base_lr." + std::to_string(g) + " is not finite", where);
  }
  return {epoch, std::move(base)};
}

void Scheduler::check_state(const std::vector<NamedTensor>& state, Location where) const {
  read_state(state, where);
}
void Scheduler::load_state(const std::vector<NamedTensor>& state, Location where) {
  auto [epoch, base] = read_state(state, where);
  epoch_ = epoch;
  base_ = std::move(base);
}

StepLR::StepLR(Optimizer& optimizer, int64_t step_size, double gamma, Location where)
    : Scheduler(optimizer), step_size_(step_size), gamma_(gamma) {
  if (step_size < 1) fail("StepLR: step_size must be at least 1, found " + std::to_string(step_size), where);
  if (!(gamma >= 0 && std::isfinite(gamma)))
    fail("StepLR: gamma must be 0 or more, found " + std::to_string(gamma), where);
}
double StepLR::lr_at(double base_lr, int64_t epoch) const {
  return base_lr * std::pow(gamma_, static_cast<double>(epoch / step_size_));
}

CosineAnnealingLR::CosineAnnealingLR(Optimizer& optimizer, int64_t t_max, double eta_min, Location where)
    : Scheduler(optimizer), t_max_(t_max), eta_min_(eta_min) {
  if (t_max < 1) fail("CosineAnnealingLR: t_max must be at least 1, found " + std::to_string(t_max), where);
  if (!(eta_min >= 0 && std::isfinite(eta_min)))
    fail("CosineAnnealingLR: eta_min must be 0 or more, found " + std::to_string(eta_min), where);
}
double CosineAnnealingLR::lr_at(double base_lr, int64_t epoch) const {
  const double way = std::numbers::pi * static_cast<double>(epoch) / static_cast<double>(t_max_);
  return eta_min_ + (base_lr - eta_min_) * (1 + std::cos(way)) / 2;
}

}  // namespace tandem::optim
