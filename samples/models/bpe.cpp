// The joining keeps a piece's parts as a list and the pairs that may be joined in a heap, by rank and place:
// a piece of n bytes takes n log n steps, whatever it holds.
#include "samples/models/bpe.h"

#include <algorithm>
#include <array>
#include <queue>
#include <tuple>
#include <unordered_map>

#include "tandem/core/error.h"

#if TANDEM_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

namespace samples {

using tandem::fail;
using tandem::Location;

namespace {

constexpr int32_t kNone = -1;
constexpr const char* kNoPcre2 = ": this build has no PCRE2, which splits texts (Debian: libpcre2-dev)";

/// The code points of GPT-2's alphabet, by byte: printable bytes stand for themselves, the others for those
/// from 256 on, one after another.
const std::array<uint32_t, 256>& alphabet() {
  static const std::array<uint32_t, 256> all = [] {
    std::array<uint32_t, 256> points{};
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      points[b] = printable ? b : next++;
    }
    return points;
  }();
  return all;
}

/// The bytes that a text in the alphabet stands for; false if it has other characters.
bool bytes_of(const std::string& text, std::string& bytes) {
  static const std::unordered_map<std::string, char> byte_of = [] {
    std::unordered_map<std::string, char> all;
    for (int b = 0; b < 256; ++b) all[Bpe::letter(static_cast<uint8_t>(b))] = static_cast<char>(b);
    return all;
  }();
  bytes.clear();
  for (size_t i = 0; i < text.size();) {
    const size_t n = static_cast<uint8_t>(text[i]) < 0x80 ? 1 : 2;  // the alphabet ends below U+0800
    const auto at = byte_of.find(text.substr(i, n));
    if (at == byte_of.end()) return false;
    bytes += at->second;
    i += n;
  }
  return true;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

#if TANDEM_HAVE_PCRE2
/// GPT-2's pattern, its \s written out as Unicode's White_Space: PCRE2's also has U+180E.
#define TANDEM_SPACE "\\t-\\r\\x{85}\\p{Z}"
constexpr const char* kPattern =
    "'s|'t|'re|'ve|'m|'ll|'d"
    "| ?\\p{L}+| ?\\p{N}+| ?[^" TANDEM_SPACE
    "\\p{L}\\p{N}]+"
    "|[" TANDEM_SPACE "]+(?![^" TANDEM_SPACE "])|[" TANDEM_SPACE "]+";
#undef TANDEM_SPACE

/// Bytes of the UTF-8 character that begins at `i`; 0 if none does (Unicode Standard, table 3-7).
size_t character_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return i + k < text.size() ? static_cast<uint8_t>(text[i + k]) : 0; };
  const auto follows = [&](size_t k, int low = 0x80, int high = 0xbf) {
    return byte(k) >= low && byte(k) <= high;
  };
  const int first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xc2) return 0;
  if (first < 0xe0) return follows(1) ? 2 : 0;
  if (first < 0xf0)
    return follows(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && follows(2) ? 3 : 0;
  if (first < 0xf5)
    return follows(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && follows(2) && follows(3)
               ? 4
               : 0;
  return 0;
}

class Pattern {
 public:
  Pattern() {
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    TANDEM_INTERNAL(code_ != nullptr, "PCRE2 does not compile the pattern: " + std::to_string(error));
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);  // where it cannot, matching is slower
  }
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  /// Calls take(piece) for the pieces of a text, one after another; together they are the text. What is UTF-8
  /// and what is not are split apart first: PCRE2 would look through the rest of the text for every piece.
  template <class Take>
  void split(std::string_view text, Take&& take) const {
    const Data data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    for (size_t begin = 0, end = 0; begin < text.size(); begin = end) {
      while (const size_t n = end < text.size() ? character_at(text, end) : 0) end += n;
      split_utf8(text.substr(begin, end - begin), data, take);
      begin = end;
      while (end < text.size() && character_at(text, end) == 0) ++end;
      if (end > begin) take(text.substr(begin, end - begin));
    }
  }

 private:
  using Data = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

  template <class Take>
  void split_utf8(std::string_view text, const Data& data, Take&& take) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    for (size_t done = 0; done < text.size();) {
      const int found =
          pcre2_match(code_, subject, text.size(), done, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
      const PCRE2_SIZE* const range = pcre2_get_ovector_pointer(data.get());
      TANDEM_INTERNAL(found > 0 && range[0] == done && range[1] > done,
                      "PCRE2 splits no piece off a text: its result is " + std::to_string(found));
      take(text.substr(done, range[1] - done));
      done = range[1];
    }
  }

  pcre2_code* code_ = nullptr;
};
#else
class Pattern {
 public:
  template <class Take>
  void split(std::string_view, Take&&) const {
    fail(std::string("Bpe") + kNoPcre2);
  }
};
#endif

}  // namespace

struct Bpe::Tables {
  struct Merge {
    int32_t rank, joined;
  };
  std::string name;
  std::unordered_map<std::string, int32_t> ids;  // by bytes
  std::unordered_map<int32_t, std::string> bytes;
  std::array<int32_t, 256> byte_ids{};
  std::unordered_map<uint64_t, Merge> merges;
  std::vector<std::pair<std::string, int32_t>> special;  // the longest first
  int64_t size = 0;
  Pattern pattern;

  void add_token(const std::string& bytes, int64_t id, const std::string& shown, Location where);
  void join(std::string_view piece, std::vector<int64_t>& out) const;
  void encode_text(std::string_view text, std::vector<int64_t>& out) const;
};

void Bpe::Tables::add_token(const std::string& text, int64_t id, const std::string& shown, Location where) {
  const auto narrow = static_cast<int32_t>(id);
  if (id < 0 || narrow != id)
    fail(name + ": the token \"" + shown + "\" has the number " + std::to_string(id), where);
  if (!bytes.emplace(narrow, text).second)
    fail(name + ": two tokens have the number " + std::to_string(id) + ", one is \"" + shown + "\"", where);
  size = std::max(size, id + 1);
}

void Bpe::Tables::join(std::string_view piece, std::vector<int64_t>& out) const {
  if (piece.size() > INT32_MAX) fail("Bpe: a piece of the text has more than 2^31 bytes");
  struct Part {
    int32_t id, before, after;  // places of its neighbours; a part that was joined to another has id kNone
  };
  const auto n = static_cast<int32_t>(piece.size());
  std::vector<Part> parts;
  parts.reserve(piece.size());
  for (int32_t i = 0; i < n; ++i)
    parts.push_back(
        {byte_ids[static_cast<uint8_t>(piece[static_cast<size_t>(i)])], i - 1, i + 1 < n ? i + 1 : kNone});
  const auto part = [&](int32_t i) -> Part& { return parts[static_cast<size_t>(i)]; };

  using Candidate = std::tuple<int32_t, int32_t, int32_t, int32_t, int32_t>;  // rank, place, pair, joined
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto consider = [&](int32_t i) {
    if (i == kNone || part(i).after == kNone) return;
    const int32_t left = part(i).id, right = part(part(i).after).id;
    const auto merge = merges.find(pair_key(left, right));
    if (merge != merges.end()) candidates.emplace(merge->second.rank, i, left, right, merge->second.joined);
  };
  for (int32_t i = 0; i + 1 < n; ++i) consider(i);
  while (!candidates.empty()) {
    const auto [rank, i, left, right, joined] = candidates.top();
    candidates.pop();
    const int32_t next = part(i).after;
    if (part(i).id != left || next == kNone || part(next).id != right) continue;  // one of them is gone
    part(i) = {joined, part(i).before, part(next).after};
    part(next).id = kNone;
    if (part(i).after != kNone) part(part(i).after).before = i;
    consider(part(i).before);
    consider(i);
  }
  for (int32_t i = 0; i != kNone; i = part(i).after) out.push_back(part(i).id);
}

void Bpe::Tables::encode_text(std::string_view text, std::vector<int64_t>& out) const {
  constexpr size_t kLongest = 64, kMost = size_t{1} << 16;
  std::unordered_map<std::string_view, std::vector<int64_t>> known;  // most pieces of a text are few words
  pattern.split(text, [&](std::string_view piece) {
    if (piece.size() > kLongest) return join(piece, out);
    auto at = known.find(piece);
    if (at == known.end()) {
      if (known.size() >= kMost) known.clear();
      at = known.emplace(piece, std::vector<int64_t>()).first;
      join(piece, at->second);
    }
    out.insert(out.end(), at->second.begin(), at->second.end());
  });
}

Bpe::Bpe(const Vocabulary& vocabulary, const std::string& name, Location where) {
  if (!available()) fail(name + kNoPcre2, where);
  const auto tables = std::make_shared<Tables>();
  Tables& t = *tables;
  t.name = name;
  std::string bytes;
  for (const auto& [text, id] : vocabulary.tokens) {
    const bool is_special = std::any_of(vocabulary.special.begin(), vocabulary.special.end(),
                                        [&, &token = text](const auto& s) { return s.first == token; });
    if (is_special) continue;  // not bytes in the alphabet
    if (!bytes_of(text, bytes))
      fail(name + ": the token \"" + text + "\" has characters that stand for no byte", where);
    t.add_token(bytes, id, text, where);
    if (!t.ids.emplace(bytes, static_cast<int32_t>(id)).second)
      fail(name + ": the token \"" + text + "\" is there twice", where);
  }
  for (int b = 0; b < 256; ++b) {
    const auto at = t.ids.find(std::string(1, static_cast<char>(b)));
    if (at == t.ids.end()) fail(name + ": no token stands for the byte " + std::to_string(b), where);
    t.byte_ids[static_cast<size_t>(b)] = at->second;
  }
  const auto id_of = [&](const std::string& text) {
    const auto at = bytes_of(text, bytes) ? t.ids.find(bytes) : t.ids.end();
    if (at == t.ids.end()) fail(name + ": \"" + text + "\", of the merges, is no token", where);
    return at->second;
  };
  int32_t rank = 0;
  for (const auto& [left, right] : vocabulary.merges) {
    const int32_t l = id_of(left), r = id_of(right);
    t.merges[pair_key(l, r)] = {rank++, id_of(left + right)};  // the last of two counts, as in Hugging Face's
  }
  for (const auto& [text, id] : vocabulary.special) {
    if (text.empty()) fail(name + ": a special token is empty", where);
    t.add_token(text, id, text, where);
    t.special.emplace_back(text, static_cast<int32_t>(id));
  }
  std::stable_sort(t.special.begin(), t.special.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  tables_ = tables;
}

bool Bpe::available() {
#if TANDEM_HAVE_PCRE2
  return true;
#else
  return false;
#endif
}

std::vector<std::string_view> Bpe::pieces(std::string_view text) {
  std::vector<std::string_view> all;
  Pattern().split(text, [&](std::string_view piece) { all.push_back(piece); });
  return all;
}

std::vector<int64_t> Bpe::encode(std::string_view text, bool special) const {
  const Tables& t = *tables_;
  std::vector<int64_t> out;
  // Where each special token is found next: the first place counts, of several there the longest token.
  std::vector<size_t> next(special ? t.special.size() : 0, 0);
  const auto look = [&](size_t s, size_t from) { next[s] = text.find(t.special[s].first, from); };
  for (size_t s = 0; s < next.size(); ++s) look(s, 0);
  size_t done = 0;
  for (;;) {
    const auto first = std::min_element(next.begin(), next.end());
    const size_t at = first == next.end() ? std::string_view::npos : *first;
    if (at == std::string_view::npos) break;
    const auto& [token, id] = t.special[static_cast<size_t>(first - next.begin())];
    t.encode_text(text.substr(done, at - done), out);
    out.push_back(id);
    done = at + token.size();
    for (size_t s = 0; s < next.size(); ++s)
      if (next[s] < done) look(s, done);
  }
  t.encode_text(text.substr(done), out);
  return out;
}

std::string Bpe::decode(std::span<const int64_t> ids, Location where) const {
  std::string text;
  for (const int64_t id : ids) {
    const auto narrow = static_cast<int32_t>(id);
    const auto at = narrow == id ? tables_->bytes.find(narrow) : tables_->bytes.end();
    if (at == tables_->bytes.end()) fail("Bpe: decode: " + std::to_string(id) + " is no token", where);
    text += at->second;
  }
  return text;
}

int64_t Bpe::size() const { return tables_->size; }

int64_t Bpe::special(const std::string& text, Location where) const {
  for (const auto& [token, id] : tables_->special)
    if (token == text) return id;
  fail(tables_->name + ": there is no special token \"" + text + '"', where);
}

std::string Bpe::letter(uint8_t byte) {
  const uint32_t point = alphabet()[byte];
  if (point < 0x80) return {static_cast<char>(point)};
  return {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))};
}

}  // namespace samples
