// AVX2: 8 windows a step, what is left of a row under masks.
#include <immintrin.h>

#include "tandem/ops/pool_rows.h"

#if defined(__AVX2__)

namespace tandem::ops::pool_rows {
namespace {

struct Vec {
  using Floats = __m256;
  using Places = __m256i;
  static constexpr int64_t kLanes = 8;

  static inline __m256i first(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  template <int kStride>
  static inline Floats load(const float* p, int64_t stride, int64_t n) {
    if constexpr (kStride == 1) return _mm256_maskload_ps(p, first(n));
    if constexpr (kStride == 2) {
      const int64_t reach = 2 * n - 1;  // elements from the first lane's to the last one's
      const __m256 low = _mm256_maskload_ps(p, first(reach));
      const __m256 high = reach > 8 ? _mm256_maskload_ps(p + 8, first(reach - 8)) : _mm256_setzero_ps();
      const __m256 mixed = _mm256_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0));  // 0 2 8 10 4 6 12 14
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), _MM_SHUFFLE(3, 1, 2, 0)));
    }
    alignas(32) float lanes[8] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i * stride];
    return _mm256_load_ps(lanes);
  }
  static inline Places none() { return _mm256_setzero_si256(); }
  static inline void better(Floats v, int k, Floats& best, Places& at) {
    const __m256 m = _mm256_or_ps(_mm256_cmp_ps(v, best, _CMP_GT_OQ), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    best = _mm256_blendv_ps(best, v, m);
    at = _mm256_blendv_epi8(at, _mm256_set1_epi32(k), _mm256_castps_si256(m));
  }
  static inline void store(float* p, int64_t n, Floats v) { _mm256_maskstore_ps(p, first(n), v); }
  static inline void store_places(uint8_t* p, int64_t n, Places at) {
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), at);
    for (int64_t i = 0; i < n; ++i) p[i] = static_cast<uint8_t>(lanes[i]);
  }
  static inline Places load_places(const uint8_t* p, int64_t n) {
    alignas(32) int32_t lanes[8] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
  }
  static inline Floats plus_zero(Floats v) { return _mm256_add_ps(v, _mm256_setzero_ps()); }
  static inline Floats where(Places at, int k, Floats g) {
    return _mm256_and_ps(g, _mm256_castsi256_ps(_mm256_cmpeq_epi32(at, _mm256_set1_epi32(k))));
  }
  static inline void spread(float* row, int64_t n, Floats g, Places at, int k) {
    const __m256 a = where(at, k, g), b = where(at, k + 1, g);
    const __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    _mm256_maskstore_ps(row, first(2 * n), _mm256_permute2f128_ps(low, high, 0x20));
    if (n > 4) _mm256_maskstore_ps(row + 8, first(2 * n - 8), _mm256_permute2f128_ps(low, high, 0x31));
  }
};

}  // namespace
}  // namespace tandem::ops::pool_rows

#include "tandem/ops/pool_rows.inc"

namespace tandem::ops::pool_rows {
constinit const RowSet kRowsV3 = {"v3", forward, quarters, forward_block, backward_block};
}  // namespace tandem::ops::pool_rows

#else
#error "pool_rows_v3.cpp is compiled with -mavx2"
#endif
