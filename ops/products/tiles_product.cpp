// Products by own tiles, or by dot products: the call is cut into blocks of C, which the pool takes in any
// order. An element's bits do not depend on its block (tiles.h), so the blocks follow the number of threads
// and what suits the caches.
#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/products/tiles.h"

namespace tandem::ops::tiles {
namespace {

template <class T>
struct Functions;
template <>
struct Functions<float> {
  static constexpr auto block = &TileSet::block_float;
  static constexpr auto dots = &TileSet::dots_float;
  static constexpr auto copy = &TileSet::copy_float;
};
template <>
struct Functions<double> {
  static constexpr auto block = &TileSet::block_double;
  static constexpr auto dots = &TileSet::dots_double;
  static constexpr auto copy = &TileSet::copy_double;
};

/// Where results that are kept in half the size go.
struct Halves {
  DType dtype;
  uint16_t* c;
  int64_t row, col;

  /// Rounds sums that lie row by row without gaps.
  void take(const TileSet& set, const float* sums, int64_t rows, int64_t columns) const {
    for (int64_t i = 0; i < rows; ++i, sums += columns) {
      uint16_t* const to = c + i * row;
      if (dtype == DType::bfloat16 && col == 1)
        set.round_bfloat(to, sums, columns);
      else
        for (int64_t j = 0; j < columns; ++j)
          to[j * col] = dtype == DType::bfloat16 ? float_to_bfloat(sums[j]) : float_to_half(sums[j]);
    }
  }
};

int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

struct Grid {
  int64_t rows, columns;  // of a block
};

Grid choose_grid(const ProductCall& call, double flops, int64_t most_rows) {
  int64_t down = parts(call.m, most_rows), across = parts(call.n, kMaxBlockColumns);
  const int64_t threads = core::threads_here();
  if (threads > 1) {
    const auto wanted =
        static_cast<int64_t>(std::min(4.0 * static_cast<double>(threads), flops / kSerialFlops));
    while (call.batch * down * across < wanted) {
      // Columns first: a block of columns copies its own part of B, row blocks would copy it again.
      if (call.n / across >= 128)
        ++across;
      else if (call.m / down >= 24)
        ++down;
      else
        break;
    }
  }
  const int64_t rows = parts(parts(call.m, down), 12) * 12, columns = parts(parts(call.n, across), 64) * 64;
  return {std::min(rows, call.m), std::min({columns, call.n, kMaxBlockColumns})};
}

void swap_operands(ProductCall& call) {
  std::swap(call.m, call.n);
  std::swap(call.a, call.b);
  std::swap(call.a_batch, call.b_batch);
  std::swap(call.a_row, call.b_col);
  std::swap(call.a_col, call.b_row);
  std::swap(call.c_row, call.c_col);
}

/// A batch that shares B and whose rows go on from matrix to matrix is one taller matrix.
void merge_batch(ProductCall& call) {
  if (call.batch < 2 || call.b_batch != 0) return;
  if (call.m == 1) {
    call.a_row = call.a_batch;
    call.c_row = call.c_batch;
  } else if (call.a_batch != call.m * call.a_row || call.c_batch != call.m * call.c_row) {
    return;
  }
  call.m *= call.batch;
  call.batch = 1;
}

double flops_of(const ProductCall& call) {
  return 2.0 * static_cast<double>(call.batch) * static_cast<double>(call.m) * static_cast<double>(call.n) *
         static_cast<double>(call.k);
}

template <class T>
void blocks(const TileSet& set, ProductCall call, DType result) {
  merge_batch(call);
  // The tiles write rows of C; where its columns lie in memory, or it is a single column, the transposed
  // product does.
  const bool swapped = call.m > 1 && !call.b_panels && (call.n == 1 || (call.c_col != 1 && call.c_row == 1));
  if (swapped) swap_operands(call);
  const int64_t biases = swapped ? call.m : call.n;
  const bool gather = call.bias != nullptr && call.bias_stride != 1 && biases > 1;
  const Scratch bias_space(gather ? biases * static_cast<int64_t>(sizeof(T)) : 0);
  const T* bias = static_cast<const T*>(call.bias);
  if (gather) {
    for (int64_t i = 0; i < biases; ++i) bias_space.as<T>()[i] = bias[i * call.bias_stride];
    bias = bias_space.as<T>();
  }
  const double flops = flops_of(call);
  const bool rounds = result != dtype_of<T>;  // a block's sums stay in the second-level cache until then
  const Grid grid = choose_grid(call, flops, rounds ? kMaxBlockRows / 2 : kMaxBlockRows);
  const int64_t down = parts(call.m, grid.rows), across = parts(call.n, grid.columns);
  const int64_t count = call.batch * down * across;
  const auto grain = static_cast<int64_t>(kSerialFlops / (flops / static_cast<double>(count)));
  core::parallel(
      count, flops < kSerialFlops ? count : std::max<int64_t>(1, grain), [&](int64_t begin, int64_t end) {
        constexpr auto kSize = static_cast<int64_t>(sizeof(T));
        const Scratch space(scratch_elements(grid.columns, call.k) * kSize);
        const Scratch sums(rounds ? grid.rows * grid.columns * kSize : 0);
        for (int64_t q = begin; q < end; ++q) {
          const int64_t batch = q / (down * across), i = q % down * grid.rows,
                        j = q / down % across * grid.columns;
          const int64_t m = std::min(grid.rows, call.m - i), n = std::min(grid.columns, call.n - j);
          const T* a = static_cast<const T*>(call.a) + batch * call.a_batch + i * call.a_row;
          const T* b = static_cast<const T*>(call.b) + batch * call.b_batch +
                       j * (call.b_panels ? call.k : call.b_col);
          const int64_t to = batch * call.c_batch + i * call.c_row + j * call.c_col;
          T* const c = rounds ? sums.as<T>() : static_cast<T*>(call.c) + to;
          const T* own_bias = bias ? bias + (swapped ? i : j) : nullptr;
          (set.*Functions<T>::block)({m, n, call.k, k_part(call.k), a, call.a_row, call.a_col, b, call.b_row,
                                      call.b_col, call.b_panels, own_bias, swapped, c,
                                      rounds ? n : call.c_row, rounds ? 1 : call.c_col, space.as<T>()});
          if constexpr (sizeof(T) == sizeof(float))
            if (rounds)
              Halves{result, static_cast<uint16_t*>(call.c) + to, call.c_row, call.c_col}.take(set, c, m, n);
        }
      });
}

/// Sums of `rows` rows that lie without gaps, to C with the bias, by strides.
template <class T>
void store_sums(const TileSet& set, const ProductCall& call, DType result, bool bias_of_rows, T* sums,
                int64_t rows, int64_t columns, const T* bias, int64_t to) {
  for (int64_t i = 0; bias && i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      sums[i * columns + j] = sums[i * columns + j] + bias[(bias_of_rows ? i : j) * call.bias_stride];
  if (result != dtype_of<T>) {
    if constexpr (sizeof(T) == sizeof(float))
      Halves{result, static_cast<uint16_t*>(call.c) + to, call.c_row, call.c_col}.take(set, sums, rows,
                                                                                       columns);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    T* const c = static_cast<T*>(call.c) + to + i * call.c_row;
    for (int64_t j = 0; j < columns; ++j) c[j * call.c_col] = sums[i * columns + j];
  }
}

constexpr int64_t kDotRows = 4;           // multiplied at a time
constexpr int64_t kMostCopied = 1 << 20;  // bytes of B, but 64 columns

/// By dot products. Operands are copied where neither their rows nor their columns lie in memory, A also
/// where its columns do: it is the one of few rows.
template <class T>
void by_dots(const TileSet& set, ProductCall call, DType result) {
  merge_batch(call);
  const bool swapped = call.m > call.n;
  if (swapped) swap_operands(call);
  const double flops = flops_of(call);
  const int64_t threads = core::threads_here(), units = parts(call.n, 64);
  const auto wanted =
      static_cast<int64_t>(std::min(4.0 * static_cast<double>(threads), flops / kSerialFlops));
  const int64_t across = threads < 2 ? 1 : std::clamp(parts(wanted, call.batch), int64_t{1}, units);
  const bool copies_a = call.a_col != 1;
  const bool copies_b = call.b_row != 1 && (call.b_col != 1 || call.n < 4);
  const int64_t most_copied =
      std::max<int64_t>(1, kMostCopied / (64 * call.k * static_cast<int64_t>(sizeof(T))));
  const int64_t width = std::min(parts(units, across), copies_b ? most_copied : units) * 64,
                count = call.batch * parts(call.n, width);
  const auto grain = static_cast<int64_t>(kSerialFlops / (flops / static_cast<double>(count)));
  core::parallel(
      count, flops < kSerialFlops ? count : std::max<int64_t>(1, grain), [&](int64_t begin, int64_t end) {
        constexpr auto kSize = static_cast<int64_t>(sizeof(T));
        const int64_t most = std::min(width, call.n);
        const Scratch chains(kDotScratch * kSize), sums(kDotRows * most * kSize),
            own_a(copies_a ? kDotRows * call.k * kSize : 0), own_b(copies_b ? most * call.k * kSize : 0);
        for (int64_t q = begin; q < end; ++q) {
          const int64_t batch = q % call.batch, j = q / call.batch * width;
          const int64_t n = std::min(width, call.n - j);
          const T* const a = static_cast<const T*>(call.a) + batch * call.a_batch;
          const T* const b = static_cast<const T*>(call.b) + batch * call.b_batch + j * call.b_col;
          if (copies_b) (set.*Functions<T>::copy)(own_b.as<T>(), b, call.b_col, call.b_row, n, call.k);
          for (int64_t i = 0; i < call.m; i += kDotRows) {
            const int64_t m = std::min(kDotRows, call.m - i);
            const T* rows = a + i * call.a_row;
            if (copies_a) (set.*Functions<T>::copy)(own_a.as<T>(), rows, call.a_row, call.a_col, m, call.k);
            (set.*Functions<T>::dots)({m, n, call.k, copies_a ? own_a.as<T>() : rows,
                                       copies_a ? call.k : call.a_row, copies_b ? own_b.as<T>() : b,
                                       copies_b ? 1 : call.b_row, copies_b ? call.k : call.b_col,
                                       sums.as<T>(), chains.as<T>()});
            const T* const bias =
                call.bias ? static_cast<const T*>(call.bias) + (swapped ? i : j) * call.bias_stride : nullptr;
            store_sums(set, call, result, swapped, sums.as<T>(), m, n, bias,
                       batch * call.c_batch + i * call.c_row + j * call.c_col);
          }
        }
      });
}

}  // namespace

template <class T>
void pack_panels(const ProductCall& call, T* to) {
  const TileSet& set = best_set();
  const int64_t count = parts(call.n, kPanel);
  core::parallel(count, (int64_t{1} << 16) / (kPanel * call.k) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t first = q * kPanel, columns = std::min(kPanel, call.n - first),
                    width = parts(columns, 16) * 16;
      const T* from = static_cast<const T*>(call.b) + first * call.b_col;
      T* panel = to + first * call.k;
      if (columns == width) {
        (set.*Functions<T>::copy)(panel, from, call.b_row, call.b_col, call.k, columns);
        continue;
      }
      for (int64_t p = 0; p < call.k; ++p)
        for (int64_t j = 0; j < width; ++j)
          panel[p * width + j] = j < columns ? from[p * call.b_row + j * call.b_col] : T(0);
    }
  });
}
template void pack_panels<float>(const ProductCall&, float*);
template void pack_panels<double>(const ProductCall&, double*);

bool runs_here(const TileSet& set) {
  __builtin_cpu_init();
  if (&set == &kTilesV4Bfloat) return runs_here(kTilesV4) && __builtin_cpu_supports("avx512bf16");
  if (&set == &kTilesV4)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("bmi2");
  if (&set == &kTilesV3) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return true;
}

const TileSet& best_set() {
  static const TileSet& best = runs_here(kTilesV4) ? kTilesV4 : runs_here(kTilesV3) ? kTilesV3 : kTilesV1;
  return best;
}

const TileSet* bfloat_set() {
  static const TileSet* const set = runs_here(kTilesV4Bfloat) ? &kTilesV4Bfloat : nullptr;
  return set;
}

void product_with(const TileSet& set, const ProductCall& call) {
  if (call.dtype == DType::float32)
    blocks<float>(set, call, call.dtype);
  else
    blocks<double>(set, call, call.dtype);
}

void dots_with(const TileSet& set, const ProductCall& call) {
  if (call.dtype == DType::float32)
    by_dots<float>(set, call, call.dtype);
  else
    by_dots<double>(set, call, call.dtype);
}

void product_rounded(const TileSet& set, const ProductCall& call, DType result) {
  blocks<float>(set, call, result);
}

void dots_rounded(const TileSet& set, const ProductCall& call, DType result) {
  by_dots<float>(set, call, result);
}

}  // namespace tandem::ops::tiles

namespace tandem::ops {

void product_tiles(const ProductCall& call) { tiles::product_with(tiles::best_set(), call); }
void product_dots(const ProductCall& call) { tiles::dots_with(tiles::best_set(), call); }

}  // namespace tandem::ops
