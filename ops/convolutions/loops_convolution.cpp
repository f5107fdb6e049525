// Plain loops for every dtype: the way of the integers and of what is small, and a reference for the rest. An
// element of y or x is one chain of additions over channels and taps, the bias last; one of w has a chain an
// image, and these are added in order. CUDA's own kernels do the same. Integers are summed unsigned, so that
// overflow wraps around. float16 and bfloat16 were widened before.
#include <algorithm>
#include <type_traits>

#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/convolutions/providers.h"
#include "tandem/ops/products/providers.h"

namespace tandem::ops {
namespace {

/// Calls f(element) for each element of a result, spread over threads.
template <class F>
void for_elements(int64_t n, double flops_each, F&& f) {
  core::parallel(n, static_cast<int64_t>(kSerialFlops / 4 / std::max(1.0, flops_each)) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) f(i);
                 });
}

template <class T>
struct Loops {
  using Sum = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  const ConvolutionShape& s;
  const T *x, *w, *y, *bias;
  T* result;
  const int64_t taps = s.taps(), channels = s.group_channels(), outputs = s.group_outputs();
  const int64_t in = s.in_positions(), out = s.out_positions();

  struct Place {
    int64_t at[kConvolutionAxes];
    Place(int64_t i, const ConvolutionShape::Axes& sizes)
        : at{i / (sizes[2] * sizes[1]), i / sizes[2] % sizes[1], i % sizes[2]} {}
  };
  /// Where along axis d a tap at a place of y reads x; -1: padding.
  int64_t in_x(int d, int64_t place, int64_t tap) const {
    const int64_t at = place * s.stride[d] + tap * s.dilation[d] - s.padding[d];
    return at < s.in[d] ? at : -1;
  }
  /// The place of y along axis d whose tap reads a place of x; -1: there is none.
  int64_t in_y(int d, int64_t place, int64_t tap) const {
    const int64_t at = place + s.padding[d] - tap * s.dilation[d];
    if (at < 0 || at % s.stride[d] != 0) return -1;
    return at / s.stride[d] < s.out[d] ? at / s.stride[d] : -1;
  }
  /// Calls use(index within `walked`, index within `met`) for all places of `walked` for which meet(axis,
  /// place) is a place of `met`, in row-major order.
  template <class Meet, class Use>
  static void for_meetings(const ConvolutionShape::Axes& walked, const ConvolutionShape::Axes& met,
                           Meet&& meet, Use&& use) {
    for (int64_t i = 0; i < walked[0]; ++i) {
      const int64_t a = meet(0, i);
      if (a < 0) continue;
      for (int64_t j = 0; j < walked[1]; ++j) {
        const int64_t b = meet(1, j);
        if (b < 0) continue;
        for (int64_t k = 0; k < walked[2]; ++k) {
          const int64_t c = meet(2, k);
          if (c >= 0) use((i * walked[1] + j) * walked[2] + k, (a * met[1] + b) * met[2] + c);
        }
      }
    }
  }
  static Sum wide(T v) { return static_cast<Sum>(v); }

  void forward() const {
    for_elements(s.y_size(), 2.0 * static_cast<double>(channels * taps), [&](int64_t e) {
      const int64_t o = e / out % s.outputs, n = e / out / s.outputs;
      const Place p(e % out, s.out);
      const T* from = x + (n * s.channels + o / outputs * channels) * in;
      const T* weight = w + o * channels * taps;
      Sum sum{};
      for (int64_t c = 0; c < channels; ++c)
        for_meetings(
            s.kernel, s.in, [&](int d, int64_t tap) { return in_x(d, p.at[d], tap); },
            [&](int64_t tap, int64_t i) {
              sum = sum + wide(from[c * in + i]) * wide(weight[c * taps + tap]);
            });
      if (bias) sum = sum + wide(bias[o]);
      result[e] = static_cast<T>(sum);
    });
  }

  void input() const {
    for_elements(s.x_size(), 2.0 * static_cast<double>(outputs * taps), [&](int64_t e) {
      const int64_t c = e / in % s.channels, n = e / in / s.channels;
      const int64_t first = c / channels * outputs;
      const Place p(e % in, s.in);
      Sum sum{};
      for (int64_t o = first; o < first + outputs; ++o) {
        const T* from = y + (n * s.outputs + o) * out;
        const T* weight = w + (o * channels + c % channels) * taps;
        for_meetings(
            s.kernel, s.out, [&](int d, int64_t tap) { return in_y(d, p.at[d], tap); },
            [&](int64_t tap, int64_t i) { sum = sum + wide(from[i]) * wide(weight[tap]); });
      }
      if (bias) sum = sum + wide(bias[c]);
      result[e] = static_cast<T>(sum);
    });
  }

  void weight() const {
    for_elements(s.w_size(), 2.0 * static_cast<double>(s.batch * out), [&](int64_t e) {
      const int64_t c = e / taps % channels, o = e / taps / channels;
      const Place tap(e % taps, s.kernel);
      Sum total{};
      for (int64_t n = 0; n < s.batch; ++n) {
        const T* from = x + (n * s.channels + o / outputs * channels + c) * in;
        const T* gradient = y + (n * s.outputs + o) * out;
        Sum sum{};
        for_meetings(
            s.out, s.in, [&](int d, int64_t place) { return in_x(d, place, tap.at[d]); },
            [&](int64_t p, int64_t i) { sum = sum + wide(from[i]) * wide(gradient[p]); });
        total = total + sum;
      }
      result[e] = static_cast<T>(total);
    });
  }
};

template <class T>
void loops(const ConvolutionCall& call) {
  const Loops<T> l{call.shape,
                   static_cast<const T*>(call.x),
                   static_cast<const T*>(call.w),
                   static_cast<const T*>(call.y),
                   static_cast<const T*>(call.bias),
                   static_cast<T*>(call.result)};
  switch (call.shape.direction) {
    case ConvolutionDirection::forward:
      return l.forward();
    case ConvolutionDirection::input:
      return l.input();
    case ConvolutionDirection::weight:
      return l.weight();
  }
}

}  // namespace

void convolution_loops(const ConvolutionCall& call) {
  switch (call.shape.dtype) {
    case DType::uint8:
      return loops<uint8_t>(call);
    case DType::int32:
      return loops<int32_t>(call);
    case DType::int64:
      return loops<int64_t>(call);
    case DType::float32:
      return loops<float>(call);
    case DType::float64:
      return loops<double>(call);
    case DType::bool_:
    case DType::float16:
    case DType::bfloat16:
      break;
  }
  internal_error(std::string("no loops of a convolution of ") + name(call.shape.dtype));
}

}  // namespace tandem::ops
