// Which groups must run before which, while groups are still growing: bit sets over a window of recent
// groups. Older groups are closed to changes, so that the work stays linear in the number of groups. One
// owner, one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::jit {

class GroupOrder {
 public:
  /// A new group; returns its number. May close all older ones.
  int add();
  bool open(int g) const { return g >= window_ && !gone_[static_cast<size_t>(g)]; }
  /// `g` reads what `from` computes.
  void depend(int g, int from);
  /// Whether `g` runs after `other`, an open group.
  bool after(int g, int other) const {
    return g >= window_ && test(before_[static_cast<size_t>(g)], other - window_);
  }
  /// Whether two open groups, made one, would wait for a third that waits for them.
  bool would_wait(int a, int b) const;
  /// Makes `b` part of `a`.
  void merge(int a, int b);
  int first_open() const { return window_; }
  int size() const { return static_cast<int>(before_.size()); }

 private:
  static constexpr int kWindow = 1024;
  using Bits = std::array<uint64_t, kWindow / 64>;
  static bool test(const Bits& b, int i) { return b[static_cast<size_t>(i) / 64] >> (i % 64) & 1; }
  static void set(Bits& b, int i) { b[static_cast<size_t>(i) / 64] |= uint64_t{1} << (i % 64); }
  static void clear(Bits& b, int i) { b[static_cast<size_t>(i) / 64] &= ~(uint64_t{1} << (i % 64)); }
  static void add_all(Bits& b, const Bits& other) {
    for (size_t i = 0; i < b.size(); ++i) b[i] |= other[i];
  }

  std::vector<Bits> before_;  // per group: the groups of the window that run earlier
  std::vector<char> has_users_;
  std::vector<char> gone_;  // merged into another
  int window_ = 0;
};

}  // namespace tandem::jit
