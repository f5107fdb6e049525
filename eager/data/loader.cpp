#include "tandem/eager/data/loader.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tandem/eager/data/epoch.h"

namespace tandem::data {

namespace {

/// Where its rows lie.
Tensor index_tensor(std::span<const int64_t> indices, Device device) {
  return tensor(indices, {static_cast<int64_t>(indices.size())}, {.dtype = int64, .device = device});
}

/// Fisher and Yates.
void shuffle(std::vector<int64_t>& order, Generator& generator) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator.below(i)]);
}

}  // namespace

Example Dataset::batch(std::span<const int64_t> indices) const {
  std::vector<Tensor> xs, ys;
  for (const int64_t i : indices) {
    auto [x, y] = get(i);
    xs.push_back(std::move(x));
    ys.push_back(std::move(y));
  }
  Tensor x = stack(xs, 0, {});
  Tensor y = stack(ys, 0, {});
  return {std::move(x), std::move(y)};
}

TensorDataset::TensorDataset(Tensor x, Tensor y, Location where) : x_(std::move(x)), y_(std::move(y)) {
  const Dims &a = x_.sizes(where), &b = y_.sizes(where);
  if (a.empty() || b.empty() || a[0] != b[0])
    fail("TensorDataset: inputs and targets must have equally many rows, found shapes " + to_string(a) +
             " and " + to_string(b),
         where);
}

Example TensorDataset::get(int64_t i) const {
  Tensor x = x_.select(0, i, {});
  Tensor y = y_.select(0, i, {});
  return {std::move(x), std::move(y)};
}

Example TensorDataset::batch(std::span<const int64_t> indices) const {
  Tensor x = x_.index_select(0, index_tensor(indices, x_.device()), {});
  Tensor y = y_.index_select(0, index_tensor(indices, y_.device()), {});
  return {std::move(x), std::move(y)};
}

TransformedDataset::TransformedDataset(std::shared_ptr<const Dataset> dataset, Transform transform,
                                       Location where)
    : dataset_(std::move(dataset)), transform_(std::move(transform)) {
  if (!dataset_ || !transform_) fail("TransformedDataset: no data set or no function was given", where);
}

std::vector<int64_t> SubsetRandomSampler::order(int64_t, Generator& generator) const {
  std::vector<int64_t> out = indices_;
  shuffle(out, generator);
  return out;
}

WeightedRandomSampler::WeightedRandomSampler(std::vector<double> weights, int64_t count, bool replacement,
                                             Location where)
    : weights_(std::move(weights)), count_(count), replacement_(replacement) {
  int64_t possible = 0;
  for (const double w : weights_) {
    if (!(w >= 0 && std::isfinite(w)))
      fail("WeightedRandomSampler: a weight must be 0 or more, found " + std::to_string(w), where);
    possible += w > 0;
  }
  if (count < 0 || (count > 0 && possible == 0) || (!replacement && count > possible))
    fail("WeightedRandomSampler: " + std::to_string(count) + " draws of " + std::to_string(possible) +
             " examples with a weight above 0" + (replacement ? "" : ", without replacement"),
         where);
}

std::vector<int64_t> WeightedRandomSampler::order(int64_t examples, Generator& generator) const {
  if (examples != static_cast<int64_t>(weights_.size()))
    fail("WeightedRandomSampler: " + std::to_string(weights_.size()) + " weights for " +
         std::to_string(examples) + " examples");
  const auto uniform = [&] { return static_cast<double>(generator.next_u64() >> 11) * 0x1p-53; };
  std::vector<int64_t> out;
  if (replacement_) {
    std::vector<double> sums(weights_.size());
    std::partial_sum(weights_.begin(), weights_.end(), sums.begin());
    for (int64_t k = 0; k < count_; ++k) {
      const auto at = std::upper_bound(sums.begin(), sums.end(), uniform() * sums.back());
      out.push_back(std::min<int64_t>(at - sums.begin(), examples - 1));
    }
    return out;
  }
  // The largest of u^(1 / weight), in falling order, are such a draw (Efraimidis and Spirakis, 2006).
  std::vector<std::pair<double, int64_t>> keys;
  for (int64_t i = 0; i < examples; ++i)
    if (const double w = weights_[static_cast<size_t>(i)]; w > 0)
      keys.emplace_back(-std::log(1 - uniform()) / w, i);
  std::sort(keys.begin(), keys.end());
  for (int64_t k = 0; k < count_; ++k) out.push_back(keys[static_cast<size_t>(k)].second);
  return out;
}

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, Location where)
    : dataset_(std::move(dataset)), options_(options), generator_(options.seed) {
  if (!dataset_) fail("DataLoader: no data set was given", where);
  const auto at_least = [&](const char* name, int64_t found, int64_t least) {
    if (found < least)
      fail(std::string("DataLoader: ") + name + " must be at least " + std::to_string(least) + ", found " +
               std::to_string(found),
           where);
  };
  at_least("batch_size", options_.batch_size, 1);
  at_least("workers", options_.workers, 0);
  at_least("prefetch_factor", options_.prefetch_factor, 1);
  if (options_.sampler && options_.shuffle)
    fail("DataLoader: a sampler decides the order; leave shuffle out", where);
}

int64_t DataLoader::size() const {
  const int64_t examples = dataset_->size(),
                n = options_.sampler ? options_.sampler->size(examples) : examples,
                full = n / options_.batch_size;
  return full + (!options_.drop_last && n % options_.batch_size != 0);
}

DataLoader::Iterator DataLoader::begin(Location where) {
  const int64_t n = dataset_->size();
  if (n < 0) fail("DataLoader: the data set says that it has " + std::to_string(n) + " examples", where);
  std::vector<int64_t> order;
  if (options_.sampler) {
    try {
      order = options_.sampler->order(n, generator_);
    } catch (const Error& e) {
      fail_again(e, "DataLoader", where);
    }
    for (const int64_t i : order)
      if (i < 0 || i >= n)
        fail("DataLoader: the sampler gave example " + std::to_string(i) + " of " + std::to_string(n), where);
    if (static_cast<int64_t>(order.size()) != options_.sampler->size(n))
      fail("DataLoader: the sampler said " + std::to_string(options_.sampler->size(n)) +
               " examples and gave " + std::to_string(order.size()),
           where);
  } else {
    order.resize(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), int64_t{0});
    if (options_.shuffle) shuffle(order, generator_);
  }
  const int64_t batches = size();
  const uint64_t seed = generator_.next_u64();
  return {std::make_shared<Epoch>(dataset_, std::move(order), options_, batches, seed, where), batches};
}

Example DataLoader::Iterator::operator*() const { return epoch_->get(batch_); }

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  epoch_->pass(batch_++);
  return *this;
}

}  // namespace tandem::data
