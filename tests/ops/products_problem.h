// One matrix product as values that tests lay out in memory again and again, its float64 reference, and the
// shapes that every test walks over. Test code only, one thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/products.h"
#include "tests/catch.h"

namespace tandem::test {

using ops::ProductCall;
using ops::Provider;

inline constexpr Provider kProviders[] = {Provider::dots, Provider::tiles, Provider::onednn, Provider::eigen,
                                          Provider::loops};

struct Shape {
  int64_t batch, m, n, k;
};

inline std::string describe(const Shape& s) {
  return std::to_string(s.batch) + " x (" + std::to_string(s.m) + ", " + std::to_string(s.n) + ", " +
         std::to_string(s.k) + ")";
}

class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }

 private:
  int before_;
};

/// A batch of matrices in memory of its own, laid out in one of several ways; everything between is `filler`.
template <class T>
struct Matrices {
  enum Layout { rows, columns, gaps, column_gaps, wide_gaps, backwards, shared, kLayouts };

  Matrices(Layout layout, int64_t batch, int64_t m, int64_t n, int64_t offset, T filler) {
    switch (layout) {
      case rows:
        row = n, col = 1, stride = m * n;
        break;
      case columns:
        row = 1, col = m, stride = m * n;
        break;
      case gaps:
        row = n + 3, col = 1, stride = m * (n + 3) + 5;
        break;
      case column_gaps:
        row = 1, col = m + 7, stride = (m + 7) * n + 1;
        break;
      case wide_gaps:
        row = 2 * n + 1, col = 2, stride = m * (2 * n + 1) + 2;
        break;
      case backwards:
        row = -n, col = 1, stride = m * n;
        break;
      case shared:
        row = n, col = 1, stride = 0;
        break;
      case kLayouts:
        break;
    }
    const int64_t first = layout == backwards ? (m > 0 ? (m - 1) * n : 0) : 0;
    const int64_t length = batch * std::abs(stride) + m * std::abs(row) + n * std::abs(col) + 64;
    memory.assign(static_cast<size_t>(length + offset), filler);
    start = first + offset;
  }
  T& at(int64_t b, int64_t i, int64_t j) {
    return memory[static_cast<size_t>(start + b * stride + i * row + j * col)];
  }
  T* data() { return memory.data() + start; }

  std::vector<T> memory;
  int64_t start = 0, row = 0, col = 0, stride = 0;
};

template <class T>
T from_double(double v) {
  return static_cast<T>(v);
}

/// Operands of one product as values, so that they can be laid out again and again.
template <class T>
struct Problem {
  Problem(const Shape& shape, bool with_bias, bool shared_a, bool shared_b, uint32_t seed)
      : s(shape), has_bias(with_bias), share_a(shared_a), share_b(shared_b) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (int64_t i = 0; i < (shared_a ? 1 : s.batch) * s.m * s.k; ++i)
      a.push_back(from_double<T>(uniform(random)));
    for (int64_t i = 0; i < (shared_b ? 1 : s.batch) * s.k * s.n; ++i)
      b.push_back(from_double<T>(uniform(random)));
    for (int64_t i = 0; i < s.n; ++i) bias.push_back(from_double<T>(uniform(random)));
  }

  using Layout = typename Matrices<T>::Layout;
  template <class Run>
  std::vector<T> run(Layout la, Layout lb, Layout lc, int64_t offset, int64_t bias_stride, Run&& how) const {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    const T poison = std::numeric_limits<T>::has_quiet_NaN ? nan : T(77);
    Matrices<T> ma(share_a ? Matrices<T>::shared : la, s.batch, s.m, s.k, offset, poison);
    Matrices<T> mb(share_b ? Matrices<T>::shared : lb, s.batch, s.k, s.n, 2 * offset, poison);
    Matrices<T> mc(lc, s.batch, s.m, s.n, offset, T(55));
    for (int64_t q = 0; q < s.batch; ++q) {
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t p = 0; p < s.k; ++p) ma.at(q, i, p) = a[size_t(((share_a ? 0 : q) * s.m + i) * s.k + p)];
      for (int64_t p = 0; p < s.k; ++p)
        for (int64_t j = 0; j < s.n; ++j) mb.at(q, p, j) = b[size_t(((share_b ? 0 : q) * s.k + p) * s.n + j)];
    }
    std::vector<T> spread(size_t(s.n * bias_stride + 1), poison);
    for (int64_t j = 0; j < s.n; ++j) spread[size_t(j * bias_stride)] = bias[size_t(j)];
    how(ProductCall{.batch = s.batch,
                    .m = s.m,
                    .n = s.n,
                    .k = s.k,
                    .dtype = dtype_of<T>,
                    .a = ma.data(),
                    .a_batch = ma.stride,
                    .a_row = ma.row,
                    .a_col = ma.col,
                    .b = mb.data(),
                    .b_batch = mb.stride,
                    .b_row = mb.row,
                    .b_col = mb.col,
                    .bias = has_bias ? spread.data() : nullptr,
                    .bias_stride = bias_stride,
                    .c = mc.data(),
                    .c_batch = mc.stride,
                    .c_row = mc.row,
                    .c_col = mc.col});
    std::vector<T> result;
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) {
          result.push_back(mc.at(q, i, j));
          mc.at(q, i, j) = T(55);
        }
    for (const T& v : mc.memory)
      if (v != T(55)) FAIL("the product wrote outside C");
    return result;
  }
  std::vector<T> plain(Provider provider) const {
    return run(Matrices<T>::rows, Matrices<T>::rows, Matrices<T>::rows, 0, 1,
               [&](const ProductCall& call) { ops::product(call, provider); });
  }

  std::vector<double> reference() const {
    std::vector<double> c;
    for (int64_t q = 0; q < s.batch; ++q)
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) {
          double sum = has_bias ? double(bias[size_t(j)]) : 0;
          for (int64_t p = 0; p < s.k; ++p)
            sum += double(a[size_t(((share_a ? 0 : q) * s.m + i) * s.k + p)]) *
                   double(b[size_t(((share_b ? 0 : q) * s.k + p) * s.n + j)]);
          c.push_back(sum);
        }
    return c;
  }

  Shape s;
  bool has_bias, share_a, share_b;
  std::vector<T> a, b, bias;
};

template <class T>
bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

template <class T>
void check_close(const std::vector<T>& got, const std::vector<double>& want, int64_t k) {
  const double eps = std::numeric_limits<T>::epsilon();
  const double bound = eps * (std::sqrt(double(k)) + 4) * (double(k) / 64 + 4);
  double worst = 0;
  bool finite = got.size() == want.size();
  for (size_t i = 0; i < want.size() && finite; ++i) {
    finite = std::isfinite(double(got[i]));
    worst = std::max(worst, std::abs(double(got[i]) - want[i]));
  }
  CHECK(finite);
  CHECK(worst <= bound);
}

inline const std::vector<Shape> kShapes = {
    {1, 1, 1, 1},     {1, 1, 1, 300},   {1, 2, 2, 100},   {1, 1, 7, 5},      {1, 9, 1, 33},
    {1, 5, 3, 2},     {1, 6, 64, 16},   {1, 7, 65, 17},   {1, 8, 15, 31},    {1, 13, 16, 48},
    {1, 64, 10, 128}, {1, 10, 128, 64}, {1, 64, 128, 10}, {1, 33, 47, 257},  {1, 31, 79, 513},
    {1, 3, 300, 140}, {1, 300, 3, 40},  {1, 170, 90, 70}, {3, 5, 9, 11},     {4, 1, 20, 70},
    {5, 20, 1, 40},   {2, 64, 64, 32},  {7, 1, 1, 64},    {2, 260, 40, 300}, {1, 130, 270, 600},
    {1, 1, 100, 784}, {2, 2, 270, 70},  {1, 70, 1, 4111}, {1, 4, 35, 8205},  {3, 130, 4, 64},
    {1, 2, 150, 5000}};

}  // namespace tandem::test
