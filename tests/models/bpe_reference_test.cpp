// The tokens of Hugging Face's tokenizers: a few frozen ones, and 2,000 texts where Python has the library.
#include <random>

#include "tandem/jit/child_process.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/models/trained_bpe.h"

using samples::Bpe;
using tandem::test::trained_vocabulary;

namespace {

void append_utf8(std::string& text, uint32_t point) {
  if (point < 0x80) return text += static_cast<char>(point), void();
  std::string rest;
  uint32_t first_bits = 0x3f;  // what still fits beside the length into the first byte
  while (point > first_bits) {
    rest.insert(rest.begin(), static_cast<char>(0x80 | (point & 0x3f)));
    point >>= 6, first_bits >>= 1;
  }
  text += static_cast<char>((~first_bits << 1 & 0xff) | point);
  text += rest;
}

/// Texts that are hard to split: words, apostrophes and white space of all kinds, letters of many scripts,
/// marks, emoji, and any assigned or unassigned character of the first planes.
std::string hard_text(std::mt19937& random) {
  static const std::vector<uint32_t> kSpaces = {' ',    ' ',    '\n',   '\t',   '\r',   0xb,    0xc,
                                                0x85,   0xa0,   0x1680, 0x180e, 0x2003, 0x200b, 0x2028,
                                                0x2029, 0x202f, 0x205f, 0x3000, 0xfeff, 0x1c,   0x1f};
  static const std::vector<const char*> kWords = {"the", " the", "king", "'s",  "'t",           "'re",
                                                  "'LL", "n't",  "12",   "3.5", "<|end",        "of",
                                                  "Sir", "--",   "?!",   " a",  "<|endoftext|>"};
  static const std::vector<std::pair<uint32_t, uint32_t>> kRanges = {
      {0x20, 0x7e},     {0xa1, 0x17f},      {0x300, 0x36f},     {0x370, 0x5ff},     {0x900, 0x97f},
      {0x1e00, 0x1fff}, {0x2000, 0x2bff},   {0x3040, 0x30ff},   {0x4e00, 0x9fff},   {0xac00, 0xd7a3},
      {0xff00, 0xffef}, {0x1d400, 0x1d7ff}, {0x1f300, 0x1faff}, {0x20000, 0x2a6df}, {0xe000, 0xe100}};
  std::string text;
  for (uint32_t n = random() % 24; n-- > 0;) {
    const uint32_t kind = random() % 4;
    if (kind == 0) {
      append_utf8(text, kSpaces[random() % kSpaces.size()]);
    } else if (kind == 1) {
      text += kWords[random() % kWords.size()];
    } else {
      const auto [low, high] = kRanges[random() % kRanges.size()];
      for (uint32_t k = 1 + random() % 3; k-- > 0;) append_utf8(text, low + random() % (high - low + 1));
    }
  }
  return text;
}

}  // namespace

TEST_CASE("2,000 hard texts have the tokens of Hugging Face's library", "[bpe]") {
  if (std::string(TANDEM_TOKENIZERS_PYTHON).empty() || !Bpe::available()) {
    std::puts(
        "SKIPPED: no PCRE2, or no Python here has tokenizers (pip install, then TANDEM_TOKENIZERS_PYTHON)");
    return;
  }
  ScratchFolder folder;
  const Bpe::Vocabulary vocabulary = trained_vocabulary();
  tandem::test::write_vocabulary(vocabulary, folder.path());
  std::mt19937 random(7);
  std::vector<std::string> texts;
  for (int i = 0; i < 2000; ++i) texts.push_back(hard_text(random));
  folder.put("texts.json", nlohmann::json(texts).dump());
  const std::string script = std::string(TANDEM_SOURCE_DIR) + "/tests/models/encode_texts.py";
  const tandem::jit::ChildResult r =
      tandem::jit::run_child({TANDEM_TOKENIZERS_PYTHON, script, folder.path()}, folder.path(), 60'000);
  INFO(r.failure << '\n' << r.output);
  REQUIRE(r.ok);
  const auto theirs = nlohmann::json::parse(tandem::core::read_file(folder / "ids.json"))
                          .get<std::vector<std::vector<int64_t>>>();
  REQUIRE(theirs.size() == texts.size());
  const Bpe ours = Bpe::load(folder / "tokenizer.json");  // as their library wrote it
  const Bpe direct(vocabulary);
  int different = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (ours.encode(texts[i]) != theirs[i]) {
      ++different;
      UNSCOPED_INFO(nlohmann::json(texts[i]).dump() << "\n  ours   " << nlohmann::json(ours.encode(texts[i]))
                                                    << "\n  theirs " << nlohmann::json(theirs[i]));
    }
    REQUIRE(direct.encode(texts[i]) == ours.encode(texts[i]));
    REQUIRE(ours.decode(theirs[i]) == texts[i]);
  }
  CHECK(different == 0);
}
