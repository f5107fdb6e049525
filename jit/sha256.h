// SHA-256 (FIPS 180-4), for the names and the integrity of kernel-cache entries.
// Plain values without shared state: any thread, one object per thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::jit {

using Digest = std::array<uint8_t, 32>;

/// A running hash: `update` any number of times, then `finish` once.
class Sha256 {
 public:
  void update(const void* data, size_t nbytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  Digest finish();

 private:
  void block(const uint8_t* bytes);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_{};
  size_t pending_nbytes_ = 0;
  uint64_t total_nbytes_ = 0;
};

Digest sha256(std::string_view text);
/// 64 lower-case hexadecimal digits.
std::string hex(const Digest& digest);

}  // namespace tandem::jit
