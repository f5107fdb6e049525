// One CUDA device as Tandem uses it: its context, one stream on which everything runs in order, and a caching
// allocator. Made at first use, one a device, living to the process's end. Any thread: calls are serialised
// by the driver, the allocator has a lock.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/libraries.h"

namespace tandem::cuda {

class Runtime {
 public:
  /// Throws Error, with one sentence that says what is missing, if the device is not there.
  static Runtime& of(Device device, const char* who, Location where = {});
  /// The same for a device whose tensors exist already.
  static Runtime& of(Device device) { return of(device, "cuda"); }

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
  void give_back(Pointer block) noexcept;
  void empty_cache() noexcept;
  MemoryStats memory_stats() const;

  void copy_in(Pointer to, const void* from, int64_t nbytes);
  /// Waits for what is queued before.
  void copy_out(void* to, Pointer from, int64_t nbytes);
  void copy(Pointer to, Pointer from, int64_t nbytes);
  /// Waits for everything that is queued; throws what failed since the last time.
  void synchronize();

  /// An int64 on the device, 0 now, for one launch that may meet an index out of range and sets it then. The
  /// next synchronisation throws `what` at `where` for the first that is set.
  Pointer error_word(std::string what, Location where);

  /// Throws for anything but success, naming the call and what the driver says.
  void check(Result result, const char* call) const;

 private:
  static constexpr size_t kErrorWords = 1024;

  Runtime(const Driver& api, int index);
  void set_current() const;
  Pointer take_cached(int64_t rounded);
  void check_errors();

  static constinit thread_local int current_;

  const Driver& api_;
  int index_ = 0, capability_ = 0, multiprocessors_ = 0;
  Context context_ = nullptr;
  Stream stream_ = nullptr;
  mutable std::mutex mutex_;
  std::multimap<int64_t, Pointer> cached_;       // by bytes
  std::unordered_map<Pointer, int64_t> blocks_;  // all blocks: their bytes
  MemoryStats stats_;
  struct Expected {
    std::string what;
    Location where;
  };
  Pointer error_words_ = 0;  // kErrorWords of them; those of `expected_` are in use
  std::vector<Expected> expected_;
};

/// Memory of a device, given back at the end of its life: for work that is queued later.
class Block {
 public:
  Block(Runtime& device, int64_t bytes) : device_(device), memory_(device.allocate(bytes)) {}
  ~Block() { device_.give_back(memory_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Pointer memory() const { return memory_; }

 private:
  Runtime& device_;
  const Pointer memory_;
};

}  // namespace tandem::cuda
