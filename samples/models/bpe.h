// Byte-level byte-pair encoding, GPT-2's tokens ("Language Models are Unsupervised Multitask Learners",
// Radford et al., 2019), with Hugging Face's files and results. A text is split into pieces by a pattern
// (PCRE2; a build without it has no Bpe), and the bytes of a piece are joined pair by pair, the pair of the
// lowest rank first. A Bpe is immutable: any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tandem/core/location.h"

namespace samples {

class Bpe {
 public:
  /// What files hold. Tokens and merges are written in GPT-2's alphabet, which has a printable character for
  /// each byte. Special tokens are written as they are.
  struct Vocabulary {
    std::vector<std::pair<std::string, int64_t>> tokens;
    std::vector<std::pair<std::string, std::string>> merges;  // the first has the lowest rank
    std::vector<std::pair<std::string, int64_t>> special;
  };
  /// `name` stands in messages for a file. Errors: bytes without a token, two tokens with one text or number,
  /// negative numbers, merges of or into what is no token.
  explicit Bpe(const Vocabulary& vocabulary, const std::string& name = "Bpe",
               tandem::Location where = tandem::Location::here());

  /// A tokenizer.json, or a folder that holds one or vocab.json and merges.txt; "<|endoftext|>" is the
  /// special token of the latter, if it is a token. Errors, naming the file: what is damaged, and a
  /// tokenizer.json that does more than GPT-2's (another model or pattern, normalisation, a prefix space,
  /// dropout, tokens that are stripped or whole words).
  static Bpe load(const std::string& path, tandem::Location where = tandem::Location::here());
  /// Whether this build has PCRE2.
  static bool available();

  /// The tokens of a text, whatever bytes it has; those that are not UTF-8 are pieces of their own. Special
  /// tokens are found in the text unless `special` is false: then they are text as any other.
  std::vector<int64_t> encode(std::string_view text, bool special = true) const;
  /// The bytes of tokens. Errors: numbers that are no token.
  std::string decode(std::span<const int64_t> ids, tandem::Location where = tandem::Location::here()) const;

  /// The pieces of a text that are encoded each by itself; together they are the text. Special tokens are
  /// text here.
  static std::vector<std::string_view> pieces(std::string_view text);

  /// One more than the largest number of a token.
  int64_t size() const;
  /// The number of a special token. Errors: there is none of that name.
  int64_t special(const std::string& text, tandem::Location where = tandem::Location::here()) const;

  /// GPT-2's alphabet: the character (UTF-8) that stands for a byte.
  static std::string letter(uint8_t byte);

 private:
  struct Tables;
  std::shared_ptr<const Tables> tables_;
};

}  // namespace samples
