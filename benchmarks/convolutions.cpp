// Convolutions by every provider in three directions: convolutions [bfloat16]. Prints the least microseconds
// of processor time on one thread and GFLOP/s per shape; providers take turns, so that none is favoured by
// warm caches.
#include "tandem/ops/convolutions/convolutions.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string_view>
#include <vector>

#include "tandem/core/bfloat.h"
#include "tandem/core/thread_pool.h"

namespace {

using namespace tandem;
using ops::ConvolutionDirection;
using ops::ConvolutionProvider;

struct Shape {
  const char* name;
  int64_t batch, channels, outputs, groups, size, kernel, stride, padding;
};

constexpr Shape kShapes[] = {{"cnn 1", 64, 1, 32, 1, 28, 3, 1, 1},
                             {"cnn 2", 64, 32, 64, 1, 14, 3, 1, 1},
                             {"3x3", 8, 64, 64, 1, 56, 3, 1, 1},
                             {"3x3 128", 4, 128, 128, 1, 28, 3, 1, 1},
                             {"3x3 256", 4, 256, 256, 1, 14, 3, 1, 1},
                             {"3x3 512", 16, 512, 512, 1, 7, 3, 1, 1},
                             {"3x3 stride 2", 8, 64, 128, 1, 56, 3, 2, 1},
                             {"1x1", 8, 256, 64, 1, 56, 1, 1, 0},
                             {"depthwise", 8, 64, 64, 64, 56, 3, 1, 1},
                             {"first", 8, 3, 64, 1, 112, 7, 2, 3},
                             {"groups", 8, 64, 64, 4, 28, 3, 1, 1},
                             {"few in", 16, 4, 32, 1, 32, 3, 1, 1},
                             {"few out", 16, 32, 4, 1, 32, 3, 1, 1},
                             {"small", 1, 8, 8, 1, 8, 3, 1, 1},
                             {"tiny", 1, 2, 4, 1, 6, 3, 1, 1}};
constexpr ConvolutionDirection kDirections[] = {ConvolutionDirection::forward, ConvolutionDirection::input,
                                                ConvolutionDirection::weight};
constexpr const char* kNames[] = {"y", "x", "w"};

/// Processor time of the calling thread.
double thread_us() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

double time_us(const ops::ConvolutionCall& call, ConvolutionProvider provider, int times) {
  const double start = thread_us();
  for (int i = 0; i < times; ++i) ops::convolve(call, provider);
  return (thread_us() - start) / times;
}

constexpr int64_t kElements = 1 << 23;  // of an operand at most

std::vector<char> operand(DType dtype) {
  std::vector<char> bytes(static_cast<size_t>(kElements * itemsize(dtype)));
  for (int64_t i = 0; i < kElements; ++i) {
    const float value = static_cast<float>(i % 251) / 251.0f - 0.5f;
    if (dtype == DType::float32)
      reinterpret_cast<float*>(bytes.data())[i] = value;
    else
      reinterpret_cast<uint16_t*>(bytes.data())[i] = core::rounded_to_bfloat(value);
  }
  return bytes;
}

void measure(const Shape& shape, DType dtype, const std::vector<char>& values, std::vector<char>& result) {
  ops::ConvolutionShape s;
  s.dtype = dtype;
  s.batch = shape.batch, s.channels = shape.channels, s.outputs = shape.outputs, s.groups = shape.groups;
  for (int d = 1; d < ops::kConvolutionAxes; ++d) {
    s.in[d] = shape.size, s.kernel[d] = shape.kernel, s.stride[d] = shape.stride,
    s.padding[d] = shape.padding;
    s.out[d] = (shape.size + 2 * shape.padding - shape.kernel) / shape.stride + 1;
  }
  for (size_t d = 0; d < std::size(kDirections); ++d) {
    s.direction = kDirections[d];
    ops::ConvolutionCall call{s};
    if (s.direction != ConvolutionDirection::input) call.x = values.data();
    if (s.direction != ConvolutionDirection::weight) call.w = values.data() + 7 * itemsize(dtype);
    if (s.direction != ConvolutionDirection::forward) call.y = values.data() + 16 * itemsize(dtype);
    call.result = result.data();
    std::printf("%-13s %s %8.1f MFLOP  %-6s", shape.name, kNames[d], s.flops() * 1e-6,
                ops::name(ops::choose_provider(s)));
    constexpr size_t kCount = std::size(ops::kConvolutionProviders);
    double least[kCount];
    std::fill_n(least, kCount, 1e300);
    for (size_t round = 0; round < 9; ++round)
      for (size_t i = 0; i < kCount; ++i) {
        const size_t which = (i + round) % kCount;
        const bool slow = ops::kConvolutionProviders[which] == ConvolutionProvider::loops && s.flops() > 1e7;
        if (slow || !ops::provider_takes(ops::kConvolutionProviders[which], s)) continue;
        const int times = std::clamp(static_cast<int>(2e7 / s.flops()), 1, 5000);
        least[which] = std::min(least[which], time_us(call, ops::kConvolutionProviders[which], times));
      }
    for (const double us : least)
      if (us < 1e300)
        std::printf(" %10.2f us %6.1f", us, s.flops() / us * 1e-3);
      else
        std::printf(" %20s", "-");
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const DType dtype =
      argc > 1 && std::string_view(argv[1]) == name(DType::bfloat16) ? DType::bfloat16 : DType::float32;
  const std::vector<char> values = operand(dtype);
  std::vector<char> result(values.size());
  set_num_threads(1);
  std::printf("%-13s   %14s  %-6s", "convolution", "", "chosen");
  for (const ConvolutionProvider p : ops::kConvolutionProviders) std::printf(" %20s", ops::name(p));
  std::printf("\n");
  for (const Shape& s : kShapes) measure(s, dtype, values, result);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "convolutions: %s\n", e.what());
  return 1;
}
