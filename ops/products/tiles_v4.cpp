// AVX-512 (x86-64-v4): 32 registers of 16 floats or 8 doubles.
#include <immintrin.h>

#include "tandem/ops/products/tiles.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

namespace tandem::ops::tiles {
namespace {

#include "tandem/ops/products/floats_v4.inc"

template <>
struct Vec<float> : Floats {};

template <>
struct Vec<double> {
  using type = __m512d;
  static inline type load(const double* p) { return _mm512_loadu_pd(p); }
  static inline void store(double* p, type v) { _mm512_storeu_pd(p, v); }
  static inline type load_first(const double* p, int64_t n) { return _mm512_maskz_loadu_pd(first(n), p); }
  static inline void store_first(double* p, int64_t n, type v) { _mm512_mask_storeu_pd(p, first(n), v); }
  static inline type broadcast(const double* p) { return _mm512_set1_pd(*p); }
  static inline type fma(type a, type b, type c) { return _mm512_fmadd_pd(a, b, c); }
  static inline type pieces(const double* const* at, int r) {
    type v = _mm512_castpd128_pd512(_mm_loadu_pd(at[0] + r));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(at[2] + r), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(at[4] + r), 2);
    return _mm512_insertf64x2(v, _mm_loadu_pd(at[6] + r), 3);
  }

 private:
  static inline __mmask8 first(int64_t n) { return static_cast<__mmask8>((1u << n) - 1); }
};

}  // namespace
}  // namespace tandem::ops::tiles

#include "tandem/ops/products/tiles.inc"

namespace tandem::ops::tiles {
constinit const TileSet kTilesV4 = tile_set<>("v4");
}  // namespace tandem::ops::tiles

#else
#error "tiles_v4.cpp is compiled with -march=x86-64-v4"
#endif
