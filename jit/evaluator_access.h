// Strided memory read and written in ranges of a linear index: a range that is contiguous is used where it
// lies, any other is gathered into (or scattered from) a buffer of the caller. Values; any thread.
#pragma once

#include <cstdint>

namespace tandem::jit {

inline constexpr int kMaxWalkRank = 16;

/// An access over some dimensions in row-major order. Dimensions that continue each other are merged.
struct Walk {
  char* base;
  int64_t itemsize;
  int rank;                                           // 0: one element everywhere
  int64_t dims[kMaxWalkRank], strides[kMaxWalkRank];  // elements
};

/// Fills in rank, dims and strides.
void set_walk(Walk& w, const int64_t* dims, const int64_t* strides, int rank);
/// Elements between the base and position `at`.
int64_t walk_offset(const Walk& w, int64_t at);
/// Where elements [at, at + n) lie one after another; null if they do not. A stride of 0 does for n = 1
/// alone.
char* walk_direct(const Walk& w, int64_t at, int64_t n);
void walk_read(const Walk& w, int64_t at, int64_t n, void* to);
void walk_write(const Walk& w, int64_t at, int64_t n, const void* from);

/// An axis that an index selects along.
struct Pick {
  int64_t extent, stride;
  int64_t* error;
  int64_t code;  // what *error becomes when an index is out of range
  /// The offset of `index`; element 0's if it is out of range.
  int64_t offset(int64_t index) const {
    if (static_cast<uint64_t>(index) < static_cast<uint64_t>(extent)) [[likely]]
      return index * stride;
    __atomic_store_n(error, code, __ATOMIC_RELAXED);
    return 0;
  }
};
/// Like walk_read, with an offset per element. An axis of extent 0 is not read: the elements become 0.
void walk_pick(const Walk& w, int64_t at, int64_t n, const int64_t* index, const Pick& pick, void* to);

}  // namespace tandem::jit
