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
  bool is_virtual = false;  // a value between operations
  bool by_value = false;    // a number in the host's memory

  int64_t element_bytes() const;
  /// From the first element to the end of the last.
  size_t span_bytes() const;
};

struct ConvolutionData {
  enum class Result { y, x, w } result = Result::y;
  Tensor x, w, y;
  int axes = 0;
  bool biased = false;  // `bias` is added to the sum, which was rounded to sum_type before
  Tensor bias;
  int sum_type = 0;
  int64_t pads[kAxes] = {}, strides[kAxes] = {}, dilations[kAxes] = {};
  // Of the engine that does it:
  bool tf32 = false;     // operands keep 10 bits of the mantissa
  bool spoiled = false;  // results are wrong: nobody should have taken it
  void *x_data = nullptr, *w_data = nullptr, *y_data = nullptr, *bias_data = nullptr, *workspace = nullptr;
  size_t workspace_bytes = 0;
};

void run_convolution(const ConvolutionData& c);

/// An element as float32, and back, rounded to nearest even. Integers and booleans are int32 and bytes.
float load(const void* data, int type, int64_t i);
void store(void* data, int type, int64_t i, float value);
/// `value` as an element of `type` has it.
float rounded(float value, int type);

}  // namespace sim_gpu
