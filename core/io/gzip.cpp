#include "tandem/core/io/gzip.h"

#include <zlib.h>

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/core/io/file.h"

namespace tandem::core {

namespace {

struct Inflater {
  z_stream stream{};
  ~Inflater() { inflateEnd(&stream); }
};

bool begins_as_gzip(const std::string& bytes, size_t at) {
  return bytes.size() - at >= 2 && bytes[at] == '\x1f' && bytes[at + 1] == '\x8b';
}

}  // namespace

std::string read_maybe_gzip(const std::string& path, int64_t max_bytes, Location where) {
  const std::string packed = read_file(path, max_bytes, where);
  if (!begins_as_gzip(packed, 0)) return packed;

  const std::string prefix = "gzip: \"" + path + "\" ";
  Inflater inflater;
  z_stream& z = inflater.stream;
  constexpr int kGzipOnly = 15 + 16;
  if (inflateInit2(&z, kGzipOnly) != Z_OK) fail(prefix + "cannot be unpacked: no memory", where);

  std::string result;
  std::string buffer(size_t{256} << 10, '\0');
  size_t fed = 0;
  for (;;) {
    if (z.avail_in == 0) {
      const size_t most = std::min<size_t>(packed.size() - fed, size_t{1} << 30);
      z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + fed));
      z.avail_in = static_cast<uInt>(most);
      fed += most;
    }
    z.next_out = reinterpret_cast<Bytef*>(buffer.data());
    z.avail_out = static_cast<uInt>(buffer.size());
    const int status = inflate(&z, Z_NO_FLUSH);
    const size_t made = buffer.size() - z.avail_out;
    if (static_cast<int64_t>(result.size() + made) > max_bytes)
      fail(prefix + "unpacks to more than " + std::to_string(max_bytes) + " bytes", where);
    result.append(buffer, 0, made);
    if (status == Z_STREAM_END) {
      const size_t at = fed - z.avail_in;
      if (at == packed.size()) return result;
      if (!begins_as_gzip(packed, at))
        fail(prefix + "is damaged: other bytes follow the compressed data", where);
      inflateReset(&z);
    } else if (status == Z_MEM_ERROR) {
      fail(prefix + "cannot be unpacked: no memory", where);
    } else if (status == Z_BUF_ERROR ||
               (status == Z_OK && made == 0 && z.avail_in == 0 && fed == packed.size())) {
      fail(prefix + "is damaged: it ends early", where);
    } else if (status != Z_OK) {
      fail(prefix + "is damaged: " + (z.msg != nullptr ? z.msg : "not a gzip stream"), where);
    }
  }
}

}  // namespace tandem::core
