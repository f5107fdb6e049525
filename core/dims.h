// Sizes and strides: up to kMaxRank 64-bit numbers held inline, and checked arithmetic on them.
// Values only, any thread.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "tandem/core/location.h"

namespace tandem {

inline constexpr int kMaxRank = 8;

/// A short list of integers: a shape, strides, axes. Ranks above kMaxRank are refused with an Error.
class Dims {
 public:
  constexpr Dims() = default;
  constexpr Dims(std::initializer_list<int64_t> values, Location where = Location::here())
      : Dims(values.begin(), static_cast<int64_t>(values.size()), where) {}
  /// One number stands for itself: `x.sum(0)`, `zeros(3)`.
  template <std::integral T>
  requires(!std::same_as<T, bool>) constexpr Dims(T value) : rank_(1), values_{static_cast<int64_t>(value)} {}
  constexpr Dims(const int64_t* values, int64_t n, Location where = {}) : rank_(check_rank(n, where)) {
    for (int64_t i = 0; i < n; ++i) values_[i] = values[i];
  }
  static constexpr Dims filled(int rank, int64_t value) {
    Dims d;
    d.rank_ = check_rank(rank);
    for (int i = 0; i < rank; ++i) d.values_[i] = value;
    return d;
  }

  constexpr int rank() const { return rank_; }
  constexpr int size() const { return rank_; }
  constexpr bool empty() const { return rank_ == 0; }
  constexpr int64_t operator[](int i) const { return values_[i]; }
  constexpr int64_t& operator[](int i) { return values_[i]; }
  constexpr const int64_t* begin() const { return values_; }
  constexpr const int64_t* end() const { return values_ + rank_; }
  constexpr int64_t* begin() { return values_; }
  constexpr int64_t* end() { return values_ + rank_; }
  constexpr const int64_t* data() const { return values_; }
  constexpr int64_t back() const { return values_[rank_ - 1]; }
  constexpr void push_back(int64_t v) {
    check_rank(rank_ + 1);
    values_[rank_++] = v;
  }
  /// Changes the rank alone; elements beyond the old rank have unspecified values.
  constexpr void resize(int rank) { rank_ = check_rank(rank); }
  constexpr void erase(int at) {
    for (int i = at; i + 1 < rank_; ++i) values_[i] = values_[i + 1];
    --rank_;
  }
  constexpr void insert(int at, int64_t v) {
    check_rank(rank_ + 1);
    for (int i = rank_; i > at; --i) values_[i] = values_[i - 1];
    values_[at] = v;
    ++rank_;
  }
  friend constexpr bool operator==(const Dims& a, const Dims& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a.values_[i] != b.values_[i]) return false;
    return true;
  }

 private:
  static constexpr int check_rank(int64_t n, Location where = {}) {
    if (n > kMaxRank) fail_rank(n, where);
    return static_cast<int>(n);
  }
  [[noreturn]] static void fail_rank(int64_t n, Location where);

  int32_t rank_ = 0;
  int64_t values_[kMaxRank] = {};
};

/// "(64, 784)"; a rank of one prints "(64,)", a scalar "()".
std::string to_string(const Dims& d);

/// a * b and a + b of sizes; an Error naming `what` when the result leaves int64.
int64_t checked_mul(int64_t a, int64_t b, const char* what = "size", Location where = {});
int64_t checked_add(int64_t a, int64_t b, const char* what = "size", Location where = {});
/// Number of elements; refuses negative sizes and overflow, naming the shape.
int64_t checked_numel(const Dims& sizes, Location where = {});
/// Number of elements of sizes that were checked before.
int64_t numel(const Dims& sizes);
/// Row-major strides, in elements.
Dims contiguous_strides(const Dims& sizes);
/// True if the elements lie in row-major order without gaps (dimensions of size 1 do not count).
bool is_contiguous(const Dims& sizes, const Dims& strides);
/// The strides by which `wanted`, sizes of as many elements, shows the same memory in row-major order; false,
/// and some strides, if there are none.
bool reshape_strides(const Dims& sizes, const Dims& strides, const Dims& wanted, Dims& out);
/// The shape both broadcast to; an Error naming `op` and both shapes when they do not.
Dims broadcast(const Dims& a, const Dims& b, const char* op, Location where = {});
[[noreturn]] void fail_axis(int64_t axis, int limit, int rank, const char* op, Location where);
/// Wraps a negative axis and checks the range [-rank, rank); a scalar counts as rank 1.
inline int normalize_axis(int64_t axis, int rank, const char* op, Location where = {}) {
  const int limit = rank > 1 ? rank : 1;
  if (axis < -limit || axis >= limit) [[unlikely]]
    fail_axis(axis, limit, rank, op, where);
  return static_cast<int>(axis < 0 ? axis + limit : axis);
}

}  // namespace tandem
