// Convolutions for tests of cuDNN: cases, operands on the device with strides, and what they give by plain
// loops. Values are small multiples of 1/8, so that sums are exact in every order and results can be compared
// by their bits. For the test that includes it; one thread.
#pragma once

#include <memory>
#include <random>
#include <set>

#include "tandem/jit/cudnn.h"
#include "tests/cuda/on_device.h"
#include "tests/jit/cudnn_shapes.h"

namespace tandem::test {

using cuda::Block;
using cuda::Pointer;
using cuda::Runtime;
using jit::CudnnConvolution;

inline constexpr CudnnDirection kDirections[] = {CudnnDirection::forward, CudnnDirection::input,
                                                 CudnnDirection::weight};
inline Runtime& device() { return Runtime::of(kCuda); }

inline const Case kConvolutions[] = {
    {2, 3, 4, 1, {{7, 3, 0, 1, 1}}},
    {2, 4, 6, 2, {{9, 2, 1, 2, 3}}},
    {2, 3, 5, 1, {{6, 3, 1, 1, 1}, {7, 3, 1, 1, 1}}},
    {1, 4, 8, 4, {{8, 3, 1, 2, 1}, {7, 2, 0, 1, 2}}},
    {3, 6, 4, 2, {{5, 5, 2, 1, 1}, {9, 1, 0, 3, 1}}},
    {2, 1, 1, 1, {{1, 1, 0, 1, 1}, {1, 3, 2, 2, 1}}},
    {1, 2, 4, 2, {{4, 2, 1, 1, 1}, {3, 2, 0, 1, 2}, {5, 3, 1, 2, 1}}},
};

std::vector<float> numbers(const Dims& sizes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> out(static_cast<size_t>(numel(sizes)));
  for (float& v : out) v = static_cast<float>(static_cast<int>(random() % 33) - 16) / 8;
  return out;
}

/// Calls `f(x, w, y)`, numbers of elements in row-major order, for each product of an x and a w.
template <class F>
void for_products(const CudnnShape& s, F&& f) {
  const int axes = s.pads.rank();
  const int64_t outputs = s.w[0] / s.groups;
  for (int64_t y = 0; y < numel(s.y); ++y)
    for (int64_t w = 0; w < numel(s.w); ++w) {
      int64_t rest_y = y, rest_w = w, x = 0, step = 1;
      bool inside = true;
      for (int d = axes - 1; d >= 0; --d) {
        const int64_t at =
            rest_y % s.y[d + 2] * s.strides[d] - s.pads[d] + rest_w % s.w[d + 2] * s.dilations[d];
        inside = inside && at >= 0 && at < s.x[d + 2];
        x += at * step;
        step *= s.x[d + 2];
        rest_y /= s.y[d + 2];
        rest_w /= s.w[d + 2];
      }
      const int64_t output = rest_y % s.y[1], batch = rest_y / s.y[1], channel = rest_w % s.w[1];
      if (!inside || rest_w / s.w[1] != output) continue;
      x += ((batch * s.x[1]) + output / outputs * s.w[1] + channel) * step;
      f(static_cast<size_t>(x), static_cast<size_t>(w), static_cast<size_t>(y));
    }
}

inline Dims bias_sizes(const CudnnShape& s) {
  return {s.direction == CudnnDirection::forward ? s.y[1] : s.x[1]};
}

struct Values {
  std::vector<float> x, w, y, bias;
  explicit Values(const CudnnShape& s, unsigned seed = 1)
      : x(numbers(s.x, seed)),
        w(numbers(s.w, seed + 1)),
        y(numbers(s.y, seed + 2)),
        bias(numbers(bias_sizes(s), seed + 3)) {}
  std::vector<float>& result(CudnnDirection d) {
    return d == CudnnDirection::forward ? y : d == CudnnDirection::input ? x : w;
  }
};

/// What the direction computes, in place of its result. `sum`: what becomes of a sum before its bias is
/// added.
template <class Sum>
std::vector<float> expected(const CudnnShape& s, const Values& v, Sum&& sum) {
  Values sums = v;
  std::vector<float>& out = sums.result(s.direction);
  std::fill(out.begin(), out.end(), 0.f);
  for_products(s, [&](size_t x, size_t w, size_t y) {
    switch (s.direction) {
      case CudnnDirection::forward:
        out[y] += v.x[x] * v.w[w];
        break;
      case CudnnDirection::input:
        out[x] += v.y[y] * v.w[w];
        break;
      case CudnnDirection::weight:
        out[w] += v.x[x] * v.y[y];
        break;
    }
  });
  const size_t channels = v.bias.size();
  const size_t positions =
      out.size() / channels / static_cast<size_t>(s.direction == CudnnDirection::forward ? s.y[0] : s.x[0]);
  for (size_t i = 0; s.biased && i < out.size(); ++i) out[i] = sum(out[i]) + v.bias[i / positions % channels];
  return out;
}
std::vector<float> expected(const CudnnShape& s, const Values& v) {
  return expected(s, v, [](float x) { return x; });
}

inline int64_t reach(const Dims& sizes, const Dims& strides) {
  int64_t last = 0;
  for (int d = 0; d < sizes.rank(); ++d) last += (sizes[d] - 1) * strides[d];
  return last + 1;
}

/// A tensor's memory on the device, `shift` elements behind an aligned address; gaps hold 0x5A.
class Held {
 public:
  Held(const Dims& sizes, const Dims& strides, DType dtype, const std::vector<float>& values,
       int64_t shift = 0)
      : sizes_(sizes),
        strides_(strides),
        dtype_(dtype),
        size_(itemsize(dtype)),
        bytes_((reach(sizes, strides) + shift) * size_),
        shift_(shift * size_),
        block_(device(), bytes_) {
    set(values);
  }
  void set(const std::vector<float>& values) {
    std::vector<char> host(static_cast<size_t>(bytes_), 0x5A);
    each([&](size_t i, size_t at) {
      if (dtype_ == DType::float32) {
        std::memcpy(host.data() + at, &values[i], 4);
      } else {
        const uint16_t bits = to_bits(values[i]);
        std::memcpy(host.data() + at, &bits, 2);
      }
    });
    device().copy_in(block_.memory(), host.data(), bytes_);
  }
  /// Whether it holds `values`, rounded, and nothing beside them changed.
  bool holds(const std::vector<float>& values) const {
    std::vector<char> host(static_cast<size_t>(bytes_));
    device().copy_out(host.data(), block_.memory(), bytes_);
    std::set<size_t> mine;
    bool same = true;
    each([&](size_t i, size_t at) {
      if (dtype_ == DType::float32) {
        float found = 0;
        std::memcpy(&found, host.data() + at, 4);
        same = same && found == values[i];
      } else {
        uint16_t found = 0;
        std::memcpy(&found, host.data() + at, 2);
        same = same && (found & 0x7FFF ? found == to_bits(values[i]) : values[i] == 0);
      }
      for (size_t b = 0; b < static_cast<size_t>(size_); ++b) mine.insert(at + b);
    });
    for (size_t at = 0; at < host.size(); ++at) same = same && (mine.count(at) || host[at] == 0x5A);
    return same;
  }
  Pointer at() const { return block_.memory() + static_cast<Pointer>(shift_); }

 private:
  uint16_t to_bits(float v) const { return dtype_ == DType::float16 ? float_to_half(v) : float_to_bfloat(v); }
  /// `f(number, byte)` for all elements.
  template <class F>
  void each(F&& f) const {
    for (int64_t i = 0; i < numel(sizes_); ++i) {
      int64_t at = 0, rest = i;
      for (int d = sizes_.rank() - 1; d >= 0; --d) at += rest % sizes_[d] * strides_[d], rest /= sizes_[d];
      f(static_cast<size_t>(i), static_cast<size_t>(at * size_ + shift_));
    }
  }
  const Dims sizes_, strides_;
  const DType dtype_;
  const int64_t size_, bytes_, shift_;
  const Block block_;
};

/// A convolution with its operands on the device.
struct Ready {
  const CudnnShape shape;
  Values values;
  std::string why;
  const std::shared_ptr<const CudnnConvolution> convolution;
  Held x, w, y;
  std::unique_ptr<Held> bias;
  std::unique_ptr<Block> workspace;

  explicit Ready(const CudnnShape& s, unsigned seed = 1, int64_t shift = 0)
      : shape(s),
        values(s, seed),
        convolution(jit::cudnn_convolution(device(), s, &why)),
        x(s.x, s.x_strides, s.dtype, values.x, shift),
        w(s.w, s.w_strides, s.dtype, values.w),
        y(s.y, s.y_strides, s.dtype, values.y, shift) {
    INFO(why);
    REQUIRE(convolution);
    if (s.biased) bias = std::make_unique<Held>(bias_sizes(s), Dims{1}, s.dtype, values.bias);
    workspace = std::make_unique<Block>(device(), jit::workspace_bytes(*convolution));
  }
  void run(cuda::StreamHandle stream) const { run(stream, workspace->memory()); }
  void run(cuda::StreamHandle stream, Pointer memory) const {
    jit::run_convolution(device(), *convolution, x.at(), w.at(), y.at(), bias ? bias->at() : 0, memory,
                         stream);
  }
  const Held& result() const {
    return shape.direction == CudnnDirection::forward ? y : shape.direction == CudnnDirection::input ? x : w;
  }
  bool right() const { return result().holds(expected(shape, values)); }
};

}  // namespace tandem::test
