// Any x86-64: windows one by one, places and values chosen by masks, since a choice would become branches
// that nothing predicts.
#include "tandem/ops/pool_rows.h"

namespace tandem::ops::pool_rows {
namespace {

struct Vec {
  using Floats = float;
  using Places = int32_t;
  static constexpr int64_t kLanes = 1;

  static inline int32_t bits(float v) {
    int32_t b;
    __builtin_memcpy(&b, &v, sizeof(b));
    return b;
  }
  static inline float value(int32_t b) {
    float v;
    __builtin_memcpy(&v, &b, sizeof(v));
    return v;
  }
  template <int kStride>
  static inline Floats load(const float* p, int64_t, int64_t) {
    return *p;
  }
  static inline Places none() { return 0; }
  static inline void better(Floats v, int k, Floats& best, Places& at) {
    const int32_t m = -(static_cast<int32_t>(v > best) | static_cast<int32_t>(v != v));
    best = value((bits(v) & m) | (bits(best) & ~m));
    at = (k & m) | (at & ~m);
  }
  static inline void store(float* p, int64_t, Floats v) { *p = v; }
  static inline void store_places(uint8_t* p, int64_t, Places at) { *p = static_cast<uint8_t>(at); }
  static inline Places load_places(const uint8_t* p, int64_t) { return *p; }
  static inline Floats plus_zero(Floats v) { return v + 0.0f; }
  static inline Floats where(Places at, int k, Floats g) {
    return value(bits(g) & -static_cast<int32_t>(at == k));
  }
  static inline void spread(float* row, int64_t, Floats g, Places at, int k) {
    row[0] = where(at, k, g);
    row[1] = where(at, k + 1, g);
  }
};

}  // namespace
}  // namespace tandem::ops::pool_rows

#include "tandem/ops/pool_rows.inc"

namespace tandem::ops::pool_rows {

constinit const RowSet kRowsV1 = {"v1", forward, quarters, forward_block, backward_block};

bool runs_here(const RowSet& set) {
  __builtin_cpu_init();
  if (&set == &kRowsV4)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("bmi2");
  if (&set == &kRowsV3) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return true;
}

const RowSet& best_rows() {
  static const RowSet& best = runs_here(kRowsV4) ? kRowsV4 : runs_here(kRowsV3) ? kRowsV3 : kRowsV1;
  return best;
}

}  // namespace tandem::ops::pool_rows
