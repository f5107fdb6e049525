#include "tandem/io/wire.h"

#include <bit>

namespace tandem::io {
namespace {
enum Kind { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
}

void Wire::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
  text_ += static_cast<char>(value);
}

void Wire::little_endian(uint64_t bits, int nbytes) {
  for (int i = 0; i < nbytes; ++i) text_ += static_cast<char>(bits >> (8 * i));
}

Wire& Wire::integer(int field, int64_t value) {
  key(field, kVarint);
  varint(static_cast<uint64_t>(value));
  return *this;
}

Wire& Wire::number(int field, float value) {
  key(field, kFixed32);
  little_endian(std::bit_cast<uint32_t>(value), 4);
  return *this;
}

Wire& Wire::number(int field, double value) {
  key(field, kFixed64);
  little_endian(std::bit_cast<uint64_t>(value), 8);
  return *this;
}

Wire& Wire::head(int field, uint64_t nbytes) {
  key(field, kBytes);
  varint(nbytes);
  return *this;
}

Wire& Wire::bytes(int field, std::string_view value) {
  head(field, value.size());
  text_ += value;
  return *this;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i++]);
    if (first < 0x80) continue;
    const int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4) return false;
    uint32_t point = first & (0x3fu >> more);
    for (int k = 0; k < more; ++k, ++i) {
      if (i == text.size() || (static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return false;
      point = point << 6 | (static_cast<unsigned char>(text[i]) & 0x3f);
    }
    const uint32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
    if (point < least || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
  }
  return true;
}

}  // namespace tandem::io
