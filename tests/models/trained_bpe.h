// A small vocabulary, made by the tests themselves from samples/data/shakespeare.txt: the bytes, 300 merges
// of the pairs that are most frequent, and one special token. Values.
#pragma once

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "samples/models/bpe.h"
#include "tandem/core/io/file.h"

namespace tandem::test {

/// Each merge joins the pair that occurs most often in the words, of several the first in the order of their
/// texts.
inline samples::Bpe::Vocabulary trained_vocabulary(int merges = 300) {
  samples::Bpe::Vocabulary v;
  for (int b = 0; b < 256; ++b) v.tokens.emplace_back(samples::Bpe::letter(static_cast<uint8_t>(b)), b);
  const std::string text = core::read_file(std::string(TANDEM_SOURCE_DIR) + "/samples/data/shakespeare.txt");
  std::map<std::string_view, int> pieces;
  for (const std::string_view piece : samples::Bpe::pieces(text)) ++pieces[piece];
  std::vector<std::pair<std::vector<std::string>, int>> words;  // letters, how often
  for (const auto& [piece, count] : pieces) {
    std::vector<std::string> letters;
    for (const char c : piece) letters.push_back(samples::Bpe::letter(static_cast<uint8_t>(c)));
    words.emplace_back(std::move(letters), count);
  }
  for (int m = 0; m < merges; ++m) {
    std::map<std::pair<std::string, std::string>, int> pairs;
    for (const auto& [parts, count] : words)
      for (size_t i = 0; i + 1 < parts.size(); ++i) pairs[{parts[i], parts[i + 1]}] += count;
    const auto best = std::max_element(pairs.begin(), pairs.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    const auto [left, right] = best->first;
    for (auto& [parts, count] : words)
      for (size_t i = 0; i + 1 < parts.size(); ++i)
        if (parts[i] == left && parts[i + 1] == right) {
          parts[i] += right;
          parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
    v.merges.emplace_back(left, right);
    v.tokens.emplace_back(left + right, 256 + m);
  }
  v.special.emplace_back("<|endoftext|>", 256 + merges);
  return v;
}

/// vocab.json and merges.txt, as GPT-2's.
inline void write_vocabulary(const samples::Bpe::Vocabulary& v, const std::string& folder) {
  nlohmann::json tokens = nlohmann::json::object();
  for (const auto* list : {&v.tokens, &v.special})
    for (const auto& [text, id] : *list) tokens[text] = id;
  std::ofstream(folder + "/vocab.json") << tokens.dump();
  std::ofstream merges(folder + "/merges.txt");
  merges << "#version: 0.2\n";
  for (const auto& [left, right] : v.merges) merges << left << ' ' << right << '\n';
}

}  // namespace tandem::test
