// The files of Bpe::load. What they hold is checked here as far as it is a matter of JSON and of what
// GPT-2's tokenizer does; the rest in Bpe's constructor.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "samples/models/bpe.h"
#include "tandem/core/error.h"
#include "tandem/core/io/file.h"

namespace samples {

using tandem::fail;
using tandem::Location;

namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxBytes = int64_t{1} << 28;
constexpr const char* kEnd = "<|endoftext|>";

/// A file's JSON, its keys unique: a parsed tree would only have the last of two.
Json read_json(const std::string& path, Location where) {
  const std::string text = tandem::core::read_file(path, kMaxBytes, where);
  std::vector<std::set<std::string>> keys;
  const auto event = [&](int, Json::parse_event_t kind, Json& parsed) {
    if (kind == Json::parse_event_t::object_start) keys.emplace_back();
    if (kind == Json::parse_event_t::object_end) keys.pop_back();
    if (kind == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second)
      fail(path + ": the key " + parsed.dump() + " appears twice", where);
    return true;
  };
  try {
    return Json::parse(text, event);
  } catch (const Json::exception& e) {
    const std::string what = e.what();
    fail(path + ": not valid JSON: " + what.substr(what.find("] ") + 2, 200), where);
  }
}

/// {"token": number, ...}
void read_tokens(const Json& json, const std::string& path, Bpe::Vocabulary& to, Location where) {
  if (!json.is_object()) fail(path + ": the vocabulary is no object of tokens and their numbers", where);
  for (const auto& [token, id] : json.items()) {
    if (!id.is_number_integer()) fail(path + ": the number of \"" + token + "\" is no whole number", where);
    to.tokens.emplace_back(token, id.get<int64_t>());
  }
}

/// "left right"
void read_merge(const std::string& line, const std::string& at, Bpe::Vocabulary& to, Location where) {
  const size_t space = line.find(' ');
  if (space == 0 || space == std::string::npos || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string::npos)
    fail(at + ": a merge is two tokens with a space between them, not \"" + line.substr(0, 100) + '"', where);
  to.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
}

/// Lines of merges; those that begin with "#version" are comments. "#" alone may begin a token.
void read_merges(const std::string& path, Bpe::Vocabulary& to, Location where) {
  const std::string text = tandem::core::read_file(path, kMaxBytes, where);
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    read_merge(line, path + ", line " + std::to_string(number), to, where);
  }
}

/// Throws unless a part of tokenizer.json is as in GPT-2's file, or is not there.
void check_is(bool right, const std::string& path, const std::string& what, Location where) {
  if (!right) fail(path + ": " + what + "; only what GPT-2's tokenizer does is supported", where);
}
bool absent(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at == object.end() || at->is_null() || *at == "" || *at == false;
}
/// The value of a key; null if it is not there.
const Json& at_key(const Json& object, const char* key) {
  static const Json none;
  const auto at = object.is_object() ? object.find(key) : object.end();
  return at == object.end() ? none : *at;
}

void check_model(const Json& model, const std::string& path, Location where) {
  check_is(at_key(model, "type").is_null() || model["type"] == "BPE", path, "the model is not BPE", where);
  for (const char* key :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"})
    check_is(absent(model, key), path, std::string("the model has ") + key, where);
}

void check_rest(const Json& json, const std::string& path, Location where) {
  check_is(absent(json, "normalizer"), path, "texts are normalised", where);
  const Json& split = at_key(json, "pre_tokenizer");
  check_is(at_key(split, "type") == "ByteLevel" && at_key(split, "use_regex") != false, path,
           "texts are not split by GPT-2's pattern (pre_tokenizer)", where);
  check_is(absent(split, "add_prefix_space"), path, "a space is put before each text (add_prefix_space)",
           where);
  const Json& after = at_key(json, "post_processor");
  check_is(after.is_null() || at_key(after, "type") == "ByteLevel", path,
           "tokens are added to each text (post_processor)", where);
  const Json& decoder = at_key(json, "decoder");
  check_is(decoder.is_null() || at_key(decoder, "type") == "ByteLevel", path, "the decoder is not ByteLevel",
           where);
}

Bpe::Vocabulary read_tokenizer(const std::string& path, Location where) {
  const Json json = read_json(path, where);
  const Json& model = at_key(json, "model");
  if (!model.is_object()) fail(path + ": there is no \"model\"", where);
  check_model(model, path, where);
  check_rest(json, path, where);
  Bpe::Vocabulary v;
  read_tokens(at_key(model, "vocab"), path, v, where);
  const Json& merges = at_key(model, "merges");
  if (!merges.is_array()) fail(path + ": the model has no list of merges", where);
  for (size_t i = 0; i < merges.size(); ++i) {
    const Json& m = merges[i];
    const std::string at = path + ", merge " + std::to_string(i + 1);
    if (m.is_string())
      read_merge(m.get<std::string>(), at, v, where);
    else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string())
      v.merges.emplace_back(m[0].get<std::string>(), m[1].get<std::string>());
    else
      fail(at + ": two tokens are expected", where);
  }
  for (const Json& token : at_key(json, "added_tokens")) {
    const Json &text = at_key(token, "content"), &id = at_key(token, "id");
    if (!text.is_string() || !id.is_number_integer())
      fail(path + ": an added token lacks its content or its id", where);
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      check_is(absent(token, key), path, "the added token " + text.dump() + " has " + key, where);
    v.special.emplace_back(text.get<std::string>(), id.get<int64_t>());
  }
  return v;
}

}  // namespace

Bpe Bpe::load(const std::string& path, Location where) {
  namespace fs = std::filesystem;
  const fs::path folder = path;
  if (!fs::is_directory(folder)) return Bpe(read_tokenizer(path, where), path, where);
  if (fs::exists(folder / "tokenizer.json")) return load((folder / "tokenizer.json").string(), where);
  if (!fs::exists(folder / "vocab.json") || !fs::exists(folder / "merges.txt"))
    fail("Bpe: \"" + path + "\" holds neither tokenizer.json nor vocab.json and merges.txt", where);
  const std::string tokens = (folder / "vocab.json").string();
  Vocabulary v;
  read_tokens(read_json(tokens, where), tokens, v, where);
  read_merges((folder / "merges.txt").string(), v, where);
  for (const auto& [token, id] : v.tokens)
    if (token == kEnd) v.special.emplace_back(token, id);
  return Bpe(v, path, where);
}

}  // namespace samples
