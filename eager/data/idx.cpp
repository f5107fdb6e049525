// IDX: two zero bytes, a type code, the rank, a 32-bit size per axis, the elements; all big-endian.
#include <bit>
#include <cstring>

#include "tandem/core/io/gzip.h"
#include "tandem/eager/data/readers.h"

namespace tandem::data {

namespace {

/// The next element of type Bits at `p`, most significant byte first.
template <class Bits>
Bits big_endian(const char* p) {
  Bits v = 0;
  for (size_t i = 0; i < sizeof(Bits); ++i) v = static_cast<Bits>(v << 8 | static_cast<uint8_t>(p[i]));
  return v;
}

/// All elements: stored as Stored with the bits Bits, returned as T.
template <class T, class Stored, class Bits>
Tensor elements(const char* p, const Dims& sizes, Location where) {
  std::vector<T> values(static_cast<size_t>(numel(sizes)));
  for (T& v : values) {
    v = static_cast<T>(std::bit_cast<Stored>(big_endian<Bits>(p)));
    p += sizeof(Bits);
  }
  return tensor(std::span<const T>(values), sizes, {.dtype = dtype_of<T>, .device = cpu}, where);
}

struct Code {
  uint8_t code;
  int64_t nbytes;
  Tensor (*read)(const char*, const Dims&, Location);
};
constexpr Code kCodes[] = {
    {0x08, 1, elements<uint8_t, uint8_t, uint8_t>},  {0x09, 1, elements<int32_t, int8_t, uint8_t>},
    {0x0b, 2, elements<int32_t, int16_t, uint16_t>}, {0x0c, 4, elements<int32_t, int32_t, uint32_t>},
    {0x0d, 4, elements<float, float, uint32_t>},     {0x0e, 8, elements<double, double, uint64_t>},
};

}  // namespace

Tensor parse_idx(std::string_view bytes, const std::string& name, Location where) {
  const auto refuse = [&](const std::string& message) { fail("idx: \"" + name + "\": " + message, where); };
  if (bytes.size() < 4) refuse("no room for the magic number, " + std::to_string(bytes.size()) + " bytes");
  if (bytes[0] != 0 || bytes[1] != 0) refuse("not an IDX file: it must begin with two zero bytes");
  const auto code = static_cast<uint8_t>(bytes[2]);
  const Code* type = nullptr;
  for (const Code& c : kCodes)
    if (c.code == code) type = &c;
  if (!type) refuse("unknown element type " + std::to_string(code));
  const int rank = static_cast<uint8_t>(bytes[3]);
  if (rank < 1 || rank > kMaxRank)
    refuse(std::to_string(rank) + " axes, but 1 to " + std::to_string(kMaxRank) + " are possible");
  const size_t header = 4 + 4 * static_cast<size_t>(rank);
  if (bytes.size() < header) refuse("the sizes of its " + std::to_string(rank) + " axes are cut off");

  Dims sizes;
  for (int i = 0; i < rank; ++i) sizes.push_back(big_endian<uint32_t>(bytes.data() + 4 + 4 * i));
  int64_t needed = type->nbytes;
  for (const int64_t n : sizes)
    if (__builtin_mul_overflow(needed, n, &needed)) refuse("shape " + to_string(sizes) + " is too large");
  const auto found = static_cast<int64_t>(bytes.size() - header);
  if (found != needed)
    refuse("shape " + to_string(sizes) + " needs " + std::to_string(needed) + " bytes, found " +
           std::to_string(found));
  return type->read(bytes.data() + header, sizes, where);
}

Tensor read_idx(const std::string& path, Location where) {
  return parse_idx(core::read_maybe_gzip(path, int64_t{8} << 30, where), path, where);
}

}  // namespace tandem::data
