// Philox 4x32-10: ten rounds, each of which multiplies two of the four counter words by fixed odd constants,
// swaps the halves of the products and mixes in the key, which moves by a Weyl sequence. Constants: Salmon et
// al., SC 2011, table 2.
#include "tandem/core/generator.h"

#include "tandem/core/error.h"
#include "tandem/core/own_generator.h"

namespace tandem {

namespace core {

namespace {
constinit thread_local Generator* own_ = nullptr;
}

OwnGenerator::OwnGenerator(uint64_t seed, uint64_t offset) : generator_(seed), before_(own_) {
  generator_.set_offset(offset);
  own_ = &generator_;
}

OwnGenerator::~OwnGenerator() { own_ = before_; }

std::array<uint32_t, 4> philox(uint64_t seed, uint64_t counter) {
  return philox_4x32({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                     {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

std::array<uint32_t, 4> philox_4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}
}  // namespace core

uint64_t Generator::next_u64() {
  const std::array<uint32_t, 4> lanes = core::philox(seed_, advance(1));
  return lanes[0] | static_cast<uint64_t>(lanes[1]) << 32;
}

uint64_t Generator::below(uint64_t n) {
  if (n == 0) fail("Generator::below: the bound must be positive");
  // The lowest 2^64 mod n draws are refused; what is left is a multiple of n.
  const uint64_t refused = (uint64_t{0} - n) % n;
  for (;;) {
    const uint64_t draw = next_u64();
    if (draw >= refused) return draw % n;
  }
}

Generator& default_generator() {
  static Generator generator;
  return core::own_ ? *core::own_ : generator;
}

void manual_seed(uint64_t seed) { default_generator().seed(seed); }

}  // namespace tandem
