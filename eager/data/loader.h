// Data sets and the loader that makes batches of them: `for (auto [x, y] : loader)`. A loader draws orders
// from a generator of its own, so shuffling never moves the random numbers of a model. One thread at a time;
// with workers, a data set's methods are called by several threads at once.
#pragma once

#include <cstddef>
#include <functional>
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

/// For random numbers inside Dataset::get and batch, such as those of augmentations: while a loader makes a
/// batch, a generator that depends on the loader's generator, the epoch and the batch, not on the thread;
/// elsewhere the default generator.
Generator& generator();

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

/// Another data set's examples through a function, which may draw from data::generator().
class TransformedDataset : public Dataset {
 public:
  using Transform = std::function<Example(Example)>;
  TransformedDataset(std::shared_ptr<const Dataset> dataset, Transform transform,
                     Location where = Location::here());
  int64_t size() const override { return dataset_->size(); }
  Example get(int64_t i) const override { return transform_(dataset_->get(i)); }

 private:
  std::shared_ptr<const Dataset> dataset_;
  Transform transform_;
};

/// Which examples an epoch goes through, in which order.
class Sampler {
 public:
  virtual ~Sampler() = default;
  /// How many of `examples`.
  virtual int64_t size(int64_t examples) const = 0;
  virtual std::vector<int64_t> order(int64_t examples, Generator& generator) const = 0;
};

/// The given examples, in a new order each epoch.
class SubsetRandomSampler : public Sampler {
 public:
  explicit SubsetRandomSampler(std::vector<int64_t> indices) : indices_(std::move(indices)) {}
  int64_t size(int64_t) const override { return static_cast<int64_t>(indices_.size()); }
  std::vector<int64_t> order(int64_t examples, Generator& generator) const override;

 private:
  std::vector<int64_t> indices_;
};

/// `count` examples drawn by weights, which need not add up to 1: each draw of all of them, or, without
/// replacement, of those not yet drawn. Errors: negative or infinite weights, none above 0, more draws
/// without replacement than weights above 0; when an epoch begins, as many weights as examples are needed.
class WeightedRandomSampler : public Sampler {
 public:
  WeightedRandomSampler(std::vector<double> weights, int64_t count, bool replacement = true,
                        Location where = Location::here());
  int64_t size(int64_t) const override { return count_; }
  std::vector<int64_t> order(int64_t examples, Generator& generator) const override;

 private:
  std::vector<double> weights_;
  int64_t count_;
  bool replacement_;
};

struct LoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;
  bool drop_last = false;                       // leave out a last batch that is not full
  uint64_t seed = 0;                            // of the loader's generator
  std::shared_ptr<const Sampler> sampler = {};  // instead of shuffle
  int64_t workers = 0;          // threads that make batches ahead; the batches and their order stay the same
  int64_t prefetch_factor = 2;  // batches ahead for each of them
  bool pin_memory = false;      // batches for x.to(cuda, true): Tensor::pin_memory
};

class Epoch;

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
  /// Its state decides the epochs to come; a checkpoint may hold it.
  Generator& generator() { return generator_; }

  /// Goes through one epoch; reading it makes the batch or, with workers, waits for it. An Error of the data
  /// set is thrown by the reading of its batch. The last iterator of an epoch stops its workers.
  class Iterator {
   public:
    using value_type = Example;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    Example operator*() const;
    Iterator& operator++();
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) { return i.batch_ >= i.batches_; }

   private:
    friend class DataLoader;
    Iterator(std::shared_ptr<Epoch> epoch, int64_t batches) : epoch_(std::move(epoch)), batches_(batches) {}
    std::shared_ptr<Epoch> epoch_;
    int64_t batches_, batch_ = 0;
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
