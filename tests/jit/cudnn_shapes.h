// Convolutions as cuDNN's planner is told of them: sizes, and strides of several layouts. Values only, any
// thread.
#pragma once

#include <vector>

#include "tandem/jit/cudnn_plan.h"

namespace tandem::test {

using jit::CudnnDirection;
using jit::CudnnShape;

enum class Memory { rows, channels_last, gaps };

struct Axes {
  int64_t in, kernel, pad, stride, dilation;
};
struct Case {
  int64_t batch, channels, outputs, groups;
  std::vector<Axes> axes;
};
inline Dims strides_for(const Dims& sizes, Memory memory) {
  const int rank = sizes.rank();
  Dims out = contiguous_strides(sizes);
  if (memory == Memory::gaps) {
    int64_t step = 2;
    for (int d = rank - 1; d >= 0; --d) out[d] = step, step = step * sizes[d] + 1;
  }
  if (memory == Memory::channels_last) {
    int64_t step = sizes[1];
    out[1] = 1;
    for (int d = rank - 1; d >= 2; --d) out[d] = step, step *= sizes[d];
    out[0] = step;
  }
  return out;
}

inline CudnnShape shape_of(const Case& c, CudnnDirection direction, DType dtype,
                           Memory memory = Memory::rows) {
  CudnnShape s;
  s.direction = direction;
  s.dtype = dtype;
  s.groups = c.groups;
  s.x = {c.batch, c.channels}, s.w = {c.outputs, c.channels / c.groups}, s.y = {c.batch, c.outputs};
  for (const Axes& a : c.axes) {
    s.x.push_back(a.in);
    s.w.push_back(a.kernel);
    s.y.push_back((a.in + 2 * a.pad - a.dilation * (a.kernel - 1) - 1) / a.stride + 1);
    s.pads.push_back(a.pad), s.strides.push_back(a.stride), s.dilations.push_back(a.dilation);
  }
  s.x_strides = strides_for(s.x, memory), s.w_strides = strides_for(s.w, memory);
  s.y_strides = strides_for(s.y, memory);
  return s;
}

}  // namespace tandem::test
