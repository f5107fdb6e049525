// AVX2 with FMA: 16 registers of 8 floats or 4 doubles.
#include <immintrin.h>

#include "tandem/ops/products/tiles.h"

#if defined(__AVX2__) && defined(__FMA__)

namespace tandem::ops::tiles {
namespace {

constexpr int64_t kPanelVectors = 2;

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using type = __m256;
  static inline type load(const float* p) { return _mm256_loadu_ps(p); }
  static inline void store(float* p, type v) { _mm256_storeu_ps(p, v); }
  static inline type load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
  static inline void store_first(float* p, int64_t n, type v) { _mm256_maskstore_ps(p, first(n), v); }
  static inline type broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static inline type fma(type a, type b, type c) { return _mm256_fmadd_ps(a, b, c); }

  /// to[r * to_row + c] = from[r + min(c, last) * col], 8 x 8: halves of four columns side by side, then 4 x
  /// 4 transpositions in each half.
  static inline void transpose(float* to, int64_t to_row, const float* from, int64_t col, int64_t last) {
    const float* at[8];
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) at[c] = from + (c < last ? c : last) * col;
#pragma GCC unroll 2
    for (int r = 0; r < 8; r += 4) {
      type v[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        v[c] = _mm256_castps128_ps256(_mm_loadu_ps(at[c] + r));
        v[c] = _mm256_insertf128_ps(v[c], _mm_loadu_ps(at[c + 4] + r), 1);
      }
      const type lo01 = low(v[0], v[1]), hi01 = high(v[0], v[1]), lo23 = low(v[2], v[3]),
                 hi23 = high(v[2], v[3]);
      store(to + r * to_row, low_pairs(lo01, lo23));
      store(to + (r + 1) * to_row, high_pairs(lo01, lo23));
      store(to + (r + 2) * to_row, low_pairs(hi01, hi23));
      store(to + (r + 3) * to_row, high_pairs(hi01, hi23));
    }
  }

 private:
  static inline __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static inline type low(type x, type y) { return __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13); }
  static inline type high(type x, type y) {
    return __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15);
  }
  static inline type low_pairs(type x, type y) {
    return __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13);
  }
  static inline type high_pairs(type x, type y) {
    return __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15);
  }
};

template <>
struct Vec<double> {
  using type = __m256d;
  static inline type load(const double* p) { return _mm256_loadu_pd(p); }
  static inline void store(double* p, type v) { _mm256_storeu_pd(p, v); }
  static inline type load_first(const double* p, int64_t n) { return _mm256_maskload_pd(p, first(n)); }
  static inline void store_first(double* p, int64_t n, type v) { _mm256_maskstore_pd(p, first(n), v); }
  static inline type broadcast(const double* p) { return _mm256_broadcast_sd(p); }
  static inline type fma(type a, type b, type c) { return _mm256_fmadd_pd(a, b, c); }

  static inline void transpose(double* to, int64_t to_row, const double* from, int64_t col, int64_t last) {
    const double* at[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) at[c] = from + (c < last ? c : last) * col;
#pragma GCC unroll 2
    for (int r = 0; r < 4; r += 2) {
      type v[2];
#pragma GCC unroll 2
      for (int c = 0; c < 2; ++c) {
        v[c] = _mm256_castpd128_pd256(_mm_loadu_pd(at[c] + r));
        v[c] = _mm256_insertf128_pd(v[c], _mm_loadu_pd(at[c + 2] + r), 1);
      }
      store(to + r * to_row, __builtin_shufflevector(v[0], v[1], 0, 4, 2, 6));
      store(to + (r + 1) * to_row, __builtin_shufflevector(v[0], v[1], 1, 5, 3, 7));
    }
  }

 private:
  static inline __m256i first(int64_t n) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
  }
};

}  // namespace
}  // namespace tandem::ops::tiles

#include "tandem/ops/products/tiles.inc"

namespace tandem::ops::tiles {
const TileSet kTilesV3 = {"v3",        block<float>, block<double>, dot<float>,
                          dot<double>, copy<float>,  copy<double>};
}  // namespace tandem::ops::tiles

#else
#error "tiles_v3.cpp is compiled with -mavx2 -mfma -mf16c"
#endif
