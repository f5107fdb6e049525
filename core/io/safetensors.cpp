// Layout: 8 bytes N, little-endian; N bytes of JSON; data. The JSON is read by events (SAX), because a parsed
// tree would already have lost duplicate keys and turned numbers of 2^64 and above into doubles; the events
// also bound the depth, as a key that the format does not know is refused where it stands.
#include "tandem/core/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "tandem/core/allocator.h"
#include "tandem/core/error.h"

namespace tandem::core {

namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxNameBytes = 4096;
constexpr size_t kMaxMetadataBytes = size_t{1} << 20;
constexpr const char* kMetadataKey = "__metadata__";
constexpr const char* kSupported = "BOOL, U8, I32, I64, F16, BF16, F32 and F64 are supported";

struct TypeName {
  const char* text;
  DType dtype;
};
constexpr TypeName kTypes[] = {{"BOOL", DType::bool_},  {"U8", DType::uint8},    {"I32", DType::int32},
                               {"I64", DType::int64},   {"F16", DType::float16}, {"BF16", DType::bfloat16},
                               {"F32", DType::float32}, {"F64", DType::float64}};
/// Of the format, but without a dtype here.
constexpr const char* kForeignTypes[] = {"I8",      "I16",         "U16",         "U32",     "U64",
                                         "C64",     "F4",          "F6_E2M3",     "F6_E3M2", "F8_E5M2",
                                         "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ", "F8_E8M0"};

/// Text of the file's, made fit for a message.
std::string shown(const std::string& text, size_t most = 100) {
  std::string result;
  for (const char c : text.substr(0, most)) result += c >= ' ' && c < 127 ? c : '?';
  return text.size() > most ? result + "..." : result;
}
std::string in_quotes(const std::string& text) { return '"' + shown(text) + '"'; }

struct HeaderEntry {
  std::string name, dtype;
  std::vector<uint64_t> shape, offsets;
};

/// What fails has the file's name in front.
struct Reporter {
  std::string file;
  Location where;
  [[noreturn]] void fail(const std::string& message) const {
    tandem::fail("safetensors: \"" + file + "\": " + message, where);
  }
  [[noreturn]] void fail(const HeaderEntry& e, const std::string& message) const {
    fail("tensor " + in_quotes(e.name) + ": " + message);
  }
};

/// Receives the header's JSON events; throws at the first that the format does not allow.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const Reporter& report) : report_(report) {}

  std::vector<HeaderEntry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { refuse(); }
  bool boolean(bool) override { refuse(); }
  bool number_integer(number_integer_t) override { refuse(); }
  bool number_float(number_float_t, const string_t&) override { refuse(); }
  bool binary(binary_t&) override { refuse(); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::shape) {
      if (entry().shape.size() == kMaxRank)
        report_.fail(entry(), "the shape has more than " + std::to_string(kMaxRank) + " dimensions");
      entry().shape.push_back(value);
    } else if (place_ == Place::offsets && entry().offsets.size() < 2) {
      entry().offsets.push_back(value);
    } else {
      refuse();
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      metadata_bytes_ += key_.size() + value.size();
      if (metadata_bytes_ > kMaxMetadataBytes)
        report_.fail("__metadata__ has more than " + std::to_string(kMaxMetadataBytes) + " bytes");
      metadata[key_] = value;
    } else if (place_ == Place::tensor && key_ == "dtype") {
      entry().dtype = value;
    } else {
      refuse();
    }
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::before) {
      place_ = Place::top;
    } else if (place_ == Place::top && key_ == kMetadataKey) {
      place_ = Place::metadata;
    } else if (place_ == Place::top) {
      entries.push_back({key_, "", {}, {}});
      place_ = Place::tensor;
    } else {
      refuse();
    }
    if (place_ != Place::top) inner_keys_.clear();
    return true;
  }

  bool key(string_t& key) override {
    if (key.size() > kMaxNameBytes)
      report_.fail("the name " + in_quotes(key) + " has more than " + std::to_string(kMaxNameBytes) +
                   " bytes");
    std::set<std::string>& seen = place_ == Place::top ? names_ : inner_keys_;
    if (!seen.insert(key).second) report_.fail("the key " + in_quotes(key) + " appears twice");
    if (place_ == Place::tensor && key != "dtype" && key != "shape" && key != "data_offsets")
      report_.fail(entry(), "the key " + in_quotes(key) + " is unknown; expected dtype, shape, data_offsets");
    key_ = key;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor) {
      for (const char* needed : {"dtype", "shape", "data_offsets"})
        if (inner_keys_.count(needed) == 0) report_.fail(entry(), std::string(needed) + " is missing");
    }
    place_ = Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ == Place::tensor && key_ == "shape")
      place_ = Place::shape;
    else if (place_ == Place::tensor && key_ == "data_offsets")
      place_ = Place::offsets;
    else
      refuse();
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && entry().offsets.size() != 2) refuse();
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string text = e.what();
    const size_t bracket = text.find("] ");
    const std::string reason = bracket == std::string::npos ? text : text.substr(bracket + 2);
    report_.fail("the header is not valid JSON: " + shown(reason, 250));
  }

 private:
  enum class Place { before, top, metadata, tensor, shape, offsets };

  HeaderEntry& entry() { return entries.back(); }

  [[noreturn]] void refuse() {
    switch (place_) {
      case Place::before:
        report_.fail("the header is not a JSON object");
      case Place::top:
        report_.fail("the value of " + in_quotes(key_) + " is not an object");
      case Place::metadata:
        report_.fail("__metadata__: the value of " + in_quotes(key_) + " is not a string");
      case Place::shape:
        break;
      case Place::offsets:
        break;
      case Place::tensor:
        break;
    }
    if (key_ == "dtype") report_.fail(entry(), "dtype is not a string");
    if (key_ == "shape") report_.fail(entry(), "shape is not an array of whole numbers from 0 to 2^64 - 1");
    report_.fail(entry(), "data_offsets is not a pair of whole numbers from 0 to 2^64 - 1");
  }

  const Reporter& report_;
  Place place_ = Place::before;
  std::string key_;
  std::set<std::string> names_, inner_keys_;
  size_t metadata_bytes_ = 0;
};

DType type_of(const HeaderEntry& e, const Reporter& report) {
  for (const TypeName& t : kTypes)
    if (e.dtype == t.text) return t.dtype;
  for (const char* foreign : kForeignTypes)
    if (e.dtype == foreign) report.fail(e, "dtype " + e.dtype + " is not supported; " + kSupported);
  report.fail(e, "dtype " + in_quotes(e.dtype) + " is unknown; " + kSupported);
}

const char* type_name(DType dtype) {
  for (const TypeName& t : kTypes)
    if (dtype == t.dtype) return t.text;
  internal_error("safetensors: a dtype without a name");
}

Dims sizes_of(const HeaderEntry& e, const Reporter& report) {
  Dims sizes;
  for (const uint64_t size : e.shape) {
    if (size > static_cast<uint64_t>(INT64_MAX)) report.fail(e, "size overflows: " + std::to_string(size));
    sizes.push_back(static_cast<int64_t>(size));
  }
  return sizes;
}

/// Bytes that the shape asks for. Zeros are left out until the end, so that strides cannot overflow either.
int64_t bytes_of_shape(const HeaderEntry& e, const Dims& sizes, DType dtype, const Reporter& report) {
  int64_t nbytes = itemsize(dtype);
  bool empty = false;
  for (const int64_t size : sizes) {
    empty = empty || size == 0;
    if (size != 0 && __builtin_mul_overflow(nbytes, size, &nbytes))
      report.fail(e, "size overflows: shape " + to_string(sizes) + " of " + e.dtype);
  }
  return empty ? 0 : nbytes;
}

/// Every byte of the data belongs to exactly one tensor: a file cannot be two formats at once.
void check_cover(const std::vector<HeaderEntry>& entries, uint64_t data_bytes, const Reporter& report) {
  std::vector<const HeaderEntry*> order;
  for (const HeaderEntry& e : entries) order.push_back(&e);
  std::sort(order.begin(), order.end(),
            [](const HeaderEntry* a, const HeaderEntry* b) { return a->offsets < b->offsets; });
  uint64_t end = 0;
  for (const HeaderEntry* e : order) {
    const std::string begins = "data begins at " + std::to_string(e->offsets[0]) +
                               ", but what lies before ends at " + std::to_string(end);
    if (e->offsets[0] > end) report.fail(*e, begins + ": a hole");
    if (e->offsets[0] < end) report.fail(*e, begins + ": an overlap");
    end = e->offsets[1];
  }
  if (end != data_bytes)
    report.fail("the tensors end at byte " + std::to_string(end) + " of the data, which has " +
                std::to_string(data_bytes) + " bytes");
}

void check_bools(const SafeTensor& t, const Reporter& report) {
  if (t.dtype != DType::bool_) return;
  const unsigned char* bytes = static_cast<const unsigned char*>(t.data);
  for (int64_t i = 0; i < t.nbytes(); ++i)
    if (bytes[i] > 1)
      report.fail("tensor " + in_quotes(t.name) + ": element " + std::to_string(i) + " of BOOL data is " +
                  std::to_string(bytes[i]) + "; expected 0 or 1");
}

std::string json_text(const std::string& text, const std::string& path, Location where) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail("save_safetensors: \"" + path + "\": " + in_quotes(text) + " is not valid UTF-8", where);
  }
}

}  // namespace

void FreeFileBlock::operator()(std::byte* block) const noexcept { deallocate(block, nbytes); }

SafeTensors SafeTensors::load(const Source& source, int64_t size, const std::string& name, Location where) {
  const Reporter report{name, where};
  if (size < kLengthBytes)
    report.fail("the file has " + std::to_string(size) + " bytes; the header's length alone needs 8");
  unsigned char length_bytes[kLengthBytes];
  source(length_bytes, kLengthBytes);
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | length_bytes[i];
  if (length > kMaxHeaderBytes)
    report.fail("the header's length " + std::to_string(length) + " is above the limit of " +
                std::to_string(kMaxHeaderBytes));
  const int64_t data_bytes = size - kLengthBytes - static_cast<int64_t>(length);
  if (data_bytes < 0)
    report.fail("the header's length " + std::to_string(length) +
                " reaches beyond the end of the file, which has " + std::to_string(size) + " bytes");
  if (length == 0) report.fail("the header is empty");
  std::string header(length, '\0');
  source(header.data(), static_cast<int64_t>(length));
  if (header[0] != '{') report.fail("the header does not begin with {");

  HeaderReader reader(report);
  Json::sax_parse(header, &reader);

  SafeTensors result;
  for (const HeaderEntry& e : reader.entries) {
    const DType dtype = type_of(e, report);
    const Dims sizes = sizes_of(e, report);
    const uint64_t nbytes = static_cast<uint64_t>(bytes_of_shape(e, sizes, dtype, report));
    const uint64_t begin = e.offsets[0], end = e.offsets[1];
    const std::string range = "data_offsets (" + std::to_string(begin) + ", " + std::to_string(end) + ") ";
    if (begin > end) report.fail(e, range + "run backwards");
    if (end > static_cast<uint64_t>(data_bytes))
      report.fail(e, range + "reach beyond the " + std::to_string(data_bytes) + " bytes of data");
    if (end - begin != nbytes)
      report.fail(e, range + "hold " + std::to_string(end - begin) + " bytes, but shape " + to_string(sizes) +
                         " of " + e.dtype + " needs " + std::to_string(nbytes));
    result.entries_.push_back({e.name, dtype, sizes, nullptr});
  }
  check_cover(reader.entries, static_cast<uint64_t>(data_bytes), report);

  result.block_ = {static_cast<std::byte*>(allocate(data_bytes)), FreeFileBlock{data_bytes}};
  source(result.block_.get(), data_bytes);
  for (size_t i = 0; i < result.entries_.size(); ++i) {
    SafeTensor& t = result.entries_[i];
    t.data = result.block_.get() + reader.entries[i].offsets[0];
    check_bools(t, report);
    result.index_.emplace(t.name, i);
  }
  result.metadata_ = std::move(reader.metadata);
  return result;
}

SafeTensors SafeTensors::read(const std::string& path, Location where) {
  InputFile file(path, where);
  return load([&](void* to, int64_t nbytes) { file.read(to, nbytes); }, file.size(), path, where);
}

SafeTensors SafeTensors::parse(ByteSpan bytes, const std::string& name, Location where) {
  size_t at = 0;
  const auto source = [&](void* to, int64_t nbytes) {
    if (nbytes > 0) std::memcpy(to, bytes.data() + at, static_cast<size_t>(nbytes));
    at += static_cast<size_t>(nbytes);
  };
  return load(source, static_cast<int64_t>(bytes.size()), name, where);
}

const SafeTensor* SafeTensors::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it != index_.end() ? &entries_[it->second] : nullptr;
}

void write_safetensors(const std::string& path, std::span<const SafeTensor> entries,
                       const std::map<std::string, std::string>& metadata, Location where) {
  const auto refuse = [&](const std::string& message) {
    fail("save_safetensors: \"" + path + "\": " + message, where);
  };
  std::vector<const SafeTensor*> order;
  for (const SafeTensor& t : entries) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](const SafeTensor* a, const SafeTensor* b) {
    return itemsize(a->dtype) > itemsize(b->dtype);
  });

  std::string header = "{";
  if (!metadata.empty()) {
    size_t metadata_bytes = 0;
    header += '"' + std::string(kMetadataKey) + "\":{";
    for (const auto& [key, value] : metadata) {
      metadata_bytes += key.size() + value.size();
      if (key.size() > kMaxNameBytes || metadata_bytes > kMaxMetadataBytes)
        refuse("the metadata is too long at " + in_quotes(key));
      header += json_text(key, path, where) + ':' + json_text(value, path, where) + ',';
    }
    header.back() = '}';
    header += ',';
  }
  std::set<std::string> names{kMetadataKey};
  std::vector<ByteSpan> pieces(2);
  int64_t offset = 0;
  for (const SafeTensor* t : order) {
    if (t->name.size() > kMaxNameBytes) refuse("the name " + in_quotes(t->name) + " is too long");
    if (!names.insert(t->name).second) refuse("the name " + in_quotes(t->name) + " is taken");
    const int64_t nbytes =
        checked_mul(checked_numel(t->sizes, where), itemsize(t->dtype), "size in bytes", where);
    const int64_t end = checked_add(offset, nbytes, "size of the file", where);
    if (nbytes > 0 && t->data == nullptr) refuse("tensor " + in_quotes(t->name) + " has no data");
    header += json_text(t->name, path, where) + ":{\"dtype\":\"" + type_name(t->dtype) + "\",\"shape\":[";
    for (int i = 0; i < t->sizes.rank(); ++i) {
      if (i > 0) header += ',';
      header += std::to_string(t->sizes[i]);
    }
    header += "],\"data_offsets\":[" + std::to_string(offset) + ',' + std::to_string(end) + "]},";
    if (nbytes > 0) pieces.push_back({static_cast<const std::byte*>(t->data), static_cast<size_t>(nbytes)});
    offset = end;
  }
  if (header.back() == ',') header.pop_back();
  header += '}';
  header.resize((header.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  if (header.size() > static_cast<size_t>(kMaxHeaderBytes))
    refuse("there are too many tensors for one header");

  std::string length(kLengthBytes, '\0');
  for (int i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  pieces[0] = bytes_of(length);
  pieces[1] = bytes_of(header);
  write_file_atomic(path, pieces, where);
}

}  // namespace tandem::core
