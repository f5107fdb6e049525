#include "tandem/eager/data/epoch.h"

#include <algorithm>

namespace tandem::data {

namespace {

constinit thread_local Generator* making_ = nullptr;  // of the batch that this thread makes

struct MakingGuard {
  Generator generator;
  Generator* const before = making_;
  explicit MakingGuard(uint64_t seed) : generator(seed) { making_ = &generator; }
  ~MakingGuard() { making_ = before; }
};

}  // namespace

Generator& generator() { return making_ ? *making_ : default_generator(); }

Epoch::Epoch(std::shared_ptr<const Dataset> dataset, std::vector<int64_t> order, const LoaderOptions& options,
             int64_t batches, uint64_t seed, Location where)
    : dataset_(std::move(dataset)),
      order_(std::move(order)),
      batch_size_(options.batch_size),
      batches_(batches),
      pin_memory_(options.pin_memory),
      seed_(seed),
      where_(where),
      modes_(modes()),
      slots_(static_cast<size_t>(options.workers * options.prefetch_factor)) {
  try {
    for (int64_t i = 0; i < std::min(options.workers, batches); ++i)
      workers_.emplace_back([this] { work(); });
  } catch (...) {
    stop();
    throw;
  }
}

void Epoch::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& w : workers_) w.join();
}

Example Epoch::make(int64_t batch) const {
  const auto first = static_cast<size_t>(batch * batch_size_);
  const size_t count = std::min(static_cast<size_t>(batch_size_), order_.size() - first);
  const MakingGuard guard(seed_ + static_cast<uint64_t>(batch));
  Example made = dataset_->batch(std::span(order_).subspan(first, count));
  if (pin_memory_)
    for (Tensor* t : {&made.first, &made.second})
      if (t->device(where_) == cpu) *t = t->pin_memory(where_);
  return made;
}

void Epoch::work() {
  const ModeGuard modes(modes_);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] {
      return stop_ || taken_ == batches_ || taken_ < passed_ + static_cast<int64_t>(slots_.size());
    });
    if (stop_ || taken_ == batches_) return;
    const int64_t batch = taken_++;
    lock.unlock();
    Slot made;
    try {
      made.example = make(batch);
    } catch (...) {
      made.error = std::current_exception();
    }
    lock.lock();
    if (batch < passed_) continue;
    slot(batch) = std::move(made);
    changed_.notify_all();
  }
}

Example Epoch::get(int64_t batch) {
  if (batch >= batches_) fail("DataLoader: the epoch is over", where_);
  try {
    if (workers_.empty()) return make(batch);
    std::unique_lock lock(mutex_);
    if (batch < passed_)
      fail("batch " + std::to_string(batch) + " was passed by another iterator of the epoch");
    changed_.wait(lock, [&] { return slot(batch).ready(); });
    if (slot(batch).error) std::rethrow_exception(slot(batch).error);
    return *slot(batch).example;
  } catch (const Error& e) {
    fail_again(e, "DataLoader", where_);
  }
}

void Epoch::pass(int64_t batch) {
  if (workers_.empty()) return;
  Slot old;  // its tensors go after the lock
  const std::lock_guard lock(mutex_);
  for (; passed_ <= batch; ++passed_) old = std::exchange(slot(passed_), {});
  changed_.notify_all();
}

}  // namespace tandem::data
