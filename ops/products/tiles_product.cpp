// Products by own tiles: the call is cut into blocks of C, which the pool takes in any order. An element's
// bits do not depend on its block (tiles.h), so the blocks follow the number of threads and what suits the
// caches.
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
  static constexpr auto dot = &TileSet::dot_float;
  static constexpr auto copy = &TileSet::copy_float;
};
template <>
struct Functions<double> {
  static constexpr auto block = &TileSet::block_double;
  static constexpr auto dot = &TileSet::dot_double;
  static constexpr auto copy = &TileSet::copy_double;
};

/// A handful of elements with a long k each: one chain per element would be all latency.
bool is_few_dots(const ProductCall& call) { return call.m * call.n <= 4 && call.k >= 32; }

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

template <class T>
void dots(const TileSet& set, const ProductCall& call, DType result) {
  const double flops = 2.0 * static_cast<double>(call.m * call.n) * static_cast<double>(call.k);
  core::parallel(call.batch, static_cast<int64_t>(kSerialFlops / flops) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q)
      for (int64_t i = 0; i < call.m; ++i)
        for (int64_t j = 0; j < call.n; ++j) {
          const T* a = static_cast<const T*>(call.a) + q * call.a_batch + i * call.a_row;
          const T* b = static_cast<const T*>(call.b) + q * call.b_batch + j * call.b_col;
          T sum = (set.*Functions<T>::dot)(call.k, a, call.a_col, b, call.b_row);
          if (call.bias) sum = sum + static_cast<const T*>(call.bias)[j * call.bias_stride];
          const int64_t to = q * call.c_batch + i * call.c_row + j * call.c_col;
          if (result == dtype_of<T>)
            static_cast<T*>(call.c)[to] = sum;
          else if constexpr (sizeof(T) == sizeof(float))
            Halves{result, static_cast<uint16_t*>(call.c) + to, 1, 1}.take(set, &sum, 1, 1);
        }
  });
}

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

template <class T>
void blocks(const TileSet& set, ProductCall call, DType result) {
  // A batch that shares B and whose rows go on from matrix to matrix is one taller matrix.
  if (call.batch > 1 && call.b_batch == 0 &&
      (call.m == 1 || (call.a_batch == call.m * call.a_row && call.c_batch == call.m * call.c_row))) {
    if (call.m == 1) {
      call.a_row = call.a_batch;
      call.c_row = call.c_batch;
    }
    call.m *= call.batch;
    call.batch = 1;
  }
  // The tiles write rows of C; where its columns lie in memory, or it is a single column, the transposed
  // product does.
  const bool swapped = call.m > 1 && !call.b_panels && (call.n == 1 || (call.c_col != 1 && call.c_row == 1));
  if (swapped) {
    std::swap(call.m, call.n);
    std::swap(call.a, call.b);
    std::swap(call.a_batch, call.b_batch);
    std::swap(call.a_row, call.b_col);
    std::swap(call.a_col, call.b_row);
    std::swap(call.c_row, call.c_col);
  }
  const int64_t biases = swapped ? call.m : call.n;
  const bool gather = call.bias != nullptr && call.bias_stride != 1 && biases > 1;
  const Scratch bias_space(gather ? biases * static_cast<int64_t>(sizeof(T)) : 0);
  const T* bias = static_cast<const T*>(call.bias);
  if (gather) {
    for (int64_t i = 0; i < biases; ++i) bias_space.as<T>()[i] = bias[i * call.bias_stride];
    bias = bias_space.as<T>();
  }
  const double flops = 2.0 * static_cast<double>(call.batch) * static_cast<double>(call.m) *
                       static_cast<double>(call.n) * static_cast<double>(call.k);
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

template <class T>
void run(const TileSet& set, const ProductCall& call, DType result) {
  if (is_few_dots(call))
    dots<T>(set, call, result);
  else
    blocks<T>(set, call, result);
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
    run<float>(set, call, call.dtype);
  else
    run<double>(set, call, call.dtype);
}

void product_rounded(const TileSet& set, const ProductCall& call, DType result) {
  run<float>(set, call, result);
}

}  // namespace tandem::ops::tiles

namespace tandem::ops {

void product_tiles(const ProductCall& call) { tiles::product_with(tiles::best_set(), call); }

}  // namespace tandem::ops
