// A convolution in the simplest way that is not slow, in one of three directions: what is computed of x, w
// and y is added up in float32 and rounded once. Plain data and one function without state; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sim_gpu {

constexpr int kAxes = 3;

struct Tensor {
  int type = 0;  // cudnnDataType_t
  int rank = 0;
  int64_t sizes[2 + kAxes] = {}, strides[2 + kAxes] = {};
  int64_t id = 0, alignment = 0;

  int64_t element_bytes() const;
  /// From the first element to the end of the last.
  size_t span_bytes() const;
};

struct ConvolutionData {
  enum class Result { y, x, w } result = Result::y;
  Tensor x, w, y;
  int axes = 0;
  int64_t pads[kAxes] = {}, strides[kAxes] = {}, dilations[kAxes] = {};
  // Of the engine that does it:
  bool tf32 = false;     // operands keep 10 bits of the mantissa
  bool spoiled = false;  // results are wrong: nobody should have taken it
  void *x_data = nullptr, *w_data = nullptr, *y_data = nullptr, *workspace = nullptr;
  size_t workspace_bytes = 0;
};

void run_convolution(const ConvolutionData& c);

}  // namespace sim_gpu
