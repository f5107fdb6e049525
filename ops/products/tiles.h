// Register tiles: the product of one block of C on one thread, compiled once per instruction set (tiles_v1,
// _v3, _v4) from tiles.inc. Plain pointers, no allocation, no state, any thread.
//
// Every instruction set gives the same bits: an element of C is a chain of fused multiply-adds over k in
// parts of k_part(k), started from zero, whatever tile it falls into; the parts' sums are added in order, the
// bias last. fma(a, b, c) is fma(b, a, c), so a product may also be computed transposed. The set for bfloat16
// is another one: its chain has two products a link, as the processor adds them.
#pragma once

#include <cstdint>

#include "tandem/ops/products/products.h"

namespace tandem::ops::tiles {

/// C (m,n) = A (m,k) * B (k,n) + bias. Strides in elements; that of a size below 2 is small.
template <class T>
struct Block {
  int64_t m, n, k;
  int64_t part;  // k_part(k)
  const T* a;
  int64_t a_row, a_col;
  const T* b;
  int64_t b_row, b_col;
  bool b_panels;  // `b` is in panels of kPanel columns, each k rows of as many elements as it has columns, up
                  // to a multiple of 16
  const T* bias;  // null, or contiguous: one value
  bool bias_of_rows;  // per row of C instead of per column
  T* c;
  int64_t c_row, c_col;
  T* scratch;  // scratch_elements(n, k), 64-byte aligned
};

// The copied part of B, and a part of A, stay in the second-level cache. The first is a limit, the second
// advice.
inline constexpr int64_t kMaxBlockColumns = 256;
inline constexpr int64_t kMaxBlockRows = 768;

/// Length of the parts of k: equal ones of at most 256, a multiple of 16 unless there is only one.
constexpr int64_t k_part(int64_t k) {
  const int64_t parts = (k + 255) / 256;
  return parts <= 1 ? k : ((k + parts - 1) / parts + 15) / 16 * 16;
}
constexpr int64_t scratch_elements(int64_t n, int64_t k) { return (n + 15) / 16 * 16 * k_part(k); }

inline constexpr int64_t kDotChains = 16;
inline constexpr int64_t kDotPart = 4096;

/// C (m,n), row-major without gaps = A (m,k) * B (k,n), no size below 1.
template <class T>
struct Dots {
  int64_t m, n, k;
  const T* a;  // rows without gaps, `a_row` apart
  int64_t a_row;
  const T* b;
  int64_t b_row, b_col;  // one of them is 1
  T* c;
  T* scratch;  // kDotScratch elements, 64-byte aligned
};
/// Columns times rows whose chains the scratch space holds.
inline constexpr int64_t kDotColumns = 256;
inline constexpr int64_t kDotScratch = kDotChains * kDotColumns;

/// The functions of one instruction set.
struct TileSet {
  const char* name;
  void (*block_float)(const Block<float>&);
  void (*block_double)(const Block<double>&);
  void (*dots_float)(const Dots<float>&);
  void (*dots_double)(const Dots<double>&);
  /// to (rows, columns), row-major without gaps = from.
  void (*copy_float)(float* to, const float* from, int64_t row, int64_t col, int64_t rows, int64_t columns);
  void (*copy_double)(double* to, const double* from, int64_t row, int64_t col, int64_t rows,
                      int64_t columns);
  /// To bfloat16, n in a row.
  void (*round_bfloat)(uint16_t* to, const float* from, int64_t n);
};

extern const TileSet kTilesV1, kTilesV3, kTilesV4;
/// Of float32 alone: operands are pairs of bfloat16 along k in the place of floats, so that k is half of what
/// it stands for; sums, bias and C are floats.
extern const TileSet kTilesV4Bfloat;

/// The best set that this processor runs.
const TileSet& best_set();
/// kTilesV4Bfloat, or null where the processor does not run it.
const TileSet* bfloat_set();
/// Whether this processor runs it.
bool runs_here(const TileSet& set);
/// The product by a given set: float32 and float64, no size below 1, strides as in Block.
void product_with(const TileSet& set, const ProductCall& call);
/// The same by dot products.
void dots_with(const TileSet& set, const ProductCall& call);
/// Of float32; C is of a half type, to which each sum is rounded once.
void product_rounded(const TileSet& set, const ProductCall& call, DType result);
void dots_rounded(const TileSet& set, const ProductCall& call, DType result);
/// B of a call, which lies by its strides, in panels.
template <class T>
void pack_panels(const ProductCall& call, T* to);

}  // namespace tandem::ops::tiles
