// Intrusive shared ownership for tensors, storages and tape nodes.
// A type T provides `RefCount refs` and a free function `void destroy(T*)` found by argument-dependent
// look-up. Handles may be dropped on any thread. The last owner looks and does not write: its reference still
// counts when `destroy` is called, so that who knows of the object otherwise (a watched tensor, under a lock)
// may take one until `leave`.
#pragma once

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif

#include <atomic>
#include <cstdint>
#include <utility>

namespace tandem {

/// True while the process has never had a second thread (glibc 2.32): then counts need no locked
/// instructions.
inline bool single_threaded() {
#if __has_include(<sys/single_threaded.h>)
  return __libc_single_threaded;
#else
  return false;
#endif
}

class RefCount {
 public:
  uint32_t get() const { return count_.load(std::memory_order_acquire); }
  void add() {
    if (single_threaded())
      set(count_.load(std::memory_order_relaxed) + 1);
    else
      count_.fetch_add(1, std::memory_order_relaxed);
  }
  /// True if this was the last reference. A unique owner pays no read-modify-write.
  bool drop() {
    uint32_t now = count_.load(std::memory_order_acquire);
    if (now == 1) return true;
    if (!single_threaded()) {
      while (
          !count_.compare_exchange_weak(now, now - 1, std::memory_order_acq_rel, std::memory_order_acquire))
        if (now == 1) return true;
      return false;
    }
    set(now - 1);
    return false;
  }
  /// After `drop` was true: gives that reference up. False if there is another one by now.
  bool leave() { return count_.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  /// For an object nobody else can see yet, or that nobody else holds.
  void set(uint32_t n) { count_.store(n, std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> count_{0};
};

/// Gives one reference up; true if it was the last one. Types may have one of their own.
template <class T>
bool drop_reference(T* p) {
  return p->refs.drop();
}

template <class T>
class Ref {
 public:
  constexpr Ref() = default;
  constexpr Ref(std::nullptr_t) {}
  explicit Ref(T* p) : p_(p) {
    if (p_) p_->refs.add();
  }
  Ref(const Ref& other) : Ref(other.p_) {}
  Ref(Ref&& other) noexcept : p_(std::exchange(other.p_, nullptr)) {}
  Ref& operator=(const Ref& other) {
    Ref(other).swap(*this);
    return *this;
  }
  Ref& operator=(Ref&& other) noexcept {
    Ref(std::move(other)).swap(*this);
    return *this;
  }
  ~Ref() {
    if (p_ && drop_reference(p_)) destroy(p_);
  }
  /// Takes over a count that the caller already holds.
  static Ref adopt(T* p) {
    Ref r;
    r.p_ = p;
    return r;
  }
  T* release() { return std::exchange(p_, nullptr); }
  void swap(Ref& other) noexcept { std::swap(p_, other.p_); }
  void reset() { Ref().swap(*this); }

  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  friend bool operator==(const Ref& a, const Ref& b) { return a.p_ == b.p_; }

 private:
  T* p_ = nullptr;
};

namespace core {
using tandem::Ref;
using tandem::RefCount;
}  // namespace core

}  // namespace tandem
