// bfloat16's conversions inline, for loops over many elements that compilers are to vectorise, also in units
// for one instruction set: no copy of them is left for the linker to share. Any thread.
#pragma once

#include <cstdint>

namespace tandem::core {

[[gnu::always_inline]] inline float widened_bfloat(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

/// To the nearest, ties to even; NaN stays NaN. Without a branch.
[[gnu::always_inline]] inline uint16_t rounded_to_bfloat(float value) {
  const auto bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

}  // namespace tandem::core
