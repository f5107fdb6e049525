#include "tandem/eager/optim/device_counts.h"

#include <algorithm>

#include "tandem/eager/functions.h"

namespace tandem::optim {

namespace {

Tensor number_on(Device device, double value) {
  return scalar_tensor(value, {.dtype = float64, .device = device});
}

void set(DeviceCounts::Count& c, int64_t steps, double product) {
  if (c.known_steps != steps) c.steps.fill_(static_cast<double>(steps));
  if (c.known_product != product) c.product.fill_(product);
  c.known_steps = steps, c.known_product = product;
}

}  // namespace

void DeviceCounts::add_group(size_t parameters, Device device) {
  Count c{.group = n_groups_, .steps = number_on(device, 0), .product = number_on(device, 1)};
  counts_.push_back(std::move(c));
  of_.resize(of_.size() + parameters, -1);
  ++n_groups_;
}

// A count whose followers go different ways becomes two.
void DeviceCounts::part(const std::vector<size_t>& taking_part) {
  std::vector<size_t> followers(counts_.size()), stepping(counts_.size());
  for (const int c : of_)
    if (c >= 0) ++followers[static_cast<size_t>(c)];
  for (const size_t p : taking_part)
    if (of_[p] >= 0) ++stepping[static_cast<size_t>(of_[p])];
  for (size_t c = 0; c < followers.size(); ++c) {
    if (stepping[c] == 0 || stepping[c] == followers[c]) continue;
    Count other = counts_[c];
    other.steps = other.steps.clone();
    other.product = other.product.clone();
    counts_.push_back(std::move(other));
    for (const size_t p : taking_part)
      if (of_[p] == static_cast<int>(c)) of_[p] = static_cast<int>(counts_.size()) - 1;
  }
}

void DeviceCounts::take_over(const std::vector<size_t>& taking_part, const std::vector<size_t>& group_of,
                             const std::vector<int64_t>& steps, const std::vector<double>& products) {
  part(taking_part);
  std::vector<size_t> taken;
  for (const size_t p : taking_part) {
    if (of_[p] >= 0) continue;
    const size_t group = group_of[p];
    auto at = std::find_if(taken.begin(), taken.end(), [&](size_t c) {
      return counts_[c].group == group && counts_[c].known_steps == steps[p] &&
             counts_[c].known_product == products[p];
    });
    if (at == taken.end()) {
      const auto free = std::find_if(counts_.begin(), counts_.end(),
                                     [&](const Count& c) { return c.group == group && !c.in_use; });
      size_t c = static_cast<size_t>(free - counts_.begin());
      if (free == counts_.end()) {
        Count fresh =
            *std::find_if(counts_.begin(), counts_.end(), [&](const Count& k) { return k.group == group; });
        fresh.steps = zeros_like(fresh.steps);
        fresh.product = ones_like(fresh.product);
        fresh.known_steps = 0, fresh.known_product = 1;
        counts_.push_back(std::move(fresh));
      }
      set(counts_[c], steps[p], products[p]);
      counts_[c].in_use = true;
      at = taken.insert(taken.end(), c);
    }
    of_[p] = static_cast<int>(*at);
  }
}

bool DeviceCounts::any() const {
  return std::any_of(of_.begin(), of_.end(), [](int c) { return c >= 0; });
}

void DeviceCounts::read(std::vector<int64_t>& steps, std::vector<double>& products, Location where) const {
  std::vector<std::pair<int64_t, double>> values(counts_.size(), {-1, 1});
  for (size_t p = 0; p < of_.size(); ++p) {
    if (of_[p] < 0) continue;
    const auto c = static_cast<size_t>(of_[p]);
    auto& [step, product] = values[c];
    if (step < 0) {
      step = counts_[c].steps.item<int64_t>(where);
      product = counts_[c].product.item<double>(where);
    }
    steps[p] = step, products[p] = product;
  }
}

void DeviceCounts::give_back(const std::vector<size_t>& group_of, const std::vector<int64_t>& steps,
                             const std::vector<double>& products) {
  std::fill(of_.begin(), of_.end(), -1);
  std::vector<char> kept(n_groups_);
  std::erase_if(counts_, [&](const Count& c) { return std::exchange(kept[c.group], 1) != 0; });
  for (Count& c : counts_) {
    if (c.in_use) c.known_steps = -1, c.known_product = -1;  // not known
    c.in_use = false;
    const auto p =
        static_cast<size_t>(std::find(group_of.begin(), group_of.end(), c.group) - group_of.begin());
    if (p < group_of.size()) set(c, steps[p], products[p]);
  }
}

}  // namespace tandem::optim
