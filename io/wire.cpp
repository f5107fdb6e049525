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

Wire& Wire::bytes(int field, std::string_view value) {
  key(field, kBytes);
  varint(value.size());
  text_ += value;
  return *this;
}

}  // namespace tandem::io
