// The bytes of protocol buffers' examples.
#include "tandem/io/wire.h"

#include "tests/catch.h"

using tandem::io::Wire;

TEST_CASE("Fields have the bytes that the format's documentation shows") {
  CHECK(Wire().integer(1, 150).text() == "\x08\x96\x01");
  CHECK(Wire().bytes(2, "testing").text() == "\x12\x07testing");
  CHECK(Wire().message(3, Wire().integer(1, 150)).text() == "\x1a\x03\x08\x96\x01");
}

TEST_CASE("Negative integers take ten bytes, numbers those of their type, lowest first") {
  CHECK(Wire().integer(1, -2).text() == "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(Wire().integer(1, 0).text() == std::string("\x08\0", 2));
  CHECK(Wire().number(2, 1.5f).text() == std::string("\x15\0\0\xc0\x3f", 5));
  CHECK(Wire().number(3, -2.0).text() == std::string("\x19\0\0\0\0\0\0\0\xc0", 9));
  CHECK(Wire().integer(16, 1).text() == "\x80\x01\x01");
}

TEST_CASE("A field's head can be written without its bytes") {
  const std::string text(300, 'x');
  CHECK(Wire().head(2, text.size()).text() + text == Wire().bytes(2, text).text());
}

TEST_CASE("UTF-8 is told from what is none") {
  using tandem::io::is_utf8;
  for (const char* good :
       {"", "abc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "a\xc3", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe2\x82", "\xc3\x28", "\xff"})
    CHECK(!is_utf8(bad));
}
