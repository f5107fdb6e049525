// .npy: "\\x93NUMPY", a version, the length of a header, the header (a Python dictionary as text), the
// elements. .npz: a ZIP archive of them. The format is described in NumPy's documentation (numpy.lib.format).
#include <algorithm>
#include <cctype>
#include <optional>

#include "tandem/core/io/file.h"
#include "tandem/core/io/gzip.h"
#include "tandem/core/io/zip.h"
#include "tandem/eager/data/elements.h"
#include "tandem/eager/data/readers.h"
#include "tandem/eager/dispatch.h"

namespace tandem::data {

namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct Code {
  const char* code;
  ElementType type;
};
// The first code of a dtype is the one that is written.
constexpr Code kCodes[] = {
    {"b1",
     {bool_, 1,
      [](const char* from, int64_t n, bool, void* to) {
        std::transform(from, from + n, static_cast<bool*>(to), [](char c) { return c != 0; });
      }}},
    {"u1", element_type<uint8_t, uint8_t>(uint8)},
    {"i4", element_type<int32_t, int32_t>(int32)},
    {"i1", element_type<int32_t, int8_t>(int32)},
    {"i2", element_type<int32_t, int16_t>(int32)},
    {"u2", element_type<int32_t, uint16_t>(int32)},
    {"i8", element_type<int64_t, int64_t>(int64)},
    {"u4", element_type<int64_t, uint32_t>(int64)},
    {"f2", element_type<uint16_t, uint16_t>(float16)},
    {"f4", element_type<float, float>(float32)},
    {"f8", element_type<double, double>(float64)},
};

struct Header {
  std::string descr;
  bool fortran_order = false;
  Dims shape;
};

/// The dictionary's three entries, in any order.
class HeaderParser {
 public:
  /// Nothing for a text that is no such dictionary.
  static std::optional<Header> parse(std::string_view text) {
    HeaderParser p(text);
    return p.dictionary() ? std::optional(std::move(p.header_)) : std::nullopt;
  }

 private:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  bool dictionary() {
    bool descr = false, order = false, shape = false;
    if (!take('{')) return false;
    while (!take('}')) {
      std::string key;
      if (!string(key) || !take(':')) return false;
      if (key == "descr" && !descr)
        descr = string(header_.descr);
      else if (key == "fortran_order" && !order)
        order = boolean();
      else if (key == "shape" && !shape)
        shape = sizes();
      else
        return false;
      if (!take(',') && (at_ == text_.size() || text_[at_] != '}')) return false;
    }
    skip();
    return descr && order && shape && at_ == text_.size();
  }

  void skip() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    skip();
    return true;
  }
  bool take(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  bool string(std::string& out) {
    skip();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) return false;
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) return false;
    out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return true;
  }
  bool boolean() {
    header_.fortran_order = take("True");
    return header_.fortran_order || take("False");
  }
  bool sizes() {
    if (!take('(')) return false;
    while (!take(')')) {
      int64_t n = 0;
      const size_t first = at_;
      for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); ++at_)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, text_[at_] - '0', &n))
          return false;
      if (at_ == first || header_.shape.rank() == kMaxRank) return false;
      header_.shape.push_back(n);
      if (!take(',') && (at_ == text_.size() || text_[at_] != ')')) return false;
    }
    return true;
  }

  const std::string_view text_;
  size_t at_ = 0;
  Header header_;
};

}  // namespace

Tensor parse_npy(std::string_view bytes, const std::string& name, Location where) {
  const auto refuse = [&](const std::string& message) { fail("npy: \"" + name + "\": " + message, where); };
  if (bytes.size() < 10 || bytes.substr(0, kMagic.size()) != kMagic)
    refuse("not a NumPy array: it does not begin with \\x93NUMPY");
  const int version = static_cast<uint8_t>(bytes[6]);
  if (version < 1 || version > 3)
    refuse("version " + std::to_string(version) + " of the format; 1 to 3 are read");
  const size_t at = version == 1 ? 10 : 12;
  if (bytes.size() < at) refuse("its header is cut off");
  const size_t header_bytes =
      version == 1 ? load<uint16_t>(bytes.data() + 8, false) : load<uint32_t>(bytes.data() + 8, false);
  if (bytes.size() - at < header_bytes) refuse("its header is cut off");
  const std::optional<Header> header = HeaderParser::parse(bytes.substr(at, header_bytes));
  if (!header)
    refuse("its header is not {'descr': type, 'fortran_order': bool, 'shape': at most " +
           std::to_string(kMaxRank) + " sizes}");
  if (header->descr.find('O') != std::string::npos) refuse("it holds Python objects, which are not read");
  const ElementType* type = nullptr;
  for (const Code& c : kCodes)
    if (header->descr.size() == 3 && header->descr.substr(1) == c.code) type = &c.type;
  if (!type || std::string_view("<>|=").find(header->descr[0]) == std::string_view::npos)
    refuse("elements of type '" + header->descr.substr(0, 20) +
           "'; bool, integers up to int64 and floats up to float64 are read");
  int64_t needed = type->nbytes;
  for (const int64_t n : header->shape)
    if (__builtin_mul_overflow(needed, n, &needed))
      refuse("shape " + to_string(header->shape) + " is too large");
  const auto found = static_cast<int64_t>(bytes.size() - at - header_bytes);
  if (found != needed)
    refuse("shape " + to_string(header->shape) + " needs " + std::to_string(needed) + " bytes, found " +
           std::to_string(found));
  const char* const data = bytes.data() + at + header_bytes;
  const bool big_endian = header->descr[0] == '>';
  if (!header->fortran_order || header->shape.rank() < 2)
    return elements(*type, data, header->shape, big_endian);
  Dims reversed, axes;
  for (int d = header->shape.rank(); d-- > 0;) {
    reversed.push_back(header->shape[d]);
    axes.push_back(d);
  }
  return elements(*type, data, reversed, big_endian).permute(axes).contiguous();
}

Tensor read_npy(const std::string& path, Location where) {
  return parse_npy(core::read_file(path, core::kMaxFileBytes, where), path, where);
}

std::vector<NamedTensor> read_npz(const std::string& path, Location where) {
  const std::string archive = core::read_file(path, core::kMaxFileBytes, where);
  std::vector<NamedTensor> out;
  for (const core::ZipMember& m : core::read_zip(archive, path, int64_t{8} << 30, where)) {
    constexpr std::string_view kEnding = ".npy";
    std::string name = m.name;
    if (name.ends_with(kEnding)) name.resize(name.size() - kEnding.size());
    out.push_back({name, parse_npy(m.bytes, path + ", " + m.name, where)});
  }
  return out;
}

void write_npy(const std::string& path, const Tensor& tensor, Location where) {
  const NoGrad no_grad;
  const Tensor t = tensor.detach(where).to(cpu, where).contiguous(where);
  eager::materialize(t.impl(), where);
  const Code* code = nullptr;
  for (const Code& c : kCodes)
    if (c.type.dtype == t.dtype() && !code) code = &c;
  if (!code)
    fail("npy: NumPy has no " + std::string(name(t.dtype())) + "; cast \"" + path + "\" to float32 first",
         where);
  std::string header = std::string("{'descr': '") + (code->type.nbytes == 1 ? '|' : '<') + code->code +
                       "', 'fortran_order': False, 'shape': (";
  for (const int64_t n : t.sizes()) header += std::to_string(n) + ", ";
  if (t.dim() > 1) header.resize(header.size() - 2);
  header += "), }";
  constexpr size_t kFixed = 10, kAlignment = 64;
  header.resize((header.size() + 1 + kFixed + kAlignment - 1) / kAlignment * kAlignment - kFixed, ' ');
  header.back() = '\n';
  std::string start(kMagic);
  start += {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  const core::TensorImpl& impl = *t.impl();
  const core::ByteSpan pieces[] = {
      core::bytes_of(start),
      core::bytes_of(header),
      {static_cast<const std::byte*>(impl.data), static_cast<size_t>(impl.nbytes())}};
  core::write_file_atomic(path, pieces, where);
}

Tensor read_bytes(const std::string& path, Location where) {
  const std::string bytes = core::read_maybe_gzip(path, int64_t{8} << 30, where);
  return elements(element_type<uint8_t, uint8_t>(uint8), bytes.data(), {static_cast<int64_t>(bytes.size())},
                  false);
}

}  // namespace tandem::data
