// TFRecord framing, in which TensorBoard keeps events: length, its checksum, bytes, their checksum; all
// little-endian. Source: TensorFlow, "TFRecord and tf.train.Example". Free functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::io {

/// CRC-32C (Castagnoli), as in RFC 3720, appendix B.4.
uint32_t crc32c(std::string_view bytes);

/// `bytes` as one record.
std::string record(std::string_view bytes);

}  // namespace tandem::io
