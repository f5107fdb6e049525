// One epoch of a loader: which examples its batches have, and, with workers, the batches that wait. Owned by
// the epoch's iterators; get and pass are called by one thread at a time.
#pragma once

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "tandem/core/modes.h"
#include "tandem/eager/data/loader.h"

namespace tandem::data {

class Epoch {
 public:
  /// `seed`: of the batches' generators. Workers have the modes of this thread.
  Epoch(std::shared_ptr<const Dataset> dataset, std::vector<int64_t> order, const LoaderOptions& options,
        int64_t batches, uint64_t seed, Location where);
  ~Epoch() { stop(); }
  Epoch(const Epoch&) = delete;
  Epoch& operator=(const Epoch&) = delete;

  Example get(int64_t batch);
  /// No batch up to this one will be asked for.
  void pass(int64_t batch);

 private:
  struct Slot {
    std::optional<Example> example;
    std::exception_ptr error;
    bool ready() const { return example || error; }
  };
  Example make(int64_t batch) const;
  void work();
  void stop() noexcept;
  Slot& slot(int64_t batch) { return slots_[static_cast<size_t>(batch) % slots_.size()]; }

  const std::shared_ptr<const Dataset> dataset_;
  const std::vector<int64_t> order_;
  const int64_t batch_size_, batches_;
  const bool pin_memory_;
  const uint64_t seed_;
  const Location where_;  // of the loop
  const Modes modes_;

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::vector<Slot> slots_;  // of batches passed_ and later; none without workers
  int64_t taken_ = 0;        // batches that a worker makes or has made
  int64_t passed_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace tandem::data
