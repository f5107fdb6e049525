// Words that several threads may touch without ordering anything by them: flags that one thread writes while
// others read, and counts. In a process that never had a second thread they cost what plain words cost. And
// words that order what was written before them.
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/core/ref.h"

namespace tandem::core {

/// Loads, stores and sums that other threads may make at the same time.
template <class T>
class Relaxed {
 public:
  constexpr Relaxed() = default;
  constexpr Relaxed(T v) : v_(v) {}
  Relaxed(const Relaxed& other) : v_(T(other)) {}
  Relaxed& operator=(const Relaxed& other) { return *this = T(other); }
  operator T() const { return v_.load(std::memory_order_relaxed); }
  Relaxed& operator=(T v) {
    v_.store(v, std::memory_order_relaxed);
    return *this;
  }
  /// Adds `k` and returns what was there before.
  T add(T k) {
    if (!single_threaded()) return v_.fetch_add(k, std::memory_order_relaxed);
    const T before = *this;
    *this = static_cast<T>(before + k);
    return before;
  }
  void operator++() { add(1); }
  void operator--() { add(static_cast<T>(-1)); }

 private:
  std::atomic<T> v_{};
};

/// A word that says that what its writer wrote before is there: who reads the one sees the other.
template <class T>
class Published {
 public:
  constexpr Published(T v) : v_(v) {}
  Published(const Published& other) : v_(T(other)) {}
  Published& operator=(const Published& other) { return *this = T(other); }
  operator T() const { return v_.load(std::memory_order_acquire); }
  Published& operator=(T v) {
    v_.store(v, std::memory_order_release);
    return *this;
  }

 private:
  std::atomic<T> v_;
};

}  // namespace tandem::core
