// The wire format of protocol buffers, to write: a message is built as bytes, field by field, in the order of
// the calls. Source: "Encoding" of the Protocol Buffers documentation. A value; one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::io {

class Wire {
 public:
  /// int32, int64, uint64, bool and enumerations: a varint; a negative number has its 64 bits in ten bytes.
  Wire& integer(int field, int64_t value);
  /// fixed32 of a float.
  Wire& number(int field, float value);
  /// fixed64 of a double.
  Wire& number(int field, double value);
  /// string, bytes.
  Wire& bytes(int field, std::string_view value);
  /// The key and length of a field of `nbytes` bytes, which follow from elsewhere.
  Wire& head(int field, uint64_t nbytes);
  /// A message within the message.
  Wire& message(int field, const Wire& value) { return bytes(field, value.text()); }

  const std::string& text() const { return text_; }

 private:
  void varint(uint64_t value);
  void key(int field, int kind) { varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(kind)); }
  void little_endian(uint64_t bits, int nbytes);

  std::string text_;
};

/// Whether `text` may be a field of type string: no overlong forms, surrogates or numbers beyond U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace tandem::io
