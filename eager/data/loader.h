// Data sets and the loader that makes batches of them: `for (auto [x, y] : loader)`. A loader draws orders
// from a generator of its own, so shuffling never moves the random numbers of a model. One thread at a time.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/eager/functions.h"

namespace tandem::data {

/// An input and its target; or two batches of them.
using Example = std::pair<Tensor, Tensor>;

class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  /// Example i of [0, size()).
  virtual Example get(int64_t i) const = 0;
  /// The examples stacked along a new first axis. Override it where that can be done at once.
  virtual Example batch(std::span<const int64_t> indices) const;
};

/// Rows of two tensors with equally many.
class TensorDataset : public Dataset {
 public:
  TensorDataset(Tensor x, Tensor y, Location where = Location::here());
  int64_t size() const override { return x_.sizes()[0]; }
  Example get(int64_t i) const override;
  Example batch(std::span<const int64_t> indices) const override;

 private:
  Tensor x_, y_;
};

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;  // leave out a last batch that is not full
  uint64_t seed = 0;       // of the loader's generator
};

/// Batches of a data set. A data set given as an lvalue is referred to and must outlive the loader; a
/// temporary is kept.
class DataLoader {
 public:
  template <class D>
  requires std::is_base_of_v<Dataset, std::remove_cvref_t<D>>
  explicit DataLoader(D&& dataset, const LoaderOptions& options = {}, Location where = Location::here())
      : DataLoader(keep(std::forward<D>(dataset)), options, where) {}
  explicit DataLoader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options = {},
                      Location where = Location::here());

  /// Batches of one epoch.
  int64_t size() const;
  const Dataset& dataset() const { return *dataset_; }
  /// Its state decides the orders of the epochs to come; a checkpoint may hold it.
  Generator& generator() { return generator_; }

  /// Goes through one epoch; reading it makes the batch.
  class Iterator {
   public:
    using value_type = Example;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    Example operator*() const;
    Iterator& operator++() { return ++batch_, *this; }
    void operator++(int) { ++batch_; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) { return i.batch_ >= i.batches_; }

   private:
    friend class DataLoader;
    Iterator(std::shared_ptr<const Dataset> dataset, std::vector<int64_t> order, int64_t batch_size,
             int64_t batches, Location where)
        : dataset_(std::move(dataset)),
          order_(std::move(order)),
          batch_size_(batch_size),
          batches_(batches),
          where_(where) {}
    std::shared_ptr<const Dataset> dataset_;
    std::vector<int64_t> order_;
    int64_t batch_size_, batches_, batch_ = 0;
    Location where_;  // of the loop
  };
  /// Starts an epoch: draws its order if shuffling.
  Iterator begin(Location where = Location::here());
  std::default_sentinel_t end() const { return {}; }

 private:
  template <class D>
  static std::shared_ptr<const Dataset> keep(D&& dataset) {
    if constexpr (std::is_lvalue_reference_v<D>) {
      return std::shared_ptr<const Dataset>(std::shared_ptr<const Dataset>(), &dataset);
    } else {
      return std::make_shared<const std::remove_cvref_t<D>>(std::move(dataset));
    }
  }
  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  Generator generator_;
};

}  // namespace tandem::data
