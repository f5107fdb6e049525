// Words that several threads may touch without ordering anything by them: flags that one thread writes while
// others read, and counts. In a process that never had a second thread they cost what plain words cost.
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/core/ref.h"

namespace tandem::core {

/// One writer at a time, any readers. A read-modify-write is not atomic.
template <class T>
class Relaxed {
 public:
  constexpr Relaxed() = default;
  constexpr Relaxed(T v) : v_(v) {}
  operator T() const { return v_.load(std::memory_order_relaxed); }
  Relaxed& operator=(T v) {
    v_.store(v, std::memory_order_relaxed);
    return *this;
  }

 private:
  std::atomic<T> v_{};
};

/// Any writers.
class Count {
 public:
  operator int64_t() const { return n_.load(std::memory_order_relaxed); }
  void operator++() { add(1); }
  void operator--() { add(-1); }

 private:
  void add(int64_t k) {
    if (single_threaded())
      n_.store(n_.load(std::memory_order_relaxed) + k, std::memory_order_relaxed);
    else
      n_.fetch_add(k, std::memory_order_relaxed);
  }
  std::atomic<int64_t> n_{0};
};

}  // namespace tandem::core
