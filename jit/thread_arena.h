// The memory of intermediate values for the time of one run. Each thread keeps one block, which all of its
// plans use in turn, so that a plan for a new size finds warm memory; a large one only as long as runs need
// it. That of a run inside a run comes from the allocator. An object belongs to the thread that made it.
#pragma once

#include <cstdint>
#include <utility>

#include "tandem/core/allocator.h"

namespace tandem::jit {

class ThreadArena {
 public:
  explicit ThreadArena(int64_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    if (bytes <= kept_.bytes && !kept_.taken) [[likely]] {
      kept_.taken = own_ = true;
      memory_ = kept_.memory;
      return;
    }
    take(bytes);
  }
  ~ThreadArena() {
    if (own_) {
      kept_.taken = false;
      if (kept_.bytes > kLarge) [[unlikely]]
        count_run(bytes_);
    } else if (memory_) {
      core::deallocate(memory_, bytes_);
    }
  }
  ThreadArena(const ThreadArena&) = delete;
  ThreadArena& operator=(const ThreadArena&) = delete;
  char* memory() const { return static_cast<char*>(memory_); }

  /// Kept however seldom it is needed.
  static constexpr int64_t kLarge = int64_t{64} << 20;
  /// A larger block goes when so many runs in a row needed less than half of it.
  static constexpr int kSmallRuns = 64;

 private:
  struct Kept {
    void* memory = nullptr;
    int64_t bytes = 0;
    int small_runs = 0;
    bool taken = false;
  };
  /// Lives on each thread that keeps a block; apart from it, so that looking at the block costs no check.
  struct Guard {
    ~Guard() { give_back(); }
  };
  static void give_back() noexcept {
    core::deallocate(std::exchange(kept_.memory, nullptr), std::exchange(kept_.bytes, 0));
  }
  static void count_run(int64_t bytes) noexcept;
  void take(int64_t bytes);
  static constinit thread_local Kept kept_;
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
  bool own_ = false;
};

}  // namespace tandem::jit
