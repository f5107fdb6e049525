#include "tandem/eager/data/loader.h"

#include <algorithm>
#include <numeric>

namespace tandem::data {

namespace {

/// Where its rows lie.
Tensor index_tensor(std::span<const int64_t> indices, Device device) {
  return tensor(indices, {static_cast<int64_t>(indices.size())}, {.dtype = int64, .device = device});
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

DataLoader::DataLoader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options, Location where)
    : dataset_(std::move(dataset)), options_(options), generator_(options.seed) {
  if (!dataset_) fail("DataLoader: no data set was given", where);
  if (options_.batch_size < 1)
    fail("DataLoader: batch_size must be at least 1, found " + std::to_string(options_.batch_size), where);
}

int64_t DataLoader::size() const {
  const int64_t n = dataset_->size(), full = n / options_.batch_size;
  return full + (!options_.drop_last && n % options_.batch_size != 0);
}

DataLoader::Iterator DataLoader::begin(Location where) {
  const int64_t n = dataset_->size();
  if (n < 0) fail("DataLoader: the data set says that it has " + std::to_string(n) + " examples", where);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  if (options_.shuffle)  // Fisher and Yates
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator_.below(i)]);
  return {dataset_, std::move(order), options_.batch_size, size(), where};
}

Example DataLoader::Iterator::operator*() const {
  if (batch_ >= batches_) fail("DataLoader: the epoch is over", where_);
  const auto first = static_cast<size_t>(batch_ * batch_size_);
  const size_t count = std::min(static_cast<size_t>(batch_size_), order_.size() - first);
  try {
    return dataset_->batch(std::span(order_).subspan(first, count));
  } catch (const Error& e) {
    fail_again(e, "DataLoader", where_);
  }
}

}  // namespace tandem::data
