// A stable radix sort of positions on a CUDA device, and what it serves: scatters of many indices, whose
// positions are sorted by where they fall, so that all that meets at one place lies together, in the order of
// the index. Values only, any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/cuda_native_text.h"

namespace tandem::jit {

/// Whether sorting `indices` by keys in `passes` passes, which move `moved_bytes`, costs less than reading
/// `read_bytes`.
bool sorting_pays(int64_t indices, int64_t passes, int64_t moved_bytes, int64_t read_bytes);

/// What is sorted: `text` makes `key` and `from` (td_u32) of element q.
struct SortSource {
  std::string name, fields, text;
  std::vector<NativeWord> words;
};

/// Sorts n < 2^31 elements. In the workspace lie two buffers of keys and of positions, counts of each digit
/// and tile, sums of these.
class RadixSort {
 public:
  explicit RadixSort(int64_t n);

  static int64_t passes(int64_t key_bits);
  /// Sorts by keys of so many bits. Only the first pass reads `source`: elements before any was sorted, later
  /// at what order() names; what has equal keys stays in the order that it has.
  void by(const SortSource& source, int64_t key_bits);
  /// The keys of the latest by(), sorted, and what they came from.
  NativeWord keys() const { return keys(latest_); }
  NativeWord order() const { return order(latest_); }
  /// All launches, and those behind them, which read the workspace.
  std::vector<NativeText> texts(NativeText behind) &&;

 private:
  NativeWord keys(int64_t buffer) const;
  NativeWord order(int64_t buffer) const;
  NativeWord counts() const;
  NativeWord totals() const;
  NativeText count_digits(const SortSource& s, int64_t shift, int64_t bits) const;
  NativeText sum_digits(int64_t bits) const;
  NativeText move(const SortSource& s, int64_t to, int64_t shift, int64_t bits) const;

  int64_t n_, tiles_, latest_ = 1;
  std::vector<NativeText> texts_;
};

/// `indices` of `index_bytes` that fall on `keys` places; after sorting, `groups` warps read them again.
struct SortedIndices {
  int64_t indices = 0, keys = 0, index_bytes = 0, groups = 0;
};
/// Whether it costs less to sort them than to read `reads` indices.
bool sorting_pays(const SortedIndices& s, int64_t reads);

/// `along`: index_add or index_copy, else scatter_add or scatter.
std::vector<NativeText> sorted_scatter(const NativeCallPlan& c, bool along);

}  // namespace tandem::jit
