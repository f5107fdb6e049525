// Public convolutions and transposed convolutions over one to three axes. Names, argument order and defaults
// are PyTorch's. Included by functions.h. Stateless; any thread.
//
// stride, padding, dilation and output_padding take one number for all axes or one an axis. x may come
// without the batch axis: (C, *), and then so does the result. Convolutions are cross-correlations: the
// kernel is not flipped. All operands have one dtype; float16 and bfloat16 accumulate in float32.
#pragma once

#include <string>

#include "tandem/eager/tensor.h"

namespace tandem {

/// Zeros on both sides of each axis: numbers, "valid" (none), or "same": as many as keep the size, for a
/// stride of 1 (of an odd number one more behind than in front).
struct ConvPadding {
  Dims sizes = {};
  std::string word = {};
  template <std::integral T>
  requires(!std::same_as<T, bool>) ConvPadding(T value) : sizes(value) {}  // NOLINT
  ConvPadding(const Dims& sizes) : sizes(sizes) {}                         // NOLINT
  ConvPadding(std::initializer_list<int64_t> sizes) : sizes(sizes) {}      // NOLINT
  ConvPadding(const char* word) : word(word) {}                            // NOLINT
};

/// x (N, C, L), weight (O, C / groups, K), bias (O) -> (N, O, L'), L' = (L + 2 padding - dilation (K - 1) -
/// 1) / stride + 1, rounded down.
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Dims& stride = 1,
              const ConvPadding& padding = 0, const Dims& dilation = 1, int64_t groups = 1,
              Location where = Location::here());
/// x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O) -> (N, O, H', W'), sizes as in conv1d.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Dims& stride = 1,
              const ConvPadding& padding = 0, const Dims& dilation = 1, int64_t groups = 1,
              Location where = Location::here());
/// x (N, C, D, H, W), weight (O, C / groups, KD, KH, KW), bias (O) -> (N, O, D', H', W').
Tensor conv3d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Dims& stride = 1,
              const ConvPadding& padding = 0, const Dims& dilation = 1, int64_t groups = 1,
              Location where = Location::here());

/// The gradient of conv1d for its operand, as a function: x (N, C, L), weight (C, O / groups, K), bias (O) ->
/// (N, O, L'), L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1. output_padding, less
/// than stride or dilation, says which of the sizes is meant that conv1d would make L of.
Tensor conv_transpose1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const Dims& stride = 1, const Dims& padding = 0, const Dims& output_padding = 0,
                        int64_t groups = 1, const Dims& dilation = 1, Location where = Location::here());
/// x (N, C, H, W), weight (C, O / groups, KH, KW), bias (O) -> (N, O, H', W'), sizes as in conv_transpose1d.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const Dims& stride = 1, const Dims& padding = 0, const Dims& output_padding = 0,
                        int64_t groups = 1, const Dims& dilation = 1, Location where = Location::here());
/// x (N, C, D, H, W), weight (C, O / groups, KD, KH, KW), bias (O) -> (N, O, D', H', W').
Tensor conv_transpose3d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const Dims& stride = 1, const Dims& padding = 0, const Dims& output_padding = 0,
                        int64_t groups = 1, const Dims& dilation = 1, Location where = Location::here());

}  // namespace tandem
