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
