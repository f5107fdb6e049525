#include "tests/sim_gpu/cudnn/convolution.h"

#include <cstring>
#include <vector>

#include "tandem/core/cuda/cudnn_api.h"
#include "tests/sim_gpu/elements.h"

namespace sim_gpu {

using tandem::cuda::Cudnn;

float load(const void* data, int type, int64_t i) {
  switch (type) {
    case Cudnn::kHalf:
      return from_half(static_cast<const uint16_t*>(data)[i]);
    case Cudnn::kBrain:
      return from_brain(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void store(void* data, int type, int64_t i, float value) {
  switch (type) {
    case Cudnn::kHalf:
      static_cast<uint16_t*>(data)[i] = to_half(value);
      return;
    case Cudnn::kBrain:
      static_cast<uint16_t*>(data)[i] = to_brain(value);
      return;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

float rounded(float value, int type) {
  uint32_t bits[1];
  store(bits, type, 0, value);
  return load(bits, type, 0);
}

namespace {

/// Calls `f(place in memory, number)` for all elements in row-major order.
template <class F>
void for_elements(const Tensor& t, F&& f) {
  int64_t total = 1;
  for (int d = 0; d < t.rank; ++d) total *= t.sizes[d];
  for (int64_t i = 0; i < total; ++i) {
    int64_t at = 0, rest = i;
    for (int d = t.rank - 1; d >= 0; --d) {
      at += rest % t.sizes[d] * t.strides[d];
      rest /= t.sizes[d];
    }
    f(at, static_cast<size_t>(i));
  }
}

/// All elements as float32, row by row.
std::vector<float> packed(const Tensor& t, const void* data, bool tf32) {
  std::vector<float> out;
  for_elements(t, [&](int64_t at, size_t) {
    const float v = load(data, t.type, at);
    out.push_back(tf32 ? to_tf32(v) : v);
  });
  return out;
}

int64_t size(const Tensor& t, int axis) { return axis < t.rank - 2 ? t.sizes[2 + axis] : 1; }

}  // namespace

int64_t Tensor::element_bytes() const { return type == Cudnn::kDouble ? 8 : type == Cudnn::kFloat ? 4 : 2; }

size_t Tensor::span_bytes() const {
  int64_t last = 0;
  for (int d = 0; d < rank; ++d) last += (sizes[d] - 1) * strides[d];
  return static_cast<size_t>((last + 1) * element_bytes());
}

// Every product of an x and a w belongs to one y; each direction adds those up that belong to its result.
void run_convolution(const ConvolutionData& c) {
  // What a real kernel leaves in its workspace is nobody's business.
  if (c.workspace != nullptr) std::memset(c.workspace, 0xFF, c.workspace_bytes);
  using Result = ConvolutionData::Result;
  const auto values = [&](const Tensor& t, const void* data, Result which) {
    std::vector<float> v;
    if (c.result != which) return packed(t, data, c.tf32);
    for_elements(t, [&](int64_t, size_t) { v.push_back(0); });
    return v;
  };
  std::vector<float> x = values(c.x, c.x_data, Result::x), w = values(c.w, c.w_data, Result::w),
                     y = values(c.y, c.y_data, Result::y);
  const int64_t n_batch = c.x.sizes[0], channels = c.w.sizes[1], groups = c.x.sizes[1] / channels,
                outputs = c.w.sizes[0] / groups;
  const int64_t in[] = {size(c.x, 0), size(c.x, 1), size(c.x, 2)},
                out[] = {size(c.y, 0), size(c.y, 1), size(c.y, 2)},
                kernel[] = {size(c.w, 0), size(c.w, 1), size(c.w, 2)};
  const auto place = [](const int64_t(&sizes)[3], const int64_t(&at)[3]) {
    return (at[0] * sizes[1] + at[1]) * sizes[2] + at[2];
  };
  const auto planes = [](const int64_t(&sizes)[3]) { return sizes[0] * sizes[1] * sizes[2]; };
  for (int64_t n = 0; n < n_batch; ++n)
    for (int64_t o = 0; o < groups * outputs; ++o)
      for (int64_t k = 0; k < channels; ++k) {
        const int64_t channel = o / outputs * channels + k;
        float* const x_plane = x.data() + (n * groups * channels + channel) * planes(in);
        float* const y_plane = y.data() + (n * groups * outputs + o) * planes(out);
        float* const w_plane = w.data() + (o * channels + k) * planes(kernel);
        for (int64_t q = 0; q < planes(out); ++q)
          for (int64_t r = 0; r < planes(kernel); ++r) {
            const int64_t to[] = {q / out[2] / out[1], q / out[2] % out[1], q % out[2]},
                          tap[] = {r / kernel[2] / kernel[1], r / kernel[2] % kernel[1], r % kernel[2]};
            int64_t from[3];
            bool inside = true;
            for (int a = 0; a < 3; ++a) {
              from[a] = a < c.axes ? to[a] * c.strides[a] - c.pads[a] + tap[a] * c.dilations[a] : 0;
              inside = inside && from[a] >= 0 && from[a] < in[a];
            }
            if (!inside) continue;
            float &vx = x_plane[place(in, from)], &vw = w_plane[place(kernel, tap)], &vy = y_plane[q];
            switch (c.result) {
              case Result::y:
                vy += vx * vw;
                break;
              case Result::x:
                vx += vy * vw;
                break;
              case Result::w:
                vw += vx * vy;
                break;
            }
          }
      }
  const Tensor& t = c.result == Result::y ? c.y : c.result == Result::x ? c.x : c.w;
  void* const data = c.result == Result::y ? c.y_data : c.result == Result::x ? c.x_data : c.w_data;
  const std::vector<float>& found = c.result == Result::y ? y : c.result == Result::x ? x : w;
  const int64_t plane = t.rank > 2 ? planes(c.result == Result::y ? out : in) : 1;
  for_elements(t, [&](int64_t at, size_t i) {
    float v = found[i] + (c.spoiled ? 1.0f : 0.0f);
    if (c.biased) {
      const int64_t channel = static_cast<int64_t>(i) / plane % t.sizes[1];
      v = rounded(v, c.sum_type) + load(c.bias_data, c.bias.type, channel * c.bias.strides[1]);
    }
    store(data, t.type, at, v);
  });
}

}  // namespace sim_gpu
