// The register tiles: products of one block of C on one thread, compiled once per instruction set (tiles_v1, v3, v4)
// from tiles.inc and chosen at run time. Plain pointers, no allocation, no shared state, any thread.
// Every instruction set gives the same bits: an element of C is a chain of fused multiply-adds over k in blocks of
// k_block(k), whatever tile it falls into, and the blocks' sums are added in order.
#pragma once

#include <cstdint>

namespace tandem::ops::tiles {

/// C (m,n) = A (m,k) * B (k,n) + bias (n). Strides in elements; `bias` may be null.
template <class T>
struct Block {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_col;
  const T* b;
  int64_t b_row, b_col;
  const T* bias;
  int64_t bias_stride;
  T* c;
  int64_t c_row, c_col;
  T* scratch;  // scratch_elements(n, k), 64-byte aligned
};

inline constexpr int64_t kMaxBlockColumns = 256;  // n of a Block; keeps the packed block of B in the second-level cache
inline constexpr int64_t kPadColumns = 64;        // packed panels are padded to the widest panel at most
inline constexpr int64_t kMaxTileRows = 8;

/// Length of the blocks that k is summed in: equal parts of at most 256, a multiple of 16 unless there is one only.
constexpr int64_t k_block(int64_t k) {
  const int64_t parts = (k + 255) / 256;
  return parts <= 1 ? k : ((k + parts - 1) / parts + 15) / 16 * 16;
}
constexpr int64_t scratch_elements(int64_t n, int64_t k) {
  return (n + kPadColumns + kMaxTileRows) * ((k_block(k) + 15) / 16 * 16) + kPadColumns;
}

/// One instruction set's functions.
struct TileSet {
  const char* name;
  void (*block_float)(const Block<float>&);
  void (*block_double)(const Block<double>&);
  /// Sum of a[i * a_stride] * b[i * b_stride]: 64 interleaved chains of fused multiply-adds, joined as a balanced tree.
  float (*dot_float)(int64_t k, const float* a, int64_t a_stride, const float* b, int64_t b_stride);
  double (*dot_double)(int64_t k, const double* a, int64_t a_stride, const double* b, int64_t b_stride);
};

extern const TileSet kTilesV1, kTilesV3, kTilesV4;

/// The sets that this processor runs, the best one first.
struct AvailableSets {
  const TileSet* sets[3];
  int count;
};
AvailableSets available_sets();

}  // namespace tandem::ops::tiles
