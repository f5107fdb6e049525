#include "tandem/core/io/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "tandem/core/error.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

using namespace tandem;
using namespace tandem::core;

namespace {

std::string file_of(const std::string& header, size_t data_bytes) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i) & 0xff);
  return bytes + header + std::string(data_bytes, '\1');
}

SafeTensors parse(const std::string& bytes) {
  return SafeTensors::parse(bytes_of(bytes), "m", {"load.cpp", 9});
}

/// The message of the error that reading gives; empty if there is none.
std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}
std::string refusal(const std::string& header, size_t data_bytes) {
  return refusal(file_of(header, data_bytes));
}
std::string said(const std::string& message) { return "safetensors: \"m\": " + message + " at load.cpp:9"; }

std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"x\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}

/// Two tensors and metadata, about 200 bytes.
std::string small_file() {
  return file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[2,26]},)"
                 R"("mask":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}  )",
                 26);
}

}  // namespace

TEST_CASE("what was written is read back", "[safetensors]") {
  ScratchFolder folder;
  const std::string path = folder / "model.safetensors";
  const float floats[6] = {1, -0.0f, NAN, INFINITY, std::numeric_limits<float>::denorm_min(), 6};
  const double doubles[1] = {3.5};
  const uint16_t halves[3] = {0x3c00, 0x7c01, 0x8000};
  const int64_t longs[2] = {std::numeric_limits<int64_t>::min(), 7};
  const int32_t ints[2] = {-1, 2};
  const uint8_t bytes[5] = {0, 1, 2, 254, 255};
  const bool bools[3] = {true, false, true};
  const std::vector<SafeTensor> entries = {
      {"mask", bool_, {3}, bools},         {"f32", float32, {2, 3}, floats},
      {"scalar", float64, {}, doubles},    {"f16", float16, {3}, halves},
      {"bf16", bfloat16, {1, 3}, halves},  {"i64", int64, {2}, longs},
      {"i32", int32, {2, 1}, ints},        {"u8", uint8, {5}, bytes},
      {"empty", float32, {0, 4}, nullptr}, {"na\"me\n\xc3\xa9", uint8, {1}, bytes}};
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"k\"", "line\nbreak"}, {"", ""}};
  write_safetensors(path, entries, metadata);

  const SafeTensors file = SafeTensors::read(path);
  CHECK(file.metadata() == metadata);
  REQUIRE(file.entries().size() == entries.size());
  for (const SafeTensor& wanted : entries) {
    CAPTURE(wanted.name);
    const SafeTensor* found = file.find(wanted.name);
    REQUIRE(found != nullptr);
    CHECK(found->dtype == wanted.dtype);
    CHECK(found->sizes == wanted.sizes);
    CHECK(found->nbytes() == wanted.nbytes());
    CHECK((wanted.nbytes() == 0 ||
           std::memcmp(found->data, wanted.data, static_cast<size_t>(wanted.nbytes())) == 0));
    CHECK(reinterpret_cast<uintptr_t>(found->data) % static_cast<uintptr_t>(itemsize(found->dtype)) == 0);
  }
  CHECK(file.find("none") == nullptr);
  CHECK(file.find("") == nullptr);

  const std::string raw = read_file(path);
  CHECK(static_cast<unsigned char>(raw[0]) % 8 == 0);  // the data begins at a multiple of 8
  CHECK(folder.count() == 1);
}

TEST_CASE("an empty file of tensors is legal", "[safetensors]") {
  ScratchFolder folder;
  write_safetensors(folder / "none", {});
  CHECK(SafeTensors::read(folder / "none").entries().empty());
  CHECK(refusal("{}", 0).empty());
  CHECK(refusal("{\"__metadata__\":{}}   ", 0).empty());
}

TEST_CASE("entries keep the order of the header and may have zero size anywhere", "[safetensors]") {
  const SafeTensors file = parse(file_of(
      R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"e":{"dtype":"F64","shape":[3,0],"data_offsets":[1,1]},)"
      R"("s":{"shape":[],"data_offsets":[0,1],"dtype":"U8"}})",
      3));
  REQUIRE(file.entries().size() == 3);
  CHECK(file.entries()[0].name == "z");
  CHECK(file.entries()[1].sizes == Dims{3, 0});
  CHECK(file.entries()[2].sizes == Dims{});
  CHECK(file.find("z") == &file.entries()[0]);
}

TEST_CASE("rule 1: the length of the header", "[safetensors]") {
  CHECK(refusal("") == said("the file has 0 bytes; the header's length alone needs 8"));
  CHECK(refusal("1234567") == said("the file has 7 bytes; the header's length alone needs 8"));
  CHECK(refusal(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8)) ==
        said("the header's length 100000001 is above the limit of 100000000"));
  CHECK(refusal(std::string(8, '\xff')) ==
        said("the header's length 18446744073709551615 is above the limit of 100000000"));
  CHECK(refusal(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8)) ==
        said("the header's length 100000000 reaches beyond the end of the file, which has 8 bytes"));
  CHECK(refusal(std::string(8, '\0')) == said("the header is empty"));
}

TEST_CASE("rule 2: JSON, UTF-8, unique keys", "[safetensors]") {
  CHECK(refusal(" {}", 0) == said("the header does not begin with {"));
  CHECK(refusal("\xef\xbb\xbf{}", 0) == said("the header does not begin with {"));
  CHECK(refusal("[]", 0) == said("the header does not begin with {"));
  CHECK_THAT(refusal("{\"a\":", 0), Contains("the header is not valid JSON"));
  CHECK_THAT(refusal("{} {}", 0), Contains("the header is not valid JSON"));
  CHECK_THAT(refusal("{\"\xff\":{}}", 0), Contains("the header is not valid JSON") && Contains("UTF-8"));
  const std::string x = R"("x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  CHECK(refusal("{" + x + "," + x + "}", 1) == said("the key \"x\" appears twice"));
  CHECK(refusal("{" + x + R"(,"\u0078":{}})", 1) == said("the key \"x\" appears twice"));
  CHECK(refusal(R"({"x":{"dtype":"U8","dtype":"U8"}})", 1) == said("the key \"dtype\" appears twice"));
  CHECK(refusal(R"({"__metadata__":{"a":"1","a":"2"}})", 0) == said("the key \"a\" appears twice"));
  CHECK(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0) ==
        said("the key \"__metadata__\" appears twice"));
}

TEST_CASE("rule 3: metadata is of strings", "[safetensors]") {
  for (const char* value : {"1", "1.5", "-1", "null", "true", "{}", "[]"})
    CHECK(refusal(std::string("{\"__metadata__\":{\"k\":") + value + "}}", 0) ==
          said("__metadata__: the value of \"k\" is not a string"));
  CHECK(refusal("{\"__metadata__\":\"text\"}", 0) == said("the value of \"__metadata__\" is not an object"));
  CHECK(refusal("{\"__metadata__\":{\"k\":\"" + std::string(1 << 20, 'v') + "\"}}", 0) ==
        said("__metadata__ has more than 1048576 bytes"));
}

TEST_CASE("rule 4: no holes, no overlaps, nothing behind", "[safetensors]") {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}";
  };
  CHECK(refusal(two("[0,2]", "[2,4]"), 4).empty());
  CHECK(refusal(two("[2,4]", "[0,2]"), 4).empty());
  CHECK(refusal(two("[0,2]", "[3,5]"), 5) ==
        said("tensor \"b\": data begins at 3, but what lies before ends at 2: a hole"));
  CHECK(refusal(two("[1,3]", "[3,5]"), 5) ==
        said("tensor \"a\": data begins at 1, but what lies before ends at 0: a hole"));
  CHECK(refusal(two("[0,2]", "[1,3]"), 3) ==
        said("tensor \"b\": data begins at 1, but what lies before ends at 2: an overlap"));
  CHECK_THAT(refusal(two("[0,2]", "[0,2]"), 2), Contains("an overlap"));
  CHECK(refusal(two("[0,2]", "[2,4]"), 5) ==
        said("the tensors end at byte 4 of the data, which has 5 bytes"));
  CHECK(refusal("{}", 1) == said("the tensors end at byte 0 of the data, which has 1 bytes"));
  CHECK(refusal(two("[0,2]", "[2,4]"), 3) ==
        said("tensor \"b\": data_offsets (2, 4) reach beyond the 3 bytes of data"));
  CHECK(refusal(two("[2,0]", "[2,4]"), 4) == said("tensor \"a\": data_offsets (2, 0) run backwards"));
}

TEST_CASE("rule 5: sizes agree and do not overflow", "[safetensors]") {
  CHECK(refusal(one("\"F32\"", "[2]", "[0,4]"), 4) ==
        said("tensor \"x\": data_offsets (0, 4) hold 4 bytes, but shape (2,) of F32 needs 8"));
  CHECK(refusal(one("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0) ==
        said("tensor \"x\": size overflows: shape (4294967296, 4294967296) of U8"));
  CHECK(refusal(one("\"F64\"", "[2305843009213693952]", "[0,0]"), 0) ==
        said("tensor \"x\": size overflows: shape (2305843009213693952,) of F64"));
  CHECK_THAT(refusal(one("\"U8\"", "[0,4294967296,4294967296]", "[0,0]"), 0), Contains("size overflows"));
  CHECK(refusal(one("\"U8\"", "[9223372036854775808]", "[0,0]"), 0) ==
        said("tensor \"x\": size overflows: 9223372036854775808"));
  // 2^64 arrives as a floating number.
  CHECK(refusal(one("\"U8\"", "[18446744073709551616]", "[0,0]"), 0) ==
        said("tensor \"x\": shape is not an array of whole numbers from 0 to 2^64 - 1"));
}

TEST_CASE("rule 6: types", "[safetensors]") {
  CHECK(refusal(one("\"I16\"", "[1]", "[0,2]"), 2) ==
        said("tensor \"x\": dtype I16 is not supported; BOOL, U8, I32, I64, F16, BF16, F32 and F64 are "
             "supported"));
  for (const char* foreign : {"I8", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F4", "C64"})
    CHECK_THAT(refusal(one('"' + std::string(foreign) + '"', "[1]", "[0,1]"), 1),
               Contains("is not supported"));
  for (const char* unknown : {"", "f32", "F31", "FLOAT", "\\u0000"})
    CHECK_THAT(refusal(one('"' + std::string(unknown) + '"', "[1]", "[0,1]"), 1), Contains("is unknown"));
}

TEST_CASE("rule 7: what an entry must look like", "[safetensors]") {
  CHECK(refusal("{\"x\":{}}", 0) == said("tensor \"x\": dtype is missing"));
  CHECK(refusal(R"({"x":{"dtype":"U8","data_offsets":[0,1]}})", 1) == said("tensor \"x\": shape is missing"));
  CHECK(refusal(R"({"x":{"dtype":"U8","shape":[1]}})", 1) == said("tensor \"x\": data_offsets is missing"));
  CHECK(refusal("{\"x\":1}", 0) == said("the value of \"x\" is not an object"));
  CHECK(refusal("{\"x\":[]}", 0) == said("the value of \"x\" is not an object"));
  CHECK(refusal(R"({"x":{"color":"red"}})", 0) ==
        said("tensor \"x\": the key \"color\" is unknown; expected dtype, shape, data_offsets"));
  for (const char* bad : {"1", "null", "[]", "{}"})
    CHECK(refusal(one(bad, "[1]", "[0,1]"), 1) == said("tensor \"x\": dtype is not a string"));
  for (const char* bad :
       {"1", "\"1\"", "[-1]", "[1.0]", "[1e0]", "[\"1\"]", "[[1]]", "[null]", "[true]", "{}"})
    CHECK(refusal(one("\"U8\"", bad, "[0,1]"), 1) ==
          said("tensor \"x\": shape is not an array of whole numbers from 0 to 2^64 - 1"));
  for (const char* bad : {"0", "[]", "[0]", "[0,1,2]", "[0,1.0]", "[-0,1]", "[[0,1]]", "\"01\"", "{}"})
    CHECK(refusal(one("\"U8\"", "[1]", bad), 1) ==
          said("tensor \"x\": data_offsets is not a pair of whole numbers from 0 to 2^64 - 1"));
  CHECK(refusal(one("\"U8\"", "[1,1,1,1,1,1,1,1]", "[0,1]"), 1).empty());
  CHECK(refusal(one("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1) ==
        said("tensor \"x\": the shape has more than 8 dimensions"));
}

TEST_CASE("rule 8: depth, names and bytes are capped and checked", "[safetensors]") {
  CHECK_THAT(refusal("{\"x\":{\"shape\":" + std::string(200'000, '['), 0), Contains("shape is not an array"));
  std::string nested;
  for (int i = 0; i < 100'000; ++i) nested += "{\"a\":";
  CHECK_THAT(refusal(nested, 0), Contains("the key \"a\" is unknown"));
  const std::string message = refusal("{\"" + std::string(5000, 'n') + "\":{}}", 0);
  CHECK_THAT(message, Contains("has more than 4096 bytes"));
  CHECK(message.size() < 250);
  CHECK(refusal(R"({"a\nb\u0007":1})", 0) == said("the value of \"a?b?\" is not an object"));
  std::string bools = file_of(one("\"BOOL\"", "[3]", "[0,3]"), 3);
  CHECK(refusal(bools).empty());
  bools.back() = '\2';
  CHECK(refusal(bools) == said("tensor \"x\": element 2 of BOOL data is 2; expected 0 or 1"));
}

TEST_CASE("rule 9: the writer refuses what no reader takes", "[safetensors]") {
  ScratchFolder folder;
  const std::string path = folder / "w";
  const float data[4] = {};
  const auto write = [&](const std::vector<SafeTensor>& entries,
                         const std::map<std::string, std::string>& metadata = {}) {
    write_safetensors(path, entries, metadata, {"save.cpp", 5});
  };
  CHECK_THROWS_WITH(write({{"a", float32, {2}, data}, {"a", float32, {2}, data}}),
                    "save_safetensors: \"" + path + "\": the name \"a\" is taken at save.cpp:5");
  CHECK_THROWS_WITH(write({{"__metadata__", float32, {2}, data}}), Contains("is taken"));
  CHECK_THROWS_WITH(write({{"a\xff", float32, {2}, data}}),
                    Contains("\"a?\" is not valid UTF-8 at save.cpp:5"));
  CHECK_THROWS_WITH(write({}, {{"k", "\xff"}}), Contains("is not valid UTF-8"));
  CHECK_THROWS_WITH(write({{std::string(5000, 'n'), float32, {2}, data}}), Contains("is too long"));
  CHECK_THROWS_WITH(write({}, {{"k", std::string(2 << 20, 'v')}}), Contains("the metadata is too long"));
  CHECK_THROWS_WITH(write({{"a", float32, {2}, nullptr}}), Contains("has no data"));
  CHECK_THROWS_WITH(write({{"a", float32, {-2}, data}}), Contains("negative size"));
  CHECK(folder.count() == 0);
}

TEST_CASE("every cut and every extension of a file is an error", "[safetensors]") {
  ScratchFolder folder;
  const std::string bytes = small_file();
  REQUIRE(refusal(bytes).empty());
  for (size_t n = 0; n < bytes.size(); ++n) {
    CAPTURE(n);
    CHECK_FALSE(refusal(bytes.substr(0, n)).empty());
    folder.put("cut", bytes.substr(0, n));
    CHECK_THROWS_AS(SafeTensors::read(folder / "cut"), Error);
  }
  CHECK_FALSE(refusal(bytes + '\0').empty());
}

TEST_CASE("a flipped bit gives tensors inside the data, or an error", "[safetensors]") {
  const std::string bytes = small_file();
  int accepted = 0, refused = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ 1 << bit % 8);
    try {
      const SafeTensors file = parse(damaged);
      int64_t total = 0;
      for (const SafeTensor& t : file.entries()) total += t.nbytes();
      REQUIRE(total == 26);
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(accepted > 0);  // bits of names, metadata and numbers
  CHECK(refused > accepted);
}
