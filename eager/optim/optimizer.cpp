#include "tandem/eager/optim/optimizer.h"

#include <algorithm>
#include <atomic>
#include <string_view>

#include "tandem/eager/functions.h"
#include "tandem/eager/tape.h"

namespace tandem::optim {

using core::TensorImpl;

void Optimizer::refuse(const std::string& message, Location where) const {
  fail(std::string(names_.optimizer) + ": " + message, where);
}

void Optimizer::make_moments(Slot& slot) const {
  const NoGrad no_grad;
  const Numbers& numbers = groups_[slot.group];
  const uint32_t wanted = moments(numbers);
  for (size_t k = 0; k < kMoments; ++k)
    if ((wanted >> k & 1) && !slot.moments[k].defined()) {
      slot.moments[k] = zeros_like(slot.parameter);
      if (const double first = initial_moment(numbers); first != 0) slot.moments[k].fill_(first);
    }
}

void Optimizer::add_group(const std::vector<Tensor>& parameters, const Numbers& numbers, Location where) {
  check(numbers, where);
  std::vector<const TensorImpl*> seen;
  for (const Slot& s : slots_) seen.push_back(s.parameter.impl());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const TensorImpl& p = parameters[i].checked(where);
    const auto which = [&] {
      return "parameter " + std::to_string(i) + " of group " + std::to_string(groups_.size());
    };
    if (p.grad_fn) refuse(which() + " is the result of an op, not a leaf", where);
    if (!is_floating(p.dtype)) refuse(which() + " is not floating but " + name(p.dtype), where);
    seen.push_back(&p);
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) refuse("a parameter is given twice", where);

  const size_t first = slots_.size();
  groups_.push_back(numbers);
  try {
    for (const Tensor& p : parameters) {
      slots_.push_back({.parameter = p, .group = groups_.size() - 1});
      make_moments(slots_.back());
      steps_->of.push_back(p.impl());
      steps_->count.push_back(0);
      products_.push_back(1);
    }
    device_counts_.add_group(parameters.size(), parameters.empty() ? cpu : parameters[0].device());
  } catch (...) {
    slots_.resize(first);
    steps_->of.resize(first);
    steps_->count.resize(first);
    products_.resize(first);
    groups_.pop_back();
    throw;
  }
}

const Optimizer::Numbers& Optimizer::numbers(size_t group, Location where) const {
  if (group >= groups_.size())
    refuse("there is no group " + std::to_string(group) + " among " + std::to_string(groups_.size()), where);
  return groups_[group];
}

void Optimizer::set_numbers(const Numbers& numbers, size_t group, Location where) {
  const Numbers before = this->numbers(group, where);
  check(numbers, where);
  groups_[group] = numbers;
  if ((moments(numbers) & ~moments(before)) == 0) return;
  for (Slot& s : slots_)
    if (s.group == group) make_moments(s);
}

void Optimizer::set_lr(double lr, size_t group, Location where) {
  Numbers n = numbers(group, where);
  n[0] = lr;
  check(n, where);
  groups_[group] = n;
}

double Optimizer::initial_lr(size_t group, Location where) {
  const double now = lr(group, where);
  initial_lr_.resize(groups_.size());
  if (!initial_lr_[group]) initial_lr_[group] = now;
  return *initial_lr_[group];
}

namespace {
uint64_t fresh_id() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}
}  // namespace

Optimizer::Optimizer(const Names& names)
    : steps_(std::make_shared<eager::StepCounts>()), names_(names), id_(fresh_id()) {}

void Optimizer::step(Location where) {
  const NoGrad no_grad;
  if (device_counts_.any()) {
    device_counts_.read(steps_->count, products_, where);
    count_on_host();
  }
  update(where);
  if (eager::Interceptor* i = eager::interceptor()) i->stepped(steps_);
}

void Optimizer::step_unless(const Tensor& skip, Location where) {
  const core::TensorImpl& s = skip.checked(where);
  if (s.numel != 1) refuse("step_unless: skip must be a scalar, found " + to_string(s.sizes), where);
  for (const Slot& slot : slots_)
    if (!(slot.parameter.device() == s.device))
      refuse("step_unless: skip is on " + to_string(s.device) + ", a parameter on " +
                 to_string(slot.parameter.device()),
             where);
  const NoGrad no_grad;
  update_unless(skip.reshape({1}, where), where);
}

std::vector<Tensor> Optimizer::parameters() const {
  std::vector<Tensor> out;
  for (const Slot& s : slots_) out.push_back(s.parameter);
  return out;
}

std::vector<size_t> Optimizer::group_of() const {
  std::vector<size_t> out;
  for (const Slot& s : slots_) out.push_back(s.group);
  return out;
}

void Optimizer::count_on_host() { device_counts_.give_back(group_of(), steps_->count, products_); }

// In stages, since each address lies behind the one before: with cold caches the misses of a stage overlap.
void Optimizer::zero_grad() {
  eager::Interceptor* listener = eager::interceptor();
  if (listener && listener->observes) {
    for (const Slot& s : slots_) s.parameter.zero_grad();
    return;
  }
  constexpr size_t kMost = 64;
  eager::AutogradState* states[kMost];
  core::Ref<TensorImpl>* held[kMost];
  for (size_t from = 0; from < slots_.size(); from += kMost) {
    const size_t until = std::min(slots_.size(), from + kMost);
    size_t n_states = 0, n = 0;
    for (size_t i = from; i < until; ++i)
      if (eager::AutogradState* s = eager::autograd_state(slots_[i].parameter.impl())) states[n_states++] = s;
    for (size_t i = 0; i < n_states; ++i)
      if (states[i]->grad) held[n++] = &states[i]->grad;
    if (listener) listener->take_back({held, n});
    for (size_t i = 0; i < n; ++i) held[i]->reset();
  }
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<int64_t> steps = steps_->count;
  std::vector<double> products = products_;
  device_counts_.read(steps, products, {});
  std::vector<NamedTensor> out;
  for (size_t g = 0; g < groups_.size(); ++g)
    for (size_t k = 0; k < names_.numbers.size(); ++k)
      out.push_back({"group." + std::to_string(g) + '.' + names_.numbers[k], scalar_tensor(groups_[g][k])});
  for (size_t i = 0; i < slots_.size(); ++i) {
    const std::string prefix = std::to_string(i) + '.';
    out.push_back({prefix + "step", scalar_tensor(steps[i])});
    if (names_.product) out.push_back({prefix + names_.product, scalar_tensor(products[i])});
    for (size_t k = 0; k < names_.moments.size(); ++k)
      if (slots_[i].moments[k].defined()) out.push_back({prefix + names_.moments[k], slots_[i].moments[k]});
  }
  return out;
}

/// A state that was read and found possible.
struct Optimizer::Loaded {
  std::vector<Numbers> groups;
  std::vector<int64_t> steps;
  std::vector<double> products;
  std::vector<std::pair<Tensor, Tensor>> moments;  // mine, given
};

Optimizer::Loaded Optimizer::read_state(const std::vector<NamedTensor>& state, Location where) const {
  std::vector<NamedTensor> mine = this->state();
  const auto is_product = [&](const NamedTensor& n) {
    return names_.product && n.name.ends_with('.' + std::string(names_.product));
  };
  const bool has_products = std::ranges::any_of(state, is_product);
  if (!has_products) std::erase_if(mine, is_product);
  std::vector<Numbers> lacks(groups_.size());  // 1: an older state does not have it
  for (size_t g = 0; g < groups_.size(); ++g)
    for (size_t k = names_.numbers.size() - names_.newer; k < names_.numbers.size(); ++k) {
      const auto is_it = [&](const NamedTensor& n) {
        return n.name == "group." + std::to_string(g) + '.' + names_.numbers[k];
      };
      lacks[g][k] = std::ranges::none_of(state, is_it);
      if (lacks[g][k] != 0) std::erase_if(mine, is_it);
    }
  const std::vector<int64_t> found = eager::match_names(mine, state, true, names_.optimizer, where);
  Loaded out;
  size_t at = 0;  // the names that match_names found are those of state(), in its order
  const auto next = [&]() -> const NamedTensor& { return state[static_cast<size_t>(found[at++])]; };
  for (size_t g = 0; g < groups_.size(); ++g) {
    Numbers n = groups_[g];
    for (size_t k = 0; k < names_.numbers.size(); ++k)
      n[k] = lacks[g][k] != 0 ? 0 : next().tensor.item<double>(where);
    check(n, where);
    out.groups.push_back(n);
  }
  for (const Slot& s : slots_) {
    const uint32_t needed = moments(out.groups[s.group]);
    for (size_t k = 0; k < names_.moments.size(); ++k)
      if ((needed >> k & 1) && !s.moments[k].defined())
        refuse("the state's numbers of group " + std::to_string(s.group) + " need a " + names_.moments[k] +
                   ", which its parameters do not have",
               where);
    const NamedTensor& step = next();
    out.steps.push_back(step.tensor.item<int64_t>(where));
    if (out.steps.back() < 0) refuse("the state's " + step.name + " is negative", where);
    out.products.push_back(has_products ? 1 : product_of(out.groups[s.group], out.steps.back()));
    if (has_products) {
      const NamedTensor& product = next();
      const double p = out.products.back() = product.tensor.item<double>(where);
      if (!(p >= 0 && p <= 1))
        refuse("the state's " + product.name + " must lie in [0, 1], found " + std::to_string(p), where);
    }
    for (const Tensor& m : s.moments)
      if (m.defined()) out.moments.emplace_back(m, next().tensor);
  }
  return out;
}

void Optimizer::check_state(const std::vector<NamedTensor>& state, Location where) const {
  read_state(state, where);
}

void Optimizer::load_state(const std::vector<NamedTensor>& state, Location where) {
  Loaded loaded = read_state(state, where);
  const NoGrad no_grad;
  for (const auto& [mine, given] : loaded.moments) mine.copy_(given, where);
  steps_->count = std::move(loaded.steps);
  products_ = std::move(loaded.products);
  groups_ = std::move(loaded.groups);
  count_on_host();
}

}  // namespace tandem::optim
