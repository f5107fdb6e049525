// AVX-512 (x86-64-v4): 32 registers of 16 floats or 8 doubles.
#include <immintrin.h>

#include "tandem/ops/products/tiles.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

namespace tandem::ops::tiles {
namespace {

constexpr int64_t kPanelVectors = 4;

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using type = __m512;
  static inline type load(const float* p) { return _mm512_loadu_ps(p); }
  static inline void store(float* p, type v) { _mm512_storeu_ps(p, v); }
  static inline type load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static inline void store_first(float* p, int64_t n, type v) { _mm512_mask_storeu_ps(p, first(n), v); }
  static inline type broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static inline type fma(type a, type b, type c) { return _mm512_fmadd_ps(a, b, c); }

  /// to[r * to_row + c] = from[r + min(c, last) * col], 16 x 16: quarters of four columns side by side, then
  /// 4 x 4 transpositions in each quarter.
  static inline void transpose(float* to, int64_t to_row, const float* from, int64_t col, int64_t last) {
    const float* at[16];
#pragma GCC unroll 16
    for (int c = 0; c < 16; ++c) at[c] = from + (c < last ? c : last) * col;
#pragma GCC unroll 4
    for (int r = 0; r < 16; r += 4) {
      type v[4];
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        v[c] = _mm512_castps128_ps512(_mm_loadu_ps(at[c] + r));
        v[c] = _mm512_insertf32x4(v[c], _mm_loadu_ps(at[c + 4] + r), 1);
        v[c] = _mm512_insertf32x4(v[c], _mm_loadu_ps(at[c + 8] + r), 2);
        v[c] = _mm512_insertf32x4(v[c], _mm_loadu_ps(at[c + 12] + r), 3);
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
  static inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
// In each quarter: the elements i, j, k, l of (x, y), y's counted from 16.
#define TANDEM_QUARTERS(x, y, i, j, k, l)                                                                   \
  __builtin_shufflevector(x, y, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, \
                          j + 12, k + 12, l + 12)
  static inline type low(type x, type y) { return TANDEM_QUARTERS(x, y, 0, 16, 1, 17); }
  static inline type high(type x, type y) { return TANDEM_QUARTERS(x, y, 2, 18, 3, 19); }
  static inline type low_pairs(type x, type y) { return TANDEM_QUARTERS(x, y, 0, 1, 16, 17); }
  static inline type high_pairs(type x, type y) { return TANDEM_QUARTERS(x, y, 2, 3, 18, 19); }
#undef TANDEM_QUARTERS
};

template <>
struct Vec<double> {
  using type = __m512d;
  static inline type load(const double* p) { return _mm512_loadu_pd(p); }
  static inline void store(double* p, type v) { _mm512_storeu_pd(p, v); }
  static inline type load_first(const double* p, int64_t n) { return _mm512_maskz_loadu_pd(first(n), p); }
  static inline void store_first(double* p, int64_t n, type v) { _mm512_mask_storeu_pd(p, first(n), v); }
  static inline type broadcast(const double* p) { return _mm512_set1_pd(*p); }
  static inline type fma(type a, type b, type c) { return _mm512_fmadd_pd(a, b, c); }

  static inline void transpose(double* to, int64_t to_row, const double* from, int64_t col, int64_t last) {
    const double* at[8];
#pragma GCC unroll 8
    for (int c = 0; c < 8; ++c) at[c] = from + (c < last ? c : last) * col;
#pragma GCC unroll 4
    for (int r = 0; r < 8; r += 2) {
      type v[2];
#pragma GCC unroll 2
      for (int c = 0; c < 2; ++c) {
        v[c] = _mm512_castpd128_pd512(_mm_loadu_pd(at[c] + r));
        v[c] = _mm512_insertf64x2(v[c], _mm_loadu_pd(at[c + 2] + r), 1);
        v[c] = _mm512_insertf64x2(v[c], _mm_loadu_pd(at[c + 4] + r), 2);
        v[c] = _mm512_insertf64x2(v[c], _mm_loadu_pd(at[c + 6] + r), 3);
      }
      store(to + r * to_row, __builtin_shufflevector(v[0], v[1], 0, 8, 2, 10, 4, 12, 6, 14));
      store(to + (r + 1) * to_row, __builtin_shufflevector(v[0], v[1], 1, 9, 3, 11, 5, 13, 7, 15));
    }
  }

 private:
  static inline __mmask8 first(int64_t n) { return static_cast<__mmask8>((1u << n) - 1); }
};

}  // namespace
}  // namespace tandem::ops::tiles

#include "tandem/ops/products/tiles.inc"

namespace tandem::ops::tiles {
const TileSet kTilesV4 = {"v4",        block<float>, block<double>, dot<float>,
                          dot<double>, copy<float>,  copy<double>};
}  // namespace tandem::ops::tiles

#else
#error "tiles_v4.cpp is compiled with -march=x86-64-v4"
#endif
