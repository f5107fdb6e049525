// IDX: two zero bytes, a type code, the rank, a 32-bit size per axis, the elements; all big-endian.
#include "tandem/core/io/gzip.h"
#include "tandem/eager/data/elements.h"
#include "tandem/eager/data/readers.h"

namespace tandem::data {

namespace {

struct Code {
  uint8_t code;
  ElementType type;
};
constexpr Code kCodes[] = {
    {0x08, element_type<uint8_t, uint8_t>(uint8)}, {0x09, element_type<int32_t, int8_t>(int32)},
    {0x0b, element_type<int32_t, int16_t>(int32)}, {0x0c, element_type<int32_t, int32_t>(int32)},
    {0x0d, element_type<float, float>(float32)},   {0x0e, element_type<double, double>(float64)},
};

}  // namespace

Tensor parse_idx(std::string_view bytes, const std::string& name, Location where) {
  const auto refuse = [&](const std::string& message) { fail("idx: \"" + name + "\": " + message, where); };
  if (bytes.size() < 4) refuse("no room for the magic number, " + std::to_string(bytes.size()) + " bytes");
  if (bytes[0] != 0 || bytes[1] != 0) refuse("not an IDX file: it must begin with two zero bytes");
  const auto code = static_cast<uint8_t>(bytes[2]);
  const ElementType* type = nullptr;
  for (const Code& c : kCodes)
    if (c.code == code) type = &c.type;
  if (!type) refuse("unknown element type " + std::to_string(code));
  const int rank = static_cast<uint8_t>(bytes[3]);
  if (rank < 1 || rank > kMaxRank)
    refuse(std::to_string(rank) + " axes, but 1 to " + std::to_string(kMaxRank) + " are possible");
  const size_t header = 4 + 4 * static_cast<size_t>(rank);
  if (bytes.size() < header) refuse("the sizes of its " + std::to_string(rank) + " axes are cut off");

  Dims sizes;
  for (int i = 0; i < rank; ++i) sizes.push_back(load<uint32_t>(bytes.data() + 4 + 4 * i, true));
  int64_t needed = type->nbytes;
  for (const int64_t n : sizes)
    if (__builtin_mul_overflow(needed, n, &needed)) refuse("shape " + to_string(sizes) + " is too large");
  const auto found = static_cast<int64_t>(bytes.size() - header);
  if (found != needed)
    refuse("shape " + to_string(sizes) + " needs " + std::to_string(needed) + " bytes, found " +
           std::to_string(found));
  return elements(*type, bytes.data() + header, sizes, true);
}

Tensor read_idx(const std::string& path, Location where) {
  return parse_idx(core::read_maybe_gzip(path, int64_t{8} << 30, where), path, where);
}

}  // namespace tandem::data
