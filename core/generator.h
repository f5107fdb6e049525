// Random numbers: Philox 4x32-10 as a pure function of (seed, counter, lane), and the generator that hands
// out counter ranges. Element i of a random op, in logical order, is lane i % 4 of counter `offset + i / 4`;
// 16-bit draws use half-lane i % 8 of counter `offset + i / 8` (low half of a lane first). Source: Salmon et
// al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Several threads may draw from one generator:
// each gets counters of its own, in an order that nobody knows.
#pragma once

#include <array>
#include <cstdint>

#include "tandem/core/relaxed.h"

namespace tandem {

namespace core {
/// Philox 4x32-10: key = seed (two words), counter = (counter low, counter high, 0, 0).
std::array<uint32_t, 4> philox(uint64_t seed, uint64_t counter);
/// The same with all words free, as the published test vectors have it.
std::array<uint32_t, 4> philox_4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
}  // namespace core

class Generator {
 public:
  explicit Generator(uint64_t seed = 0) : seed_(seed) {}
  void seed(uint64_t s) { seed_ = s, offset_ = 0; }
  uint64_t seed() const { return seed_; }
  /// Counters used so far.
  uint64_t offset() const { return offset_; }
  void set_offset(uint64_t offset) { offset_ = offset; }
  /// Reserves `counters` counters and returns the first.
  uint64_t advance(uint64_t counters) { return offset_.add(counters); }
  /// The next 64 random bits (one counter), for host-side use such as shuffling.
  uint64_t next_u64();
  /// Uniform in [0, n), without modulo bias; n > 0.
  uint64_t below(uint64_t n);

 private:
  core::Relaxed<uint64_t> seed_ = 0, offset_ = 0;
};

/// The generator of all random ops that are not given another, on every device.
Generator& default_generator();
/// Seeds the default generator.
void manual_seed(uint64_t seed);

}  // namespace tandem
