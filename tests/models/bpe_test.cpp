// Byte-level BPE: how texts are split, which pairs are joined, round trips of any bytes, and files.
#include "samples/models/bpe.h"

#include <random>
#include <set>
#include <tuple>

#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"
#include "tests/models/trained_bpe.h"

using samples::Bpe;
using tandem::test::message;
using tandem::test::trained_vocabulary;
using tandem::test::write_vocabulary;

namespace {

using Ids = std::vector<int64_t>;
using Pieces = std::vector<std::string>;

Pieces pieces(std::string_view text) {
  Pieces all;
  for (const std::string_view piece : Bpe::pieces(text)) all.emplace_back(piece);
  return all;
}

/// The bytes, numbered as they are, and `merges`, numbered from 256 on.
Bpe::Vocabulary bytes_and(std::initializer_list<std::pair<std::string, std::string>> merges) {
  Bpe::Vocabulary v;
  for (int b = 0; b < 256; ++b) v.tokens.emplace_back(Bpe::letter(static_cast<uint8_t>(b)), b);
  for (const auto& [left, right] : merges) {
    v.tokens.emplace_back(left + right, 256 + static_cast<int64_t>(v.merges.size()));
    v.merges.emplace_back(left, right);
  }
  return v;
}

/// False, and a line that says so, where the build has no PCRE2.
bool have_bpe() {
  if (!Bpe::available()) {
    CHECK(message([] { Bpe(bytes_and({})); }).find("Bpe: this build has no PCRE2") == 0);
    std::puts("SKIPPED: this build has no PCRE2");
  }
  return Bpe::available();
}

}  // namespace

TEST_CASE("the alphabet has a character for each byte", "[bpe]") {
  CHECK(Bpe::letter('a') == "a");
  CHECK(Bpe::letter('!') == "!");
  CHECK(Bpe::letter('~') == "~");
  CHECK(Bpe::letter(' ') == "\xc4\xa0");   // U+0120, as files show spaces
  CHECK(Bpe::letter('\n') == "\xc4\x8a");  // U+010A
  CHECK(Bpe::letter(0) == "\xc4\x80");     // U+0100, the first of those that do not stand for themselves
  CHECK(Bpe::letter(0x7f) == "\xc4\xa1");  // U+0121, the 34th
  CHECK(Bpe::letter(0xa0) == "\xc5\x82");  // U+0142
  CHECK(Bpe::letter(0xad) == "\xc5\x83");  // U+0143, the last
  CHECK(Bpe::letter(0xff) == "\xc3\xbf");
  std::set<std::string> all;
  for (int b = 0; b < 256; ++b) all.insert(Bpe::letter(static_cast<uint8_t>(b)));
  CHECK(all.size() == 256);
}

TEST_CASE("a text is split as GPT-2's pattern says", "[bpe]") {
  if (!have_bpe()) return;
  CHECK(pieces("").empty());
  CHECK(pieces("Hello world") == Pieces{"Hello", " world"});
  CHECK(pieces("I'm  fine, they'll've") == Pieces{"I", "'m", " ", " fine", ",", " they", "'ll", "'ve"});
  CHECK(pieces("I'M") == Pieces{"I", "'", "M"});  // small letters alone
  CHECK(pieces("x 's") == Pieces{"x", " '", "s"});
  CHECK(pieces("a1b22 333") == Pieces{"a", "1", "b", "22", " 333"});
  CHECK(pieces("a   b\n") == Pieces{"a", "  ", " b", "\n"});
  CHECK(pieces("x \n\n y  ") == Pieces{"x", " \n\n", " y", "  "});
  CHECK(pieces("\t\tx") == Pieces{"\t", "\t", "x"});  // a tab is no space that a word could take
  CHECK(pieces(" ... !") == Pieces{" ...", " !"});
  CHECK(pieces("a\xc2\x85\xe2\x80\xa8z") == Pieces{"a", "\xc2\x85", "\xe2\x80\xa8", "z"});  // U+0085, U+2028
  CHECK(pieces("\xe3\x80\x80x") == Pieces{"\xe3\x80\x80", "x"});                            // U+3000
  CHECK(pieces("a\xe1\xa0\x8e!") == Pieces{"a", "\xe1\xa0\x8e!"});  // U+180E is no white space
  CHECK(pieces("\xe4\xbd\xa0\xe5\xa5\xbd 1\xc2\xbd") ==             // Chinese, a fraction
        Pieces{"\xe4\xbd\xa0\xe5\xa5\xbd", " 1\xc2\xbd"});
  CHECK(pieces("e\xcc\x81t\xc3\xa9") == Pieces{"e", "\xcc\x81", "t\xc3\xa9"});  // a mark is no letter
  const std::string family = "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9";    // two people and a joiner
  CHECK(pieces(family + "x") == Pieces{family, "x"});
}

TEST_CASE("bytes that are not UTF-8 are pieces of their own", "[bpe]") {
  if (!have_bpe()) return;
  CHECK(pieces("ab\xff\xfe cd") == Pieces{"ab", "\xff\xfe", " cd"});
  CHECK(pieces("ab \xff") == Pieces{"ab", " ", "\xff"});
  CHECK(pieces("\xc3") == Pieces{"\xc3"});
  CHECK(pieces("\xc0\xaf\xed\xa0\x80z") == Pieces{"\xc0\xaf\xed\xa0\x80", "z"});  // too long, a surrogate
  CHECK(pieces("\xf4\x90\x80\x80\xf4\x8f\xbf\xbf") ==                             // above U+10FFFF, and that
        Pieces{"\xf4\x90\x80\x80", "\xf4\x8f\xbf\xbf"});
  CHECK(pieces("\xe2\x82x\xe2\x82\xac") == Pieces{"\xe2\x82", "x", "\xe2\x82\xac"});
}

TEST_CASE("the pair of the lowest rank is joined first, of several the leftmost", "[bpe]") {
  if (!have_bpe()) return;
  const Bpe hello(bytes_and({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"\xc4\xa0", "w"}}));
  CHECK(hello.encode("hello world") == Ids{258, 'o', 259, 'o', 'r', 'l', 'd'});
  CHECK(hello.encode("hel llhe") == Ids{256, 'l', ' ', 257, 256});
  const Bpe a(bytes_and({{"a", "a"}}));
  CHECK(a.encode("aaa") == Ids{256, 'a'});
  CHECK(a.encode("aaaaa") == Ids{256, 256, 'a'});
  CHECK(Bpe(bytes_and({{"b", "c"}, {"a", "b"}})).encode("abcab") == Ids{'a', 256, 257});
  CHECK(Bpe(bytes_and({{"a", "b"}, {"b", "c"}})).encode("abcab") == Ids{256, 'c', 256});
  // "ab" comes into being next to "c" while "cd" waits with a lower rank than "ab c".
  CHECK(Bpe(bytes_and({{"a", "b"}, {"c", "d"}, {"ab", "c"}})).encode("abcd") == Ids{256, 257});
  CHECK(Bpe(bytes_and({{"a", "b"}, {"ab", "c"}, {"c", "d"}})).encode("abcd") == Ids{257, 'd'});
  CHECK(a.decode(Ids{256, 'b'}) == "aab");
  CHECK(message([&] { a.decode(Ids{257}); }).find("Bpe: decode: 257 is no token") == 0);
  CHECK(message([&] { a.decode(Ids{-1}); }).find("-1 is no token") != std::string::npos);
  CHECK(message([&] { a.decode(Ids{(int64_t{1} << 32) + 5}); }).find("is no token") != std::string::npos);
  CHECK(a.size() == 257);
}

TEST_CASE("special tokens are found, the longest of those that begin first", "[bpe]") {
  if (!have_bpe()) return;
  Bpe::Vocabulary v = bytes_and({{"a", "a"}});
  v.special = {{"<|end|>", 300}, {"<|end|>!", 302}, {"|>!", 301}};
  const Bpe bpe(v);
  CHECK(bpe.encode("aa<|end|>aa") == Ids{256, 300, 256});
  CHECK(bpe.encode("<|end|><|end|>!<|end|") == Ids{300, 302, '<', '|', 'e', 'n', 'd', '|'});
  CHECK(bpe.encode("d|>!") == Ids{'d', 301});
  CHECK(bpe.encode("<|end|>", false) == Ids{'<', '|', 'e', 'n', 'd', '|', '>'});
  CHECK(bpe.encode("a  <|end|>") == Ids{'a', ' ', ' ', 300});
  CHECK(bpe.decode(Ids{300, 256}) == "<|end|>aa");
  CHECK(bpe.special("|>!") == 301);
  CHECK(message([&] { bpe.special("x"); }).find("there is no special token \"x\"") != std::string::npos);
  CHECK(bpe.size() == 303);
}

TEST_CASE("texts have the tokens that Hugging Face's tokenizers 0.23 gave them", "[bpe]") {
  if (!have_bpe()) return;
  const Bpe bpe(trained_vocabulary());
  const std::vector<std::pair<std::string, Ids>> frozen = {
      {"The king is dead.", {308, 388, 310, 336, 408, 346, 46}},
      {"  To be, or not to be\n\nthat's",
       {32, 32, 425, 302, 44, 32, 272, 345, 289, 302, 10, 10, 116, 282, 344}},
      {"I'll, we've; they'RE 1603", {73, 470, 44, 318, 39, 296, 59, 383, 39, 82, 69, 32, 49, 54, 48, 51}},
      {"na\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 \xe2\x80\x9cquoted\xe2\x80\x9d",
       {110, 97, 195, 175, 296, 279, 97,  102, 195, 169, 32,  226, 128,
        148, 32, 226, 128, 156, 113, 117, 111, 116, 322, 226, 128, 157}},
      {"\xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c 12\xc2\xbd",
       {228, 189, 160, 229, 165, 189, 239, 188, 140, 228, 184, 150, 231, 149, 140, 32, 49, 50, 194, 189}},
      {"\t a\xc2\xa0\xe3\x80\x80"
       "b \n",
       {9, 259, 194, 160, 227, 128, 128, 98, 32, 10}},
      {"\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7!",
       {240, 159, 145, 168, 226, 128, 141, 240, 159, 145, 169, 226, 128, 141, 240, 159, 145, 167, 33}},
      {"e\xcc\x81 \xe1\xa0\x8e x", {101, 204, 129, 32, 225, 160, 142, 32, 120}},
      {"SPEAK<|endoftext|> speak", {83, 80, 69, 65, 75, 556, 551}},
      {"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d "
       "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87",
       {217, 133, 216, 177, 216, 173, 216, 168, 216, 167, 32,  215, 169, 215, 156, 215, 149, 215, 157,
        32,  224, 164, 168, 224, 164, 174, 224, 164, 184, 224, 165, 141, 224, 164, 164, 224, 165, 135}},
  };
  for (const auto& [text, ids] : frozen) {
    CAPTURE(text);
    CHECK(bpe.encode(text) == ids);
    CHECK(bpe.decode(ids) == text);
  }
}

TEST_CASE("any bytes come back", "[bpe]") {
  if (!have_bpe()) return;
  const Bpe bpe(trained_vocabulary());
  std::mt19937 random(1);
  size_t tokens = 0, bytes = 0;
  for (int i = 0; i < 10'000; ++i) {
    std::string text(random() % 60, '\0');
    // Bytes of any kind, or those that characters of several bytes and white space are made of.
    constexpr std::string_view kFrequent = " \n\t'sa1\xc3\xa9\xe2\x80\xa8\xf0\x9f\x91\xa8\xcc\x81";
    for (char& c : text) c = i % 2 ? static_cast<char>(random()) : kFrequent[random() % kFrequent.size()];
    const Ids ids = bpe.encode(text);
    REQUIRE(bpe.decode(ids) == text);
    tokens += ids.size(), bytes += text.size();
  }
  CHECK(tokens < bytes);
}

TEST_CASE("a long piece takes no longer than its length tells", "[bpe]") {
  if (!have_bpe()) return;
  const Bpe bpe(bytes_and({{"a", "a"}, {"aa", "aa"}, {"\xc4\xa0", "\xc4\xa0"}}));
  CHECK(bpe.encode(std::string(1 << 18, 'a')).size() == 1 << 16);
  CHECK(bpe.encode(std::string(1 << 18, ' ') + "x").size() == (1 << 17) + 2);  // the last is " x"'s
  std::string mixed;
  for (int i = 0; i < 1 << 16; ++i) mixed += "\xc3\xa9\xff ";
  CHECK(bpe.encode(mixed).size() == 1 << 18);
}

TEST_CASE("files of GPT-2's tokenizer are loaded", "[bpe]") {
  if (!have_bpe()) return;
  const Bpe::Vocabulary v = trained_vocabulary(40);
  const Bpe made(v);
  ScratchFolder folder;
  write_vocabulary(v, folder.path());
  const Bpe loaded = Bpe::load(folder.path());
  const std::string text = "Is this a dagger which I see before me?<|endoftext|>\nThe handle";
  CHECK(loaded.encode(text) == made.encode(text));
  CHECK(loaded.special("<|endoftext|>") == 296);
  CHECK(loaded.size() == 297);

  nlohmann::json t = {
      {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"byte_fallback", false}}},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
      {"normalizer", nullptr},
      {"added_tokens", {{{"id", 296}, {"content", "<|endoftext|>"}, {"lstrip", false}, {"special", true}}}}};
  for (const auto& [token, id] : v.tokens) t["model"]["vocab"][token] = id;
  for (const auto& [left, right] : v.merges) t["model"]["merges"].push_back(left + " " + right);
  const std::string path = folder.put("tokenizer.json", t.dump());
  CHECK(Bpe::load(path).encode(text) == made.encode(text));
  nlohmann::json pairs = nlohmann::json::array();
  for (const auto& [left, right] : v.merges) pairs.push_back({left, right});
  t["model"]["merges"] = pairs;
  folder.put("tokenizer.json", t.dump());
  CHECK(Bpe::load(folder.path()).encode(text) == made.encode(text));

  const auto refused = [&](const char* where, const nlohmann::json& value) {
    nlohmann::json changed = t;
    changed[nlohmann::json::json_pointer(where)] = value;
    return message([&] { Bpe::load(folder.put("changed.json", changed.dump())); });
  };
  for (const auto& [where, value, part] : std::vector<std::tuple<const char*, nlohmann::json, const char*>>{
           {"/model/type", "WordPiece", "the model is not BPE"},
           {"/model/dropout", 0.1, "the model has dropout"},
           {"/model/ignore_merges", true, "the model has ignore_merges"},
           {"/normalizer", {{"type", "NFC"}}, "texts are normalised"},
           {"/pre_tokenizer/add_prefix_space", true, "a space is put before each text"},
           {"/pre_tokenizer/use_regex", false, "not split by GPT-2's pattern"},
           {"/pre_tokenizer/type", "Whitespace", "not split by GPT-2's pattern"},
           {"/post_processor", {{"type", "TemplateProcessing"}}, "tokens are added to each text"},
           {"/added_tokens/0/lstrip", true, "\"<|endoftext|>\" has lstrip"},
           {"/added_tokens/0/id", "x", "lacks its content or its id"},
           {"/model/merges/3", 5, "merge 4: two tokens are expected"},
           {"/model/merges", 5, "the model has no list of merges"},
           {"/model/vocab", 5, "no object of tokens"},
           {"/model/vocab/a", 1.5, "the number of \"a\" is no whole number"},
           {"/model", 5, "there is no \"model\""}}) {
    CAPTURE(where);
    CHECK_THAT(refused(where, value), Contains(part) && Contains(folder / "changed.json"));
  }
}

TEST_CASE("damaged vocabularies are refused", "[bpe]") {
  if (!have_bpe()) return;
  ScratchFolder folder;
  const auto loading = [&](const std::string& tokens, const std::string& merges) {
    folder.put("vocab.json", tokens);
    folder.put("merges.txt", merges);
    return message([&] { Bpe::load(folder.path()); });
  };
  CHECK_THAT(message([&] { Bpe::load(folder.path()); }), Contains("holds neither tokenizer.json nor"));
  CHECK_THAT(message([&] { Bpe::load(folder / "none"); }), Contains("cannot open"));
  CHECK_THAT(loading("{", ""), Contains("vocab.json: not valid JSON"));
  CHECK_THAT(loading("[]", ""), Contains("no object of tokens"));
  CHECK_THAT(loading("{\"a\": 1, \"a\": 2}", ""), Contains("the key \"a\" appears twice"));
  CHECK_THAT(loading("{\"a\": 1}", ""), Contains("no token stands for the byte 0"));
  CHECK_THAT(loading("{\"a\": 1, \"b\": 1}", ""), Contains("two tokens have the number 1"));
  CHECK_THAT(loading("{\"a\": -1}", ""), Contains("\"a\" has the number -1"));
  CHECK_THAT(loading("{\"a\": 4294967297}", ""), Contains("\"a\" has the number 4294967297"));
  CHECK_THAT(loading("{\"a b\": 1}", ""), Contains("\"a b\" has characters that stand for no byte"));
  write_vocabulary(bytes_and({}), folder.path());
  const std::string tokens = tandem::core::read_file(folder / "vocab.json");
  CHECK_THAT(loading(tokens, "#version: 0.2\na b\n"), Contains("\"ab\", of the merges, is no token"));
  CHECK_THAT(loading(tokens, "#version: 0.2\nab c\n"), Contains("\"ab\", of the merges, is no token"));
  for (const char* line : {"a", "a ", " a", "a b c"})
    CHECK_THAT(loading(tokens, std::string("#version: 0.2\n") + line + "\n"),
               Contains("merges.txt, line 2: a merge is two tokens"));
  CHECK(loading(tokens, "") == "no error");
}

TEST_CASE("whatever bytes a vocabulary's files hold, they load or are refused", "[bpe]") {
  if (!have_bpe()) return;
  ScratchFolder folder;
  write_vocabulary(bytes_and({{"a", "b"}, {"ab", "c"}}), folder.path());
  nlohmann::json t = {{"model", {{"vocab", nlohmann::json::object()}, {"merges", {"a b"}}}},
                      {"pre_tokenizer", {{"type", "ByteLevel"}}},
                      {"added_tokens", {{{"id", 300}, {"content", "<|end|>"}}}}};
  for (const auto& [token, id] : bytes_and({{"a", "b"}}).tokens) t["model"]["vocab"][token] = id;
  const std::string files[] = {"vocab.json", "merges.txt", "tokenizer.json"};
  const std::string right[] = {tandem::core::read_file(folder / files[0]),
                               tandem::core::read_file(folder / files[1]), t.dump()};
  std::mt19937 random(11);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 450; ++i) {
    const size_t which = static_cast<size_t>(i % 3);
    std::string changed = right[which];
    for (uint32_t n = 1 + random() % 3; n-- > 0;) {
      const size_t at = random() % changed.size();
      constexpr std::string_view kFrequent = "\"{}[],:0-9eE\\ \n";
      if (random() % 4 == 0)
        changed.erase(at, random() % 40);
      else
        changed[at] = random() % 2 ? kFrequent[random() % kFrequent.size()] : static_cast<char>(random());
      if (changed.empty()) break;
    }
    const std::string name = std::to_string(i);  // writing over files waits for the disk
    std::filesystem::create_directory(folder / name);
    if (which < 2) folder.put(name + '/' + files[1 - which], right[1 - which]);
    folder.put(name + '/' + files[which], changed);
    const std::string told = message([&] { Bpe::load(folder / name); });
    REQUIRE((told == "no error" || told.find(folder.path()) != std::string::npos));
    ++(told == "no error" ? loaded : refused);
  }
  CHECK((loaded > 10 && refused > 100));
  folder.put("tokenizer.json", std::string(200'000, '['));
  CHECK_THAT(message([&] { Bpe::load(folder.path()); }), Contains("not valid JSON"));
}
