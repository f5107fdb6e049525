// Any x86-64: vectors of 16 bytes. There is no fused multiply-add in the baseline; it is computed in
// software, so that the bits are those of the other sets, at a fraction of their speed.
#include "tandem/ops/products/tiles.h"

namespace tandem::ops::tiles {
namespace {

constexpr int64_t kPanelVectors = 2;

/// a * b is exact in double; the sum is rounded to odd there (its error tells the direction), which makes the
/// second rounding, to float, right (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
/// 2008).
inline float fused(float a, float b, float c) {
  const double product = static_cast<double>(a) * b;
  double sum = product + c;
  const double of_c = sum - product;
  const double error = (product - (sum - of_c)) + (c - of_c);
  int64_t bits;
  __builtin_memcpy(&bits, &sum, sizeof(bits));
  if ((error > 0 || error < 0) && (bits & 1) == 0) {
    bits += (error > 0) == (sum > 0) ? 1 : -1;
    __builtin_memcpy(&sum, &bits, sizeof(sum));
  }
  return static_cast<float>(sum);
}
inline double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class T>
struct Vec {
  typedef T type __attribute__((vector_size(16)));
  static constexpr int64_t L = 16 / sizeof(T);
  static inline type load(const T* p) { return load_first(p, L); }
  static inline void store(T* p, type v) { store_first(p, L, v); }
  static inline type load_first(const T* p, int64_t n) {
    type v{};
    __builtin_memcpy(&v, p, static_cast<uint64_t>(n) * sizeof(T));
    return v;
  }
  static inline void store_first(T* p, int64_t n, type v) {
    __builtin_memcpy(p, &v, static_cast<uint64_t>(n) * sizeof(T));
  }
  static inline type broadcast(const T* p) {
    type v{};
    for (int64_t i = 0; i < L; ++i) v[i] = *p;
    return v;
  }
  static inline type fma(type a, type b, type c) {
    for (int64_t i = 0; i < L; ++i) c[i] = fused(a[i], b[i], c[i]);
    return c;
  }
  static inline type pieces(const T* const* at, int r) { return load(at[0] + r); }
};

}  // namespace
}  // namespace tandem::ops::tiles

#include "tandem/ops/products/tiles.inc"

namespace tandem::ops::tiles {
constinit const TileSet kTilesV1 = tile_set<>("v1");
}  // namespace tandem::ops::tiles
