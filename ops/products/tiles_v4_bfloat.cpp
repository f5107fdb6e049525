// AVX-512's products of bfloat16: a float of an operand is a pair of these, neighbours along k, and a
// vector's fma adds both products of a lane to its sum. Subnormal operands and sums count as zero there.
#include <immintrin.h>

#include "tandem/ops/products/tiles.h"

#if defined(__AVX512BF16__)

namespace tandem::ops::tiles {
namespace {

#include "tandem/ops/products/floats_v4.inc"

template <>
struct Vec<float> : Floats {
  static inline type fma(type a, type b, type c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};

}  // namespace
}  // namespace tandem::ops::tiles

#include "tandem/ops/products/tiles.inc"

namespace tandem::ops::tiles {
constinit const TileSet kTilesV4Bfloat = tile_set<false>("v4 bfloat16");
}  // namespace tandem::ops::tiles

#else
#error "tiles_v4_bfloat.cpp is compiled with -mavx512bf16"
#endif
