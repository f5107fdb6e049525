// A reader of TensorBoard's event files that shares nothing with the writer: records with their checksums
// (computed bit by bit), then protocol buffers' fields. Stops where a record is cut or damaged, as
// TensorBoard does. Free functions.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::test {

struct Field {
  int number = 0, kind = 0;
  uint64_t value = 0;  // of a varint or fixed field
  std::string_view bytes;

  double as_double() const {
    double d;
    return std::memcpy(&d, &value, sizeof d), d;
  }
  float as_float() const {
    const auto low = static_cast<uint32_t>(value);
    float f;
    return std::memcpy(&f, &low, sizeof f), f;
  }
};

inline uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

inline std::vector<Field> fields(std::string_view message) {
  const auto take = [&](size_t n) {
    if (n > message.size()) throw std::runtime_error("a message is cut");
    const std::string_view part = message.substr(0, n);
    message.remove_prefix(n);
    return part;
  };
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::runtime_error("a varint is too long");
  };
  std::vector<Field> all;
  while (!message.empty()) {
    const uint64_t key = varint();
    Field f{static_cast<int>(key >> 3), static_cast<int>(key & 7), 0, {}};
    if (f.kind == 0)
      f.value = varint();
    else if (f.kind == 1)
      f.value = little_endian(take(8));
    else if (f.kind == 5)
      f.value = little_endian(take(4));
    else if (f.kind == 2)
      f.bytes = take(varint());
    else
      throw std::runtime_error("a field has an unknown kind");
    all.push_back(f);
  }
  return all;
}

inline uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) * 0x82f63b78u);
  }
  return ~crc;
}

struct Records {
  std::vector<std::string_view> records;
  size_t whole = 0;  // bytes up to the end of the last whole record
};
inline Records records(std::string_view file) {
  const auto right = [](std::string_view bytes, std::string_view sum) {
    const uint32_t crc = slow_crc32c(bytes);
    return little_endian(sum) == static_cast<uint32_t>(((crc >> 15) | (crc << 17)) + 0xa282ead8u);
  };
  Records found;
  for (;;) {
    const std::string_view rest = file.substr(found.whole);
    if (rest.size() < 12 || !right(rest.substr(0, 8), rest.substr(8, 4))) return found;
    const uint64_t n = little_endian(rest.substr(0, 8));
    if (rest.size() < 16 || n > rest.size() - 16 || !right(rest.substr(12, n), rest.substr(12 + n, 4)))
      return found;
    found.records.push_back(rest.substr(12, n));
    found.whole += 16 + n;
  }
}

/// An event with at most one value.
struct Event {
  double walltime = 0;
  int64_t step = 0;
  std::string version, tag, plugin, text;
  int64_t session_status = 0;
  bool is_scalar = false, is_histogram = false;
  float scalar = 0;
  double min = 0, max = 0, num = 0, sum = 0, sum_squares = 0;
  std::vector<double> limits, counts;
};

inline std::vector<double> doubles(std::string_view packed) {
  std::vector<double> all(packed.size() / 8);
  std::memcpy(all.data(), packed.data(), all.size() * 8);
  return all;
}

inline void read_value(std::string_view value, Event& e) {
  for (const Field& f : fields(value)) {
    if (f.number == 1) e.tag = f.bytes;
    if (f.number == 2) e.is_scalar = true, e.scalar = f.as_float();
    if (f.number == 5) {
      e.is_histogram = true;
      for (const Field& h : fields(f.bytes)) {
        double* const numbers[] = {&e.min, &e.max, &e.num, &e.sum, &e.sum_squares};
        if (h.number <= 5) *numbers[h.number - 1] = h.as_double();
        if (h.number == 6) e.limits = doubles(h.bytes);
        if (h.number == 7) e.counts = doubles(h.bytes);
      }
    }
    if (f.number == 8)
      for (const Field& t : fields(f.bytes))
        if (t.number == 8) e.text = t.bytes;
    if (f.number == 9)
      for (const Field& m : fields(f.bytes))
        if (m.number == 1)
          for (const Field& p : fields(m.bytes))
            if (p.number == 1) e.plugin = p.bytes;
  }
}

inline std::vector<Event> events(std::string_view file) {
  std::vector<Event> all;
  for (const std::string_view record : records(file).records) {
    Event e;
    for (const Field& f : fields(record)) {
      if (f.number == 1) e.walltime = f.as_double();
      if (f.number == 2) e.step = static_cast<int64_t>(f.value);
      if (f.number == 3) e.version = f.bytes;
      if (f.number == 5)
        for (const Field& v : fields(f.bytes)) read_value(v.bytes, e);
      if (f.number == 7)
        for (const Field& s : fields(f.bytes)) e.session_status = static_cast<int64_t>(s.value);
    }
    all.push_back(e);
  }
  return all;
}

}  // namespace tandem::test
