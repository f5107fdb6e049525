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
  static inline type pieces(const float* const* at, int r) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at[0] + r)), _mm_loadu_ps(at[4] + r), 1);
  }

 private:
  static inline __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
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
  static inline type pieces(const double* const* at, int r) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(at[0] + r)), _mm_loadu_pd(at[2] + r), 1);
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
constinit const TileSet kTilesV3 = tile_set<>("v3");
}  // namespace tandem::ops::tiles

#else
#error "tiles_v3.cpp is compiled with -mavx2 -mfma -mf16c"
#endif
