// Training steps (protocol 5.c and 5.j): forward, backward and update in one call, on a ring of batches,
// beside the step's products alone.
#include <sstream>

#include "benchmarks/bench/contest.h"
#include "benchmarks/bench/models.h"

namespace bench {

namespace {

using Of = Bar::Of;

Workload mlp(const std::string& name, int64_t in, int64_t a, int64_t b) {
  Work work;
  add_linear(work.products, 64, in, a, false);
  add_linear(work.products, 64, a, b, true);
  add_linear(work.products, 64, b, 10, true);
  std::ostringstream what;
  what << in << '-' << a << '-' << b << "-10 with ReLU, batch 64, Adam: a training step";
  Workload w = training_workload(name, "5.c, 5.j", what.str(), td::float64, work);
  const auto inner = static_cast<double>(a * b + b * 10), first = static_cast<double>(in * a);
  const double parameters = first + inner + static_cast<double>(a + b + 10);
  w.flop = 2 * 64 * (3 * inner + 2 * first);
  w.bytes = 24 * parameters + 4 * 64 * static_cast<double>(in);
  w.counted =
      "two FLOP a multiplication and addition, no gradient of the input; 24 bytes a parameter (weight and "
      "two moments, read and written) and the batch once";
  w.bars = {
      {Of::at_most_times, 1.5, "products alone", 1}, {Of::at_most_times, 1.7, "products alone", 2},
      {Of::times_faster, 2, "PyTorch eager"},        {Of::times_faster, 1.5, "PyTorch compile"},
      {Of::at_most_times, 1.03, "frozen"},           {Of::fact_at_most, 0.8, "private bytes over eager's"},
      {Of::fact_at_most, 12, "plan entries"}};
  return w;
}

/// One of the two that have bars against LibTorch.
Workload mnist_mlp(const std::string& name, int64_t in, double one_thread, const char* open) {
  Workload w = mlp(name, in, 256, 128);
  w.bars.push_back({Of::times_faster, one_thread, "LibTorch", 1});
  w.bars.push_back({Of::times_faster, 3.5, "LibTorch", 2});
  w.open = open;
  return w;
}

/// Whose weights are larger than a core's cache.
Workload wide_mlp() {
  Workload w = mlp("mlp784_1024", 784, 1024, 1024);
  w.open =
      "64 rows share weights that come from the last cache for each of their products, and with their "
      "moments "
      "for the update; next: the update of a weight behind the product that makes its gradient";
  return w;
}

Workload cnn() {
  Work work;
  add_linear(work.products, 64, 3136, 128, true);
  add_linear(work.products, 64, 128, 10, true);
  using td::ops::ConvolutionDirection;
  const auto convolution = [&](int64_t channels, int64_t outputs, int64_t size, bool input_gradient) {
    td::ops::ConvolutionShape s;
    s.batch = 64, s.channels = channels, s.outputs = outputs;
    for (int d = 1; d < td::ops::kConvolutionAxes; ++d)
      s.in[d] = s.out[d] = size, s.kernel[d] = 3, s.padding[d] = 1;
    for (const auto direction :
         {ConvolutionDirection::forward, ConvolutionDirection::weight, ConvolutionDirection::input}) {
      s.direction = direction;
      if (direction != ConvolutionDirection::input || input_gradient) work.convolutions.push_back(s);
    }
  };
  convolution(1, 32, 28, false);
  convolution(32, 64, 14, true);
  Workload w = training_workload(
      "cnn", "5.j", "conv32 3x3, pool, conv64 3x3, pool, 128, 10 on (64, 1, 28, 28), SGD: a training step",
      td::float32, work);
  const double conv1 = 2.0 * 64 * 28 * 28 * 9 * 32, conv2 = 2.0 * 64 * 14 * 14 * 9 * 32 * 64;
  const double linear = 2.0 * 64 * (3136 * 128 + 128 * 10);
  const double parameters = 9 * 32 + 32 + 9 * 32 * 64 + 64 + 3136 * 128 + 128 + 1280 + 10;
  // What convolutions and pools give, each written once and read once in either direction.
  const double kept = 64 * (32.0 * 28 * 28 + 32 * 14 * 14 + 64 * 14 * 14 + 64 * 7 * 7);
  w.flop = 2 * conv1 + 3 * conv2 + 3 * linear;
  w.bytes = 8 * parameters + 4 * (64.0 * 784 + 3 * kept);
  w.counted =
      "two FLOP a multiplication and addition of sums in order (Winograd's algorithm has fewer), no gradient "
      "of the images; 8 bytes a parameter, the images once, results of convolutions and pools three times";
  w.open =
      "next: weights in oneDNN's layout once for both directions, and batch norm in its blocks of channels";
  w.bars = {{Of::times_faster, 2.5, "LibTorch", 1},
            {Of::times_faster, 1.5, "PyTorch eager"},
            {Of::times_faster, 1.2, "PyTorch compile"},
            {Of::at_most_times, 1.01, "frozen"},
            {Of::fact_at_most, 0.8, "private bytes over eager's"}};
  return w;
}

Workload gpt() {
  constexpr int64_t c = kGpt.width, rows = kGptBatch * kGpt.length, heads = kGpt.heads * kGptBatch;
  constexpr int64_t t = kGpt.length, size = kGpt.width / kGpt.heads;
  constexpr int layers = kGpt.layers;
  Work work;
  for (const auto& [in, out] : {std::pair{c, 3 * c}, {c, c}, {c, 4 * c}, {4 * c, c}})
    add_linear(work.products, rows, in, out, true, layers);
  add_linear(work.products, rows, c, kGpt.words, true);
  // Scores and their mix forward; gradients of values, probabilities, queries and keys.
  work.products.push_back({t, t, size, false, true, heads, layers});
  work.products.push_back({t, size, t, false, false, heads, layers});
  work.products.push_back({t, size, t, true, false, heads, layers});
  work.products.push_back({t, t, size, false, true, heads, layers});
  work.products.push_back({t, size, t, false, false, heads, layers});
  work.products.push_back({t, size, t, true, false, heads, layers});
  Workload w = training_workload(
      "gpt", "5.j", "4 layers, 4 heads, 128 wide, 65 words, batch 12 of 64, AdamW: a training step",
      td::float64, work);
  const double layer = 12.0 * c * c, head = static_cast<double>(c) * kGpt.words;
  const double parameters =
      layers * (layer + 9.0 * c + 4.0 * c) + head + static_cast<double>(t * c) + 2.0 * c;
  w.flop = 6.0 * rows * (layers * layer + head) + 3.0 * layers * 4.0 * t * t * size * heads;
  w.bytes = 24 * parameters + 2 * 4.0 * rows * layers * (13.0 * c + kGpt.heads * t);
  w.counted =
      "two FLOP a multiplication and addition, attention whole; 24 bytes a parameter, and what a layer keeps "
      "for its gradient (13 widths and the probabilities a row) written and read once";
  w.open = "next: what dies inside backward";
  w.bars = {{Of::at_most_times, 1.4, "products alone", 1},
            {Of::times_faster, 2, "LibTorch AVX2", 1},
            {Of::times_faster, 1.7, "LibTorch AVX-512", 1},
            {Of::times_faster, 2, "PyTorch eager"},
            {Of::times_faster, 1.3, "PyTorch compile"},
            {Of::at_most_times, 1.01, "frozen"},
            {Of::fact_at_most, 0.8, "private bytes over eager's"},
            {Of::fact_at_most, 90, "plan entries"}};
  return w;
}

/// The same under autocast: products in bfloat16, weights and moments in float32.
Workload in_bfloat16(const Workload& of, double over_frozen) {
  Workload w =
      training_workload(of.name + "_bf16", "5.j", of.what + ", autocast to bfloat16", td::float64, {});
  w.flop = of.flop, w.bytes = of.bytes;
  w.counted = of.counted + "; as in float32";
  w.tolerance = 2e-2, w.gradient_tolerance = 0.2;
  w.open =
      "what follows a product of halves is a pass of its own; without AVX512-BF16 operands are widened and "
      "multiplied at float32's rate; next: kernels behind products of halves";
  w.bars = {{Of::times_faster, 1, "PyTorch"},
            {Of::at_most_times, over_frozen, "frozen"},
            {Of::fact_at_most, 1, "private bytes over eager's"}};
  return w;
}

}  // namespace

std::vector<Workload> training_workloads() {
  const Workload mlp784 = mnist_mlp(
      "mlp784", 784, 3,
      "on Zen 4 products are most of the step (1.25 times them alone), and LibTorch's are as fast; on two "
      "threads a worker's waking and lines that go from core to core; next: Adam as part of its product");
  const Workload images = cnn(), words = gpt();
  return {mlp784,
          mnist_mlp("mlp64", 64, 2.75,
                    "on Zen 4 products are most of the step (1.28 times them alone), and LibTorch's are as "
                    "fast; next: what of the walks between them waits for the cache"),
          wide_mlp(),
          images,
          words,
          in_bfloat16(mlp784, 1.03),
          in_bfloat16(images, 1.01),
          in_bfloat16(words, 1.01)};
}

}  // namespace bench
