#include "tandem/eager/optim/averaging.h"

#include <algorithm>
#include <utility>

#include "tandem/core/modes.h"
#include "tandem/eager/functions.h"

namespace tandem::optim {

namespace {
constexpr const char kWho[] = "ExponentialMovingAverage", kUpdated[] = "updated";
}

ExponentialMovingAverage::ExponentialMovingAverage(const std::vector<Tensor>& parameters, double decay,
                                                   Location where)
    : parameters_(parameters) {
  set_decay(decay, where);
  const NoGrad no_grad;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = parameters[i];
    if (!is_floating(p.dtype(where)))
      fail(std::string(kWho) + ": parameter " + std::to_string(i) + " is " + name(p.dtype(where)) +
               "; averages are of floating values",
           where);
    averages_.push_back(p.detach().clone(where));
  }
}

void ExponentialMovingAverage::set_decay(double decay, Location where) {
  if (!(decay >= 0 && decay <= 1))
    fail(std::string(kWho) + ": decay must lie in [0, 1], found " + std::to_string(decay), where);
  decay_ = decay;
}

void ExponentialMovingAverage::update(Location where) {
  const NoGrad no_grad;
  const bool first = !std::exchange(updated_, true);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (first) {
      averages_[i].copy_(parameters_[i], where);
      continue;
    }
    const Tensor way = sub(Operand(parameters_[i], where), Operand(averages_[i], where));
    averages_[i].add_(Operand(mul(Operand(way, where), Operand(1 - decay_, where)), where));
  }
}

void ExponentialMovingAverage::swap(Location where) {
  const NoGrad no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor kept = parameters_[i].clone(where);
    parameters_[i].copy_(averages_[i], where);
    averages_[i].copy_(kept, where);
  }
}

std::vector<NamedTensor> ExponentialMovingAverage::state() const {
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < averages_.size(); ++i) out.push_back({std::to_string(i), averages_[i]});
  out.push_back({kUpdated, scalar_tensor(int64_t{updated_})});
  return out;
}

void ExponentialMovingAverage::load_state(const std::vector<NamedTensor>& state, Location where) {
  std::vector<NamedTensor> mine = this->state();
  if (std::ranges::none_of(state, [](const NamedTensor& n) { return n.name == kUpdated; })) mine.pop_back();
  const std::vector<int64_t> found = eager::match_names(mine, state, true, kWho, where);
  const bool updated = mine.size() == averages_.size() ||
                       state[static_cast<size_t>(found.back())].tensor.item<int64_t>(where) != 0;
  const NoGrad no_grad;
  for (size_t i = 0; i < averages_.size(); ++i)
    averages_[i].copy_(state[static_cast<size_t>(found[i])].tensor, where);
  updated_ = updated;
}

}  // namespace tandem::optim
