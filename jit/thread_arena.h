// The memory of intermediate values for the time of one run. Each thread keeps one block, which all of its
// plans use in turn, so that a plan for a new size finds warm memory; larger ones, and those of a run inside
// a run, come from the allocator. An object belongs to the thread that made it.
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
    if (own_)
      kept_.taken = false;
    else if (memory_)
      core::deallocate(memory_, bytes_);
  }
  ThreadArena(const ThreadArena&) = delete;
  ThreadArena& operator=(const ThreadArena&) = delete;
  char* memory() const { return static_cast<char*>(memory_); }

 private:
  struct Kept {
    void* memory = nullptr;
    int64_t bytes = 0;
    bool taken = false;
  };
  /// Lives on each thread that keeps a block; apart from it, so that looking at the block costs no check.
  struct Guard {
    ~Guard() { core::deallocate(std::exchange(kept_.memory, nullptr), std::exchange(kept_.bytes, 0)); }
  };
  void take(int64_t bytes);
  static constinit thread_local Kept kept_;
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
  bool own_ = false;
};

}  // namespace tandem::jit
