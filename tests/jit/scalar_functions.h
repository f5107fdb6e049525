// What tests of the scalar functions share: special values, the instruction sets, and distances in units of
// the last place. Stateless.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tandem/jit/evaluator_chunks.h"

namespace tandem::test {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kTiny = std::numeric_limits<float>::denorm_min();

inline std::vector<const jit::ChunkFunctions*> runnable() {
  const jit::ChunkFunctions* all[3];
  const int n = jit::runnable_chunk_functions(all);
  return {all, all + n};
}

// Distance in units of the last place of the float nearest to `exact`.
inline double ulp(float got, double exact) {
  const auto rounded = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(rounded) || std::isinf(got)) {
    if (got == rounded) return 0;
    // The largest float and infinity are neighbours.
    const double edge = std::ldexp(1.0, 128);
    const double a = std::isinf(got) ? std::copysign(edge, got) : got;
    return std::abs(a - std::max(-edge, std::min(edge, exact))) / std::ldexp(1.0, 104);
  }
  if (rounded == 0 && got == 0) return std::signbit(got) == std::signbit(rounded) ? 0 : 1e9;
  const int e = std::max(-126, std::ilogb(rounded == 0 ? kTiny : rounded));
  return std::abs(static_cast<double>(got) - exact) / std::ldexp(1.0, e - 23);
}

inline bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

}  // namespace tandem::test
