// Matrix products by every provider: products [threads]. Prints the least microseconds and GFLOP/s per shape;
// providers take turns, each first in turn, so that none is favoured by warm caches. Eigen is compiled for
// the baseline here.
#include "tandem/ops/products/products.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "tandem/core/thread_pool.h"

namespace {

using namespace tandem;

struct Shape {
  const char* name;
  int64_t m, n, k;
  bool columns_a, columns_b;  // stored transposed
};

constexpr Shape kShapes[] = {
    {"mlp x W1^T", 64, 256, 64, false, true},    {"mlp x W2^T", 64, 128, 256, false, true},
    {"mlp x W3^T", 64, 10, 128, false, true},    {"mlp dy W2", 64, 256, 128, false, false},
    {"mlp dy W3", 64, 128, 10, false, false},    {"mlp dy^T x 1", 256, 64, 64, true, false},
    {"mlp dy^T x 2", 128, 256, 64, true, false}, {"mlp dy^T x 3", 10, 128, 64, true, false},
    {"gpt x W^T", 768, 384, 128, false, true},   {"gpt dy W", 768, 384, 128, false, false},
    {"gpt dy^T x", 384, 128, 768, true, false},  {"attention", 64, 64, 32, false, true},
    {"vector W^T", 1, 1024, 1024, false, true},  {"vector W", 1, 1024, 1024, false, false},
    {"4 rows W^T", 4, 1024, 1024, false, true},  {"4 rows W", 4, 1024, 1024, false, false},
    {"dot", 1, 1, 1024, false, false},           {"square", 256, 256, 256, false, false},
    {"square", 1024, 1024, 1024, false, false},  {"square, b^T", 1024, 1024, 1024, false, true}};
constexpr ops::Provider kProviders[] = {ops::Provider::dots, ops::Provider::tiles, ops::Provider::onednn,
                                        ops::Provider::eigen};

double time_us(const ops::ProductCall& call, ops::Provider provider, int times) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) ops::product(call, provider);
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / times;
}

void measure(const Shape& s, const std::vector<float>& a, const std::vector<float>& b,
             std::vector<float>& c) {
  const ops::ProductCall call{.m = s.m,
                              .n = s.n,
                              .k = s.k,
                              .a = a.data(),
                              .a_row = s.columns_a ? 1 : s.k,
                              .a_col = s.columns_a ? s.m : 1,
                              .b = b.data(),
                              .b_row = s.columns_b ? 1 : s.n,
                              .b_col = s.columns_b ? s.k : 1,
                              .c = c.data(),
                              .c_row = s.n,
                              .c_col = 1};
  const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  const int times = std::clamp(static_cast<int>(2e7 / flops), 1, 5000);
  constexpr int kCount = static_cast<int>(std::size(kProviders));
  double least[kCount];
  std::fill_n(least, kCount, 1e300);
  for (int round = 0; round < 15; ++round)
    for (int i = 0; i < kCount; ++i) {
      const int which = (i + round) % kCount;
      if (!ops::provider_available(kProviders[which])) continue;
      least[which] = std::min(least[which], time_us(call, kProviders[which], times));
    }
  std::printf("%-13s %5lld %5lld %5lld  %-6s", s.name, static_cast<long long>(s.m),
              static_cast<long long>(s.n), static_cast<long long>(s.k),
              ops::name(ops::choose_provider(call)));
  for (const double us : least)
    if (us < 1e300)
      std::printf(" %10.2f us %6.1f", us, flops / us * 1e-3);
    else
      std::printf(" %20s", "absent");
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) try {
  set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  std::vector<float> a(1 << 20), b(1 << 20), c(1 << 20);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<float>(i % 251) / 251.0f - 0.5f;
    b[i] = static_cast<float>(i % 241) / 241.0f - 0.5f;
  }
  std::printf("%-13s %5s %5s %5s  %-6s", "product", "m", "n", "k", "chosen");
  for (const ops::Provider p : kProviders) std::printf(" %20s", ops::name(p));
  std::printf("\n");
  for (const Shape& s : kShapes) measure(s, a, b, c);
  return 0;
} catch (const std::exception& e) {
  std::fprintf(stderr, "products: %s\n", e.what());
  return 1;
}
