// The windows of a pooling along one or two spatial axes: where each begins and ends, and which of them hold
// a position. The formulas are PyTorch's. Shared by checks and kernels. Values only, any thread.
#pragma once

#include <string>

#include "tandem/core/dims.h"
#include "tandem/ops/op.h"

namespace tandem::ops {

inline constexpr int kMaxSpatial = 2;

/// One axis: `out` windows over `in` positions. An adaptive one has windows [o * in / out, (o + 1) * in /
/// out), widened to whole positions; the others begin `stride` apart, at -padding first.
struct WindowAxis {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, padding = 0, dilation = 1;
  bool adaptive = false;

  /// Positions first, first + dilation, ... below `end`; `size` with the padding that is counted.
  struct Range {
    int64_t first = 0, end = 0, size = 0;
  };
  Range positions(int64_t o) const {
    if (adaptive) {
      const int64_t first = o * in / out, end = ((o + 1) * in + out - 1) / out;
      return {first, end, end - first};
    }
    const int64_t start = o * stride - padding, past = start + (kernel - 1) * dilation + 1;
    const int64_t first = start < 0 ? start + (-start + dilation - 1) / dilation * dilation : start;
    return {first, past < in ? past : in, (past < in + padding ? past : in + padding) - start};
  }
  /// The windows [first, end) that may hold position i, and do with dilation 1.
  Range windows(int64_t i) const {
    if (adaptive) return {i * out / in, ((i + 1) * out + in - 1) / in, 0};
    const int64_t at = i + padding, before = at - (kernel - 1) * dilation;
    const int64_t first = before <= 0 ? 0 : (before + stride - 1) / stride, end = at / stride + 1;
    return {first, end < out ? end : out, 0};
  }
  /// No window has more positions.
  int64_t widest() const { return !adaptive ? kernel : in % out == 0 ? in / out : in / out + 2; }
};

/// A pooling's axes, as its words say them; axes that are not there have one position and one window.
struct Windows {
  int rank = 0;                  // spatial axes
  WindowAxis axis[kMaxSpatial];  // the last of them are used
  int64_t in_plane() const { return axis[0].in * axis[1].in; }
  int64_t out_plane() const { return axis[0].out * axis[1].out; }
  /// Whether an element's place in its window, row * axis[1].widest() + column, fits uint8.
  bool small() const { return axis[0].widest() <= 256 && axis[0].widest() * axis[1].widest() <= 256; }
};

/// The axis of `in` positions of which a pooling's list says these `n` words: kernel, stride and padding (and
/// dilation), or how many windows it has if it is adaptive.
WindowAxis window_axis(const int64_t* words, int n, int64_t in);
/// Sets `out` by the others; or the reason why there are no such windows, else "".
std::string count_windows(WindowAxis& a, bool ceil);

/// Of the pooling ops. `words` are structural; their list holds kernel, stride and padding of each axis (and
/// dilation, of maxima), or its number of windows if adaptive. Spatial sizes of the pooling's operand: at the
/// list's end (avg_pool_backward) or in one of their own (max_pool_backward). `x`: sizes of operand 0.
Windows windows_of(const OpDef& op, const Dims& x, Words words);
/// max_pool, max_pool_backward, max_pool_pick.
bool pools_maxima(OpId op);
/// The ops whose operand has an element a window, and whose result one a position.
bool pools_backward(OpId op);

}  // namespace tandem::ops
