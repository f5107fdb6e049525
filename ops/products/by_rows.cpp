// Each matrix of a batch is brought into the one layout that libraries see, then multiplied in row blocks of
// kRows. Matrices are spread over the pool, or the row blocks of a single one.
#include <algorithm>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/products/tiles.h"

namespace tandem::ops {
namespace {

constexpr int64_t kRows = 256;

template <class T>
void to_rows(T* to, const T* from, int64_t row, int64_t col, int64_t rows, int64_t columns) {
  core::parallel(rows, std::max<int64_t>(64, (1 << 18) / columns), [&](int64_t begin, int64_t end) {
    const tiles::TileSet& set = tiles::best_set();
    if constexpr (sizeof(T) == sizeof(float))
      set.copy_float(to + begin * columns, from + begin * row, row, col, end - begin, columns);
    else
      set.copy_double(to + begin * columns, from + begin * row, row, col, end - begin, columns);
  });
}

/// Squares keep the lines of both sides in the cache.
template <class T>
void from_rows(T* to, int64_t row, int64_t col, const T* from, int64_t rows, int64_t columns) {
  constexpr int64_t kSquare = 8;
  for (int64_t r0 = 0; r0 < rows; r0 += kSquare)
    for (int64_t c0 = 0; c0 < columns; c0 += kSquare)
      for (int64_t r = r0; r < std::min(rows, r0 + kSquare); ++r)
        for (int64_t c = c0; c < std::min(columns, c0 + kSquare); ++c)
          to[r * row + c * col] = from[r * columns + c];
}

template <class T>
bool as_libraries_see(const T* data, int64_t row, int64_t col, int64_t rows, int64_t columns) {
  return (columns == 1 || col == 1) && (rows == 1 || row == columns) &&
         reinterpret_cast<uintptr_t>(data) % 64 == 0;
}

template <class T>
void one_product(const ProductCall& call, const T* a, const T* b, T* c, RowBlockProduct<T> of_rows) {
  const int64_t m = call.m, n = call.n, k = call.k;
  const bool copy_a = !as_libraries_see(a, call.a_row, call.a_col, m, k);
  const bool copy_b = !as_libraries_see(b, call.b_row, call.b_col, k, n);
  const bool copy_c = !as_libraries_see(c, call.c_row, call.c_col, m, n);
  constexpr int64_t kSize = sizeof(T);
  const Scratch a_space(copy_a ? m * k * kSize : 0);
  const Scratch b_space(copy_b ? k * n * kSize : 0);
  const Scratch c_space(copy_c ? m * n * kSize : 0);
  if (copy_a) to_rows(a_space.as<T>(), a, call.a_row, call.a_col, m, k);
  if (copy_b) to_rows(b_space.as<T>(), b, call.b_row, call.b_col, k, n);
  const T* a_data = copy_a ? a_space.as<T>() : a;
  const T* b_data = copy_b ? b_space.as<T>() : b;
  T* c_data = copy_c ? c_space.as<T>() : c;
  const double flops =
      2.0 * static_cast<double>(std::min(m, kRows)) * static_cast<double>(n) * static_cast<double>(k);
  const auto* bias = static_cast<const T*>(call.bias);
  core::parallel((m + kRows - 1) / kRows, static_cast<int64_t>(kSerialFlops / flops) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin * kRows; i < std::min(m, end * kRows); i += kRows) {
                     const int64_t rows = std::min(m - i, kRows);
                     of_rows(rows, n, k, a_data + i * k, b_data, c_data + i * n);
                     for (int64_t r = i; bias && r < i + rows; ++r)
                       for (int64_t j = 0; j < n; ++j) c_data[r * n + j] += bias[j * call.bias_stride];
                   }
                 });
  if (copy_c) from_rows(c, call.c_row, call.c_col, c_data, m, n);
}

}  // namespace

template <class T>
void product_by_rows(const ProductCall& call, RowBlockProduct<T> of_rows) {
  const double flops =
      2.0 * static_cast<double>(call.m) * static_cast<double>(call.n) * static_cast<double>(call.k);
  core::parallel(call.batch, static_cast<int64_t>(kSerialFlops / flops) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      one_product(call, static_cast<const T*>(call.a) + i * call.a_batch,
                  static_cast<const T*>(call.b) + i * call.b_batch,
                  static_cast<T*>(call.c) + i * call.c_batch, of_rows);
  });
}

template void product_by_rows<float>(const ProductCall&, RowBlockProduct<float>);
template void product_by_rows<double>(const ProductCall&, RowBlockProduct<double>);

}  // namespace tandem::ops
