// Rows of max pooling in float32, compiled once per instruction set (pool_rows_v1, _v3, _v4) from
// pool_rows.inc: windows that are whole along the row, of at most 256 elements, several a step; or, where
// channels lie in blocks, those of several channels. Plain pointers, no allocation, no state, any thread.
// Every instruction set gives the same bits.
#pragma once

#include <cstdint>

namespace tandem::ops::pool_rows {

/// Rows of windows of one plane: `n` windows in each, `stride` apart, `kernel` positions `dilation` apart
/// wide. Row i reads the `height[i]` rows of the plane from element `first[i]` on, `down` elements apart, and
/// writes to + i * out and places + i * out.
struct Forward {
  const float* from;
  const int64_t* first;
  const int64_t* height;
  int64_t rows, down;
  int64_t n, stride, kernel, dilation;
  float* to;
  uint8_t* places;  // row * kernel + column in the window
  int64_t out;
};

/// The gradient of windows of two by two, side by side: each gives its share to the place that it names. Row
/// i of the windows writes rows 2 i and 2 i + 1 of the plane, 2 n elements of each, `in` elements apart.
struct Quarters {
  const float* from;
  const uint8_t* places;
  int64_t rows, n;
  float* to;
  int64_t in;
};

/// The positions of windows along an axis: begin[o], + dilation, ... below end[o].
struct Axis {
  const int64_t* begin;
  const int64_t* end;
  int64_t out, dilation;
};
/// A plane of `block` channels, 8 or 16, which lie side by side; `width` places in a row of a window, `in`
/// positions in one of the plane. Windows of at most 256 places.
struct BlockPlane {
  Axis down, right;
  int64_t width, in, block;
};

struct RowSet {
  const char* name;
  void (*forward)(const Forward&);
  void (*quarters)(const Quarters&);
  void (*forward_block)(const BlockPlane&, const float* from, float* to, uint8_t* places);
  /// `apart`: the windows cover the plane without meeting, so that each position is written once; else `to`
  /// holds zeros, and shares are added.
  void (*backward_block)(const BlockPlane&, const float* from, const uint8_t* places, float* to, bool apart);
};

extern const RowSet kRowsV1, kRowsV3, kRowsV4;

/// Whether this processor runs it, and the best one that it runs.
bool runs_here(const RowSet& set);
const RowSet& best_rows();

}  // namespace tandem::ops::pool_rows
