// bfloat16's conversions inline, for loops over many elements that compilers are to vectorise. Any thread.
#pragma once

#include <bit>
#include <cstdint>

namespace tandem::core {

inline float widened_bfloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

/// To the nearest, ties to even; NaN stays NaN. Without a branch.
inline uint16_t rounded_to_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

}  // namespace tandem::core
