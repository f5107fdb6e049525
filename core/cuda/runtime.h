// One CUDA device as Tandem uses it: its context, one stream on which everything runs in order, and a caching
// allocator: free lists by size class, a block's class being a function of the bytes asked for alone. Made at
// first use, one a device, living to the process's end. Any thread: calls are serialised by the driver, the
// allocator and the error words have a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/libraries.h"

namespace tandem::cuda {

inline constexpr int kMostDevices = 16;

class Block;

/// What is told if an index is out of range.
using ErrorText = std::shared_ptr<const std::string>;

class Runtime {
 public:
  /// Throws Error, with one sentence that says what is missing, if the device is not there.
  static Runtime& of(Device device, const char* who, Location where = {});
  /// The same for a device whose tensors exist already.
  static Runtime& of(Device device) {
    if (device.index < kMostDevices)
      if (Runtime* r = made_[static_cast<size_t>(device.index)].load(std::memory_order_acquire)) [[likely]]
        return *r;
    return of(device, "cuda");
  }

  const Driver& api() const { return api_; }
  Stream stream() const { return stream_; }
  int index() const { return index_; }
  /// 90 for compute capability 9.0.
  int capability() const { return capability_; }
  int multiprocessors() const { return multiprocessors_; }
  /// Makes the context this thread's.
  void use() const {
    if (current_ != index_) set_current();
  }

  /// At least `nbytes`, 256-byte aligned; null for 0. Memory given back is free for work that is queued
  /// later.
  Pointer allocate(int64_t nbytes);
  /// `nbytes` as it was asked for.
  void give_back(Pointer block, int64_t nbytes) noexcept;
  void empty_cache() noexcept;
  MemoryStats memory_stats() const;

  void copy_in(Pointer to, const void* from, int64_t nbytes);
  /// Waits for what is queued before.
  void copy_out(void* to, Pointer from, int64_t nbytes);
  void copy(Pointer to, Pointer from, int64_t nbytes);
  /// Waits for everything that is queued; throws what failed since the last time.
  void synchronize();

  /// An int64 on the device, 0 now, for launches that may meet an index out of range and set it then. The
  /// next synchronisation throws `what` at `where` for the first that is set. For one launch:
  Pointer error_word(ErrorText what, Location where);
  /// Held from there to the launch: a synchronisation of another thread between the two would take the word
  /// for one that was looked at.
  std::unique_lock<std::recursive_mutex> launching() { return std::unique_lock(launching_); }
  /// For launches that are repeated: `expect_errors` before each.
  Pointer keep_error_word(ErrorText what, Location where);
  void expect_errors(std::span<const Pointer> kept);
  void release_error_word(Pointer kept) noexcept;

  /// One block for intermediate values of whole graphs, which run one after another on the stream and share
  /// it; lives while somebody holds it. `mine`: null, or what an earlier call gave; replaced if it is too
  /// small or no longer the current one.
  void graph_arena(int64_t nbytes, std::shared_ptr<Block>& mine);

  /// Throws for anything but success, naming the call and what the driver says.
  void check(Result result, const char* call) const;

 private:
  static constexpr size_t kErrorWords = 1024;  // a region of them
  static constexpr size_t kClasses = 2048 + 400;
  struct FreeBlocks {
    std::vector<Pointer> blocks;  // reserved for all that there are
    size_t there = 0;             // in use and free
  };
  struct ErrorWord {
    ErrorText what;
    Location where;
    bool expected = false, kept = false;
  };

  Runtime(const Driver& api, int index);
  void set_current() const;
  Pointer cached_block(int64_t nbytes);
  Pointer new_block(int64_t nbytes, int64_t block_bytes, FreeBlocks* list);
  void count_live(int64_t bytes);
  void release_cached() noexcept;
  void check_errors();
  /// Under the lock: the index of a word that is not in use; false if there is none.
  bool take_error_word(ErrorText what, Location where, size_t* index);
  void add_error_words();
  Pointer error_address(size_t index) const {
    return error_regions_[index / kErrorWords] + index % kErrorWords * sizeof(int64_t);
  }
  size_t error_index(Pointer word) const;

  static constinit thread_local int current_;
  static constinit std::array<std::atomic<Runtime*>, kMostDevices> made_;

  const Driver& api_;
  int index_ = 0, capability_ = 0, multiprocessors_ = 0;
  const bool exact_, poison_;  // TANDEM_CUDA_EXACT, TANDEM_POISON
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  std::recursive_mutex launching_;  // taken before mutex_
  mutable std::mutex mutex_;
  std::vector<FreeBlocks> classes_{kClasses};
  MemoryStats stats_;
  std::weak_ptr<Block> arena_;
  std::atomic<const Block*> current_arena_{nullptr};
  std::vector<Pointer> error_regions_;
  std::vector<ErrorWord> error_words_;
  std::vector<size_t> unused_errors_;  // indices of words
  std::vector<size_t> expected_;       // in the order of their launches
};

/// Memory of a device, given back at the end of its life: for work that is queued later.
class Block {
 public:
  Block(Runtime& device, int64_t bytes) : device_(device), bytes_(bytes), memory_(device.allocate(bytes)) {}
  ~Block() { device_.give_back(memory_, bytes_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Pointer memory() const { return memory_; }
  int64_t bytes() const { return bytes_; }

 private:
  Runtime& device_;
  const int64_t bytes_;
  const Pointer memory_;
};

}  // namespace tandem::cuda
