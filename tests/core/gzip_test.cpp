#include "tandem/core/io/gzip.h"

#include <zlib.h>

#include <string>

#include "tandem/core/error.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

using namespace tandem;
using namespace tandem::core;

namespace {

std::string packed(const std::string& text) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string result(deflateBound(&z, text.size()) + 64, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(result.data());
  z.avail_out = static_cast<uInt>(result.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  result.resize(z.total_out);
  deflateEnd(&z);
  return result;
}

std::string sample(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += std::to_string(i % 1013 * 7919 % 1000) + ",";
  return text;
}

}  // namespace

TEST_CASE("plain and packed files give the same bytes", "[gzip]") {
  ScratchFolder folder;
  for (const std::string& text : {std::string(), std::string("a,b\n1,2\n"), sample(300'000)}) {
    folder.put("plain", text);
    CHECK(read_maybe_gzip(folder / "plain") == text);
    folder.put("packed", packed(text));
    CHECK(read_maybe_gzip(folder / "packed") == text);
    folder.put("twice", packed(text) + packed("tail"));
    CHECK(read_maybe_gzip(folder / "twice") == text + "tail");
  }
  folder.put("one", "\x1f");
  CHECK(read_maybe_gzip(folder / "one") == "\x1f");
}

TEST_CASE("every cut of a packed file is an error", "[gzip]") {
  ScratchFolder folder;
  const std::string bytes = packed(sample(50));
  for (size_t n = 2; n < bytes.size(); ++n) {
    folder.put("cut", bytes.substr(0, n));
    CHECK_THROWS_WITH(read_maybe_gzip(folder / "cut"), Contains("is damaged: it ends early"));
  }
}

TEST_CASE("a flipped bit is an error or changes nothing", "[gzip]") {
  ScratchFolder folder;
  const std::string text = sample(15), bytes = packed(text);
  int refused = 0, wrong = 0;
  for (size_t bit = 16; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    folder.put("damaged", damaged);
    try {
      wrong += read_maybe_gzip(folder / "damaged") != text;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(wrong == 0);
  CHECK(refused >
        static_cast<int>(bytes.size() - 18) * 8);  // all of the data; some header bits do not matter
}

TEST_CASE("sizes are capped and what follows is refused", "[gzip]") {
  ScratchFolder folder;
  const std::string bomb = packed(std::string(10'000'000, '\0'));
  REQUIRE(bomb.size() < 20'000);
  folder.put("bomb", bomb);
  CHECK_THROWS_WITH(read_maybe_gzip(folder / "bomb", 1'000'000),
                    Contains("unpacks to more than 1000000 bytes"));
  CHECK(read_maybe_gzip(folder / "bomb", 10'000'000).size() == 10'000'000);
  folder.put("plain", std::string(1000, 'x'));
  CHECK_THROWS_WITH(read_maybe_gzip(folder / "plain", 999), Contains("has 1000 bytes; at most 999 are read"));
  folder.put("tail", packed("text") + "tail");
  CHECK_THROWS_WITH(read_maybe_gzip(folder / "tail", 1000, {"train.cpp", 31}),
                    Contains("other bytes follow the compressed data at train.cpp:31"));
  CHECK_THROWS_WITH(read_maybe_gzip(folder / "none"), Contains("cannot open"));
}
