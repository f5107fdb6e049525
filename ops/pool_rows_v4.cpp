// AVX-512 (x86-64-v4): 16 windows a step, what is left of a row under masks.
#include <immintrin.h>

#include "tandem/ops/pool_rows.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

namespace tandem::ops::pool_rows {
namespace {

struct Vec {
  using Floats = __m512;
  using Places = __m512i;
  static constexpr int64_t kLanes = 16;

  static inline __mmask16 first(int64_t n) {
    return static_cast<__mmask16>(n >= 16 ? 0xFFFFu : (1u << n) - 1);
  }
  template <int kStride>
  static inline Floats load(const float* p, int64_t stride, int64_t n) {
    if constexpr (kStride == 1) return _mm512_maskz_loadu_ps(first(n), p);
    if constexpr (kStride == 2) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      const int64_t reach = 2 * n - 1;  // elements from the first lane's to the last one's
      const __m512 low = _mm512_maskz_loadu_ps(first(reach), p);
      if (reach <= 16) return _mm512_maskz_permutexvar_ps(first(n), even, low);
      return _mm512_permutex2var_ps(low, even, _mm512_maskz_loadu_ps(first(reach - 16), p + 16));
    }
    alignas(64) float lanes[16] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i * stride];
    return _mm512_load_ps(lanes);
  }
  static inline Places none() { return _mm512_setzero_si512(); }
  static inline void better(Floats v, int k, Floats& best, Places& at) {
    const __mmask16 m = static_cast<__mmask16>(_mm512_cmp_ps_mask(v, best, _CMP_GT_OQ) |
                                               _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
    best = _mm512_mask_mov_ps(best, m, v);
    at = _mm512_mask_mov_epi32(at, m, _mm512_set1_epi32(k));
  }
  static inline void store(float* p, int64_t n, Floats v) { _mm512_mask_storeu_ps(p, first(n), v); }
  static inline void store_places(uint8_t* p, int64_t n, Places at) {
    _mm512_mask_cvtepi32_storeu_epi8(p, first(n), at);
  }
  static inline Places load_places(const uint8_t* p, int64_t n) {
    return _mm512_maskz_cvtepu8_epi32(first(n), _mm_maskz_loadu_epi8(first(n), p));
  }
  static inline Floats plus_zero(Floats v) { return _mm512_add_ps(v, _mm512_setzero_ps()); }
  static inline Floats where(Places at, int k, Floats g) {
    return _mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask(at, _mm512_set1_epi32(k)), g);
  }
  static inline void spread(float* row, int64_t n, Floats g, Places at, int k) {
    const __m512 a = where(at, k, g), b = where(at, k + 1, g);
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    _mm512_mask_storeu_ps(row, first(2 * n), _mm512_permutex2var_ps(a, low, b));
    if (n > 8) _mm512_mask_storeu_ps(row + 16, first(2 * n - 16), _mm512_permutex2var_ps(a, high, b));
  }
};

}  // namespace
}  // namespace tandem::ops::pool_rows

#include "tandem/ops/pool_rows.inc"

namespace tandem::ops::pool_rows {
constinit const RowSet kRowsV4 = {"v4", forward, quarters, forward_block, backward_block};
}  // namespace tandem::ops::pool_rows

#else
#error "pool_rows_v4.cpp is compiled with -march=x86-64-v4"
#endif
