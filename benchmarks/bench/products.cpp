#include "benchmarks/bench/products.h"

#include <algorithm>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/pattern.h"

namespace bench {

namespace {

using namespace tandem::ops;

/// The fastest of several ways to do one thing: the least of a few times each, by turns.
template <class Way, class Run>
Way fastest(const std::vector<Way>& ways, Run&& run) {
  std::vector<double> least(ways.size(), 1e300);
  for (int round = 0; round < 5; ++round)
    for (size_t i = 0; i < ways.size(); ++i) {
      run(ways[i]);
      least[i] = std::min(least[i], time_us(1, [&] { run(ways[i]); }));
    }
  return ways[static_cast<size_t>(std::min_element(least.begin(), least.end()) - least.begin())];
}

ProductCall call_of(const Product& p, const float* a, const float* b, float* c) {
  ProductCall call;
  call.batch = p.batch, call.m = p.m, call.n = p.n, call.k = p.k;
  call.a = a, call.b = b, call.c = c;
  call.a_batch = p.m * p.k, call.b_batch = p.k * p.n, call.c_batch = p.m * p.n;
  call.a_row = p.a_transposed ? 1 : p.k, call.a_col = p.a_transposed ? p.m : 1;
  call.b_row = p.b_transposed ? 1 : p.n, call.b_col = p.b_transposed ? p.k : 1;
  call.c_row = p.n, call.c_col = 1;
  return call;
}

}  // namespace

void add_linear(std::vector<Product>& list, int64_t rows, int64_t in, int64_t out, bool input_gradient,
                int times) {
  list.push_back({rows, out, in, false, true, 1, times});
  list.push_back({out, in, rows, true, false, 1, times});
  if (input_gradient) list.push_back({rows, in, out, false, false, 1, times});
}

std::function<void()> alone(const std::vector<Product>& products,
                            const std::vector<ConvolutionShape>& convolutions) {
  int64_t operand = 1, result = 1;
  for (const Product& p : products) {
    operand = std::max({operand, p.batch * p.m * p.k, p.batch * p.k * p.n});
    result = std::max(result, p.batch * p.m * p.n);
  }
  for (const ConvolutionShape& s : convolutions) {
    operand = std::max({operand, s.x_size(), s.w_size(), s.y_size()});
    result = std::max(result, s.result_size());
  }
  struct Memory {
    std::vector<float> a, b, c;
  };
  const auto memory = std::make_shared<Memory>(
      Memory{values(operand, 1, 1), values(operand, 2, 1), std::vector<float>(static_cast<size_t>(result))});
  std::vector<std::function<void()>> runs;
  for (const Product& p : products) {
    const ProductCall call = call_of(p, memory->a.data(), memory->b.data(), memory->c.data());
    std::vector<Provider> ways;
    for (const Provider way : {Provider::dots, Provider::tiles, Provider::onednn, Provider::eigen})
      if (provider_available(way)) ways.push_back(way);
    const Provider best = fastest(ways, [&](Provider way) { product(call, way); });
    runs.push_back([call, best, times = p.times] {
      for (int i = 0; i < times; ++i) product(call, best);
    });
  }
  for (const ConvolutionShape& s : convolutions) {
    ConvolutionCall call{s};
    if (s.direction != ConvolutionDirection::input) call.x = memory->a.data();
    if (s.direction != ConvolutionDirection::weight) call.w = memory->b.data();
    if (s.direction == ConvolutionDirection::input) call.y = memory->a.data();
    if (s.direction == ConvolutionDirection::weight) call.y = memory->b.data();
    call.result = memory->c.data();
    std::vector<ConvolutionProvider> ways;
    for (const ConvolutionProvider way : kConvolutionProviders)
      if (provider_takes(way, s) && (way != ConvolutionProvider::loops || ways.empty())) ways.push_back(way);
    const ConvolutionProvider best = fastest(ways, [&](ConvolutionProvider way) { convolve(call, way); });
    runs.push_back([call, best] { convolve(call, best); });
  }
  return [memory, runs] {
    for (const auto& run : runs) run();
  };
}

}  // namespace bench
