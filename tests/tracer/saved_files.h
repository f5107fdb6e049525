// Files of saved functions, changed: with a digest that fits, so that what is behind it is tested. Free
// functions; any thread.
#pragma once

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/io/safetensors.h"
#include "tandem/jit/sha256.h"
#include "tests/catch.h"

namespace saved_test {

namespace td = tandem;

/// Entries with their bytes, and what stands beside them.
using Entries = std::vector<std::pair<td::core::SafeTensor, std::string>>;
using Metadata = std::map<std::string, std::string>;

inline Entries entries_of(const td::core::SafeTensors& file) {
  Entries entries;
  for (const td::core::SafeTensor& e : file.entries())
    entries.emplace_back(
        e, e.nbytes() ? std::string(static_cast<const char*>(e.data), static_cast<size_t>(e.nbytes())) : "");
  return entries;
}

/// The bytes of a file of these, with a digest that fits. (Not by the library's writer, which waits for the
/// disk.)
inline std::string file_bytes(Entries entries, Metadata metadata) {
  std::sort(entries.begin(), entries.end(), [](auto& a, auto& b) { return a.first.name < b.first.name; });
  td::jit::Sha256 hash;
  std::string header, data;
  for (auto& [e, bytes] : entries) {
    if (e.name == "function") e.sizes = {static_cast<int64_t>(bytes.size())};
    hash.update(e.name + '\n' + td::name(e.dtype) + td::to_string(e.sizes) + '\n');
    hash.update(bytes);
    const std::map<td::DType, std::string> codes = {{td::DType::float32, "F32"},
                                                    {td::DType::int64, "I64"},
                                                    {td::DType::uint8, "U8"},
                                                    {td::DType::bool_, "BOOL"}};
    header += ",\"" + e.name + "\":{\"dtype\":\"" + codes.at(e.dtype) + "\",\"shape\":[";
    for (int i = 0; i < e.sizes.rank(); ++i) header += (i ? "," : "") + std::to_string(e.sizes[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
    data += bytes;
    header += std::to_string(data.size()) + "]}";
  }
  metadata["tandem.digest"] = td::jit::hex(hash.finish());
  std::string pairs;
  for (const auto& [key, value] : metadata)
    pairs += (pairs.empty() ? "\"" : ",\"") + key + "\":\"" + value + "\"";
  header = "{\"__metadata__\":{" + pairs + "}" + header + "}";
  while (header.size() % 8) header += ' ';
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  return length + header + data;
}

/// A file of the same entries and metadata after a change.
template <class F>
void change_file(const std::string& from, const std::string& to, F change) {
  const td::core::SafeTensors file = td::core::SafeTensors::read(from);
  Entries entries = entries_of(file);
  Metadata metadata = file.metadata();
  change(entries, metadata);
  std::ofstream(to, std::ios::binary) << file_bytes(std::move(entries), std::move(metadata));
}

inline std::string& text_of(Entries& entries) {
  for (auto& [e, bytes] : entries)
    if (e.name == "function") return bytes;
  throw std::runtime_error("no description");
}

/// Replaces the first `from`.
inline void replace(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
}

}  // namespace saved_test
