#include "tandem/io/records.h"

#include <array>

namespace tandem::io {

namespace {

constexpr auto kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);  // the polynomial, reflected
    table[i] = c;
  }
  return table;
}();

void append(std::string& out, uint64_t value, int nbytes) {
  for (int i = 0; i < nbytes; ++i) out += static_cast<char>(value >> (8 * i));
}

/// A checksum of bytes that hold checksums would be weak, so those that are stored are turned and shifted.
uint32_t masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

std::string record(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + 16);
  append(out, bytes.size(), 8);
  append(out, masked(crc32c(out)), 4);
  out += bytes;
  append(out, masked(crc32c(bytes)), 4);
  return out;
}

}  // namespace tandem::io
