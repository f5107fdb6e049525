// Rows of max pooling by each instruction set against plain loops, with every width of a vector's rest, ties,
// zeros of both signs and NaN; nothing is written beside the results.
#include "tandem/ops/pool_rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/catch.h"

using namespace tandem::ops::pool_rows;

namespace {

const RowSet* const kSets[] = {&kRowsV1, &kRowsV3, &kRowsV4};

std::vector<float> values(size_t n, uint32_t seed) {
  const float some[] = {-2, -1, -0.0f, 0, 0.5f, 1, 2, std::numeric_limits<float>::quiet_NaN(), -1, 1};
  std::mt19937 random(seed);
  std::vector<float> all(n);
  for (float& v : all) v = some[random() % std::size(some)];
  return all;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

TEST_CASE("rows of max pooling: every instruction set, every width", "[ops]") {
  for (const RowSet* set : kSets) {
    if (!runs_here(*set)) continue;
    for (const int64_t stride : {1, 2, 3})
      for (const int64_t kernel : {1, 2, 3})
        for (const int64_t dilation : {1, 2})
          for (int64_t n = 1; n <= 35; ++n) {
            CAPTURE(set->name, stride, kernel, dilation, n);
            // Exactly as many elements as the last window reads, so that reading on is seen by a sanitizer.
            const int64_t in = (n - 1) * stride + (kernel - 1) * dilation + 1, rows = 5;
            const std::vector<float> from = values(static_cast<size_t>(in * rows), static_cast<uint32_t>(n));
            const std::vector<int64_t> first = {0, in}, height = {2, 3};
            const int64_t out = n + 1;
            std::vector<float> to(static_cast<size_t>(2 * out), 7), right = to;
            std::vector<uint8_t> places(static_cast<size_t>(2 * out), 77), right_places = places;
            for (size_t i = 0; i < 2; ++i)
              for (int64_t o = 0; o < n; ++o) {
                const size_t k = i * static_cast<size_t>(out) + static_cast<size_t>(o);
                for (int64_t r = 0; r < height[i]; ++r)
                  for (int64_t s = 0; s < kernel; ++s) {
                    const float v = from[static_cast<size_t>(first[i] + r * in + o * stride + s * dilation)];
                    if ((r == 0 && s == 0) || v > right[k] || std::isnan(v))
                      right[k] = v, right_places[k] = static_cast<uint8_t>(r * kernel + s);
                  }
              }
            set->forward({from.data(), first.data(), height.data(), 2, in, n, stride, kernel, dilation,
                          to.data(), places.data(), out});
            CHECK(same(to, right));
            CHECK(same(places, right_places));
          }
  }
}

TEST_CASE("rows of max pooling: gradients of windows side by side", "[ops]") {
  for (const RowSet* set : kSets) {
    if (!runs_here(*set)) continue;
    for (int64_t n = 1; n <= 35; ++n) {
      CAPTURE(set->name, n);
      const int64_t in = 2 * n + 1, rows = 2;
      const std::vector<float> from = values(static_cast<size_t>(rows * n), static_cast<uint32_t>(n));
      std::vector<uint8_t> places;
      for (int64_t i = 0; i < rows * n; ++i) places.push_back(static_cast<uint8_t>(i * 7 % 5));  // 4: nowhere
      std::vector<float> to(static_cast<size_t>(2 * rows * in), 7), right = to;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < n; ++j)
          for (int64_t k = 0; k < 4; ++k) {
            const auto w = static_cast<size_t>(i * n + j);
            right[static_cast<size_t>((2 * i + k / 2) * in + 2 * j + k % 2)] =
                places[w] == k ? from[w] + 0.0f : 0.0f;
          }
      set->quarters({from.data(), places.data(), rows, n, to.data(), in});
      CHECK(same(to, right));
    }
  }
}
