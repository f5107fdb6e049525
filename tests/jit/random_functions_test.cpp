// The random functions of jit/prelude.h, as each instruction set has them, against core's Philox.
#include <cmath>
#include <cstring>
#include <vector>

#include "tandem/core/generator.h"
#include "tandem/jit/evaluator_chunks.h"
#include "tests/catch.h"

namespace {

using namespace tandem;
using namespace tandem::jit;
using ops::ScalarOp;

std::vector<const ChunkFunctions*> runnable() {
  const ChunkFunctions* all[3];
  const int n = runnable_chunk_functions(all);
  return {all, all + n};
}

TEST_CASE("random draws follow core's Philox, for consecutive and scattered elements", "[scalar]") {
  const int64_t seed = 0x123456789abcdef, offset = (int64_t{1} << 32) - 3;
  std::vector<int64_t> index;
  for (int64_t i = 0; i < 200; ++i) index.push_back(i);
  for (int64_t i = 0; i < 50; ++i) index.push_back(1000003 + i);
  for (int64_t i = 0; i < 100; ++i) index.push_back((i * 7919) % 4096);
  const auto word = [&](int64_t i) {
    return core::philox(static_cast<uint64_t>(seed),
                        static_cast<uint64_t>(offset + i / 4))[static_cast<size_t>(i % 4)];
  };
  for (const ChunkFunctions* c : runnable())
    for (const size_t skip : {size_t{0}, size_t{1}, size_t{6}}) {
      const auto n = static_cast<int64_t>(index.size() - skip);
      std::vector<float> u(index.size()), h(index.size()), g(index.size());
      c->ternary(ScalarOp::uniform, DType::float32, 6)(u.data(), index.data() + skip, &seed, &offset, n);
      c->ternary(ScalarOp::uniform16, DType::float32, 6)(h.data(), index.data() + skip, &seed, &offset, n);
      c->ternary(ScalarOp::normal, DType::float32, 6)(g.data(), index.data() + skip, &seed, &offset, n);
      for (int64_t k = 0; k < n; ++k) {
        const int64_t i = index[static_cast<size_t>(k) + skip];
        const auto at = static_cast<size_t>(k);
        CAPTURE(c->name, i, k);
        REQUIRE(u[at] == static_cast<float>(word(i) >> 8) * 0x1p-24f);
        const uint32_t lane =
            core::philox(static_cast<uint64_t>(seed),
                         static_cast<uint64_t>(offset + i / 8))[static_cast<size_t>(i % 8 / 2)];
        REQUIRE(h[at] == static_cast<float>(i % 2 == 0 ? lane & 0xffff : lane >> 16) * 0x1p-16f);
        const uint32_t x = word(i & ~int64_t{1}), y = word(i | 1);
        const double r =
            std::sqrt(-2 * std::log(std::fma(static_cast<double>(static_cast<float>(x)), 0x1p-32, 0x1p-33)));
        const double turn = 2 * 3.14159265358979323846 * (static_cast<double>(y) * 0x1p-32);
        const double want = r * (i % 2 == 0 ? std::cos(turn) : std::sin(turn));
        REQUIRE(std::abs(static_cast<double>(g[at]) - want) <= 4e-6);
      }
    }
}

TEST_CASE("normal draws have the moments of a normal distribution, alike on all instruction sets",
          "[scalar]") {
  const int64_t seed = 5, offset = 17;
  std::vector<int64_t> index(1 << 16);
  for (size_t i = 0; i < index.size(); ++i) index[i] = static_cast<int64_t>(i);
  std::vector<float> first;
  for (const ChunkFunctions* c : runnable()) {
    std::vector<float> g(index.size());
    c->ternary(ScalarOp::normal, DType::float32, 6)(g.data(), index.data(), &seed, &offset,
                                                    static_cast<int64_t>(index.size()));
    double mean = 0, square = 0, fourth = 0;
    for (const float x : g) mean += x, square += double{x} * x, fourth += double{x} * x * x * x;
    const auto n = static_cast<double>(g.size());
    CHECK(std::abs(mean / n) < 0.015);
    CHECK(square / n == Approx(1).margin(0.02));
    CHECK(fourth / n == Approx(3).margin(0.15));
    if (first.empty()) first = g;
    CHECK(std::memcmp(first.data(), g.data(), g.size() * sizeof(float)) == 0);
  }
}

}  // namespace
