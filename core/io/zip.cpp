// The archive is read from its directory, which stands at the end: an end record, one record a member, each
// of which says where the member's own header and bytes are. Little-endian numbers.
#include "tandem/core/io/zip.h"

#include <zlib.h>

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem::core {

namespace {

constexpr uint32_t kMember = 0x04034b50, kDirectory = 0x02014b50, kEnd = 0x06054b50;
constexpr size_t kMemberBytes = 30, kDirectoryBytes = 46, kEndBytes = 22, kMostComment = 0xffff;

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& name, int64_t max_bytes, Location where)
      : bytes_(bytes), name_(name), left_(max_bytes), max_bytes_(max_bytes), where_(where) {}

  std::vector<ZipMember> read() {
    const size_t end = find_end();
    const size_t members = number(end + 10, 2);
    size_t at = number(end + 16, 4);
    std::vector<ZipMember> out;
    for (size_t i = 0; i < members; ++i) {
      if (!fits(at, kDirectoryBytes) || number(at, 4) != kDirectory) refuse("its directory is damaged");
      const size_t name_bytes = number(at + 28, 2);
      if (!fits(at + kDirectoryBytes, name_bytes)) refuse("its directory is cut off");
      ZipMember m;
      m.name = bytes_.substr(at + kDirectoryBytes, name_bytes);
      m.bytes = unpacked(at, m.name);
      out.push_back(std::move(m));
      at += kDirectoryBytes + name_bytes + number(at + 30, 2) + number(at + 32, 2);
    }
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    fail("zip: \"" + name_ + "\": " + message, where_);
  }
  bool fits(size_t at, size_t n) const { return at <= bytes_.size() && n <= bytes_.size() - at; }
  uint32_t number(size_t at, size_t n) const {
    uint32_t v = 0;
    for (size_t i = n; i-- > 0;) v = v << 8 | static_cast<uint8_t>(bytes_[at + i]);
    return v;
  }

  size_t find_end() const {
    if (bytes_.size() >= kEndBytes) {
      const size_t last = bytes_.size() - kEndBytes;
      for (size_t back = 0; back <= std::min(last, kMostComment); ++back)
        if (number(last - back, 4) == kEnd) return last - back;
    }
    refuse("not a ZIP archive: it has no directory at its end");
  }

  std::string unpacked(size_t entry, const std::string& member) {
    const uint32_t flags = number(entry + 8, 2), method = number(entry + 10, 2), sum = number(entry + 16, 4);
    const size_t packed = number(entry + 20, 4), size = number(entry + 24, 4), header = number(entry + 42, 4);
    const auto refuse_member = [&](const std::string& message) { refuse('"' + member + "\" " + message); };
    if (flags & 1) refuse_member("is encrypted");
    if (packed == 0xffffffff || size == 0xffffffff || header == 0xffffffff)
      refuse_member("has 4 GiB or more, which this reader does not take");
    if (!fits(header, kMemberBytes) || number(header, 4) != kMember)
      refuse_member("is not where it should be");
    const size_t data = header + kMemberBytes + number(header + 26, 2) + number(header + 28, 2);
    if (!fits(data, packed)) refuse_member("is cut off");
    left_ -= static_cast<int64_t>(size);
    if (left_ < 0) refuse("unpacks to more than " + std::to_string(max_bytes_) + " bytes");
    std::string out;
    if (method == 0) {
      if (packed != size) refuse_member("is damaged: its two sizes differ");
      out = bytes_.substr(data, size);
    } else if (method == Z_DEFLATED) {
      out = inflated(data, packed, size, member);
    } else {
      refuse_member("is packed by method " + std::to_string(method) + "; stored and deflated are read");
    }
    const auto* at = reinterpret_cast<const Bytef*>(out.data());
    if (crc32_z(0, at, out.size()) != sum) refuse_member("is damaged: its checksum is another");
    return out;
  }

  std::string inflated(size_t at, size_t packed, size_t size, const std::string& member) const {
    struct Inflater {
      z_stream stream{};
      ~Inflater() { inflateEnd(&stream); }
    } inflater;
    z_stream& z = inflater.stream;
    constexpr int kRaw = -15;
    if (inflateInit2(&z, kRaw) != Z_OK) refuse("cannot be unpacked: no memory");
    // A damaged directory may name any size: memory follows what is really there. One byte more than the size
    // lets the end of the stream be seen.
    const size_t most = size + 1;
    std::string out(std::min(most, 4 * packed + 64), '\0');
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes_.data() + at));
    z.avail_in = static_cast<uInt>(packed);
    for (size_t made = 0;;) {
      z.next_out = reinterpret_cast<Bytef*>(out.data() + made);
      z.avail_out = static_cast<uInt>(out.size() - made);
      const int status = inflate(&z, Z_NO_FLUSH);
      made = out.size() - z.avail_out;
      if (status == Z_STREAM_END && made == size && z.avail_in == 0) {
        out.resize(size);
        return out;
      }
      if (status != Z_OK || z.avail_out != 0 || out.size() == most)
        refuse('"' + member + "\" is damaged: its packed bytes do not give " + std::to_string(size));
      out.resize(std::min(most, 2 * out.size()));
    }
  }

  const std::string_view bytes_;
  const std::string& name_;
  int64_t left_;
  const int64_t max_bytes_;
  const Location where_;
};

}  // namespace

std::vector<ZipMember> read_zip(std::string_view archive, const std::string& name, int64_t max_bytes,
                                Location where) {
  return Reader(archive, name, max_bytes, where).read();
}

}  // namespace tandem::core
