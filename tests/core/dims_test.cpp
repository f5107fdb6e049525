#include "tandem/core/dims.h"

#include <cstdint>
#include <limits>

#include "tandem/core/device.h"
#include "tandem/core/error.h"
#include "tests/catch.h"

using namespace tandem;

namespace {
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
const Location kHere{"user.cpp", 31};
}  // namespace

TEST_CASE("dims print as tuples", "[dims]") {
  CHECK(to_string(Dims{}) == "()");
  CHECK(to_string(Dims{64}) == "(64,)");
  CHECK(to_string(Dims{64, 784}) == "(64, 784)");
  CHECK(to_string(Dims{-1, 0, kMost}) == "(-1, 0, 9223372036854775807)");
}

TEST_CASE("one number is dims of rank one", "[dims]") {
  CHECK(to_string(Dims(5)) == "(5,)");
  CHECK(Dims(-1) == Dims{-1});
  CHECK(!std::is_convertible_v<bool, Dims>);
  CHECK(!std::is_convertible_v<double, Dims>);
}

TEST_CASE("dims change and compare", "[dims]") {
  Dims d{1, 2, 3};
  d.insert(1, 9);
  CHECK(d == Dims{1, 9, 2, 3});
  d.erase(0);
  CHECK(d == Dims{9, 2, 3});
  d.push_back(4);
  CHECK(d == Dims{9, 2, 3, 4});
  CHECK(d.back() == 4);
  d.resize(2);
  CHECK(d == Dims{9, 2});
  CHECK_FALSE(d == Dims{9, 3});
  CHECK_FALSE(d == Dims{9});
  CHECK(Dims::filled(3, 7) == Dims{7, 7, 7});
}

TEST_CASE("a rank above 8 is refused", "[dims]") {
  CHECK(Dims{1, 2, 3, 4, 5, 6, 7, 8}.rank() == 8);
  CHECK_THROWS_WITH((Dims{1, 2, 3, 4, 5, 6, 7, 8, 9}),
                    Contains("rank 9 is too high; at most 8 dimensions at ") && Contains("dims_test.cpp:"));
  Dims full = Dims::filled(8, 1);
  CHECK_THROWS_AS(full.push_back(1), Error);
  CHECK_THROWS_AS(full.insert(0, 1), Error);
  CHECK_THROWS_AS(full.resize(9), Error);
  CHECK(full == Dims::filled(8, 1));
}

TEST_CASE("checked arithmetic names what overflowed", "[dims]") {
  CHECK(checked_mul(3, 4) == 12);
  CHECK(checked_add(kMost - 1, 1) == kMost);
  CHECK(checked_mul(kMost, -1) == -kMost);
  CHECK_THROWS_WITH(
      checked_mul(kMost, 2, "size in bytes", kHere),
      "size in bytes overflows: 9223372036854775807 * 2 does not fit into 64 bits at user.cpp:31");
  CHECK_THROWS_WITH(checked_add(kMost, 1),
                    "size overflows: 9223372036854775807 + 1 does not fit into 64 bits");
}

TEST_CASE("number of elements", "[dims]") {
  CHECK(checked_numel({}) == 1);
  CHECK(checked_numel({3, 4}) == 12);
  CHECK(checked_numel({3, 0, 4}) == 0);
  CHECK(numel({3, 4, 5}) == 60);
  CHECK_THROWS_WITH(checked_numel({3, -1}, kHere), "negative size -1 in shape (3, -1) at user.cpp:31");
  CHECK_THROWS_WITH(checked_numel({int64_t{1} << 32, int64_t{1} << 31}),
                    Contains("size overflows: shape (4294967296, 2147483648)"));
  CHECK_THROWS_WITH(checked_numel({0, -1}), Contains("negative size -1"));
  // Empty, but its strides would not fit.
  CHECK_THROWS_WITH(checked_numel({0, kMost, kMost}), Contains("size overflows"));
}

TEST_CASE("contiguous strides", "[dims]") {
  CHECK(contiguous_strides({}) == Dims{});
  CHECK(contiguous_strides({2, 3, 4}) == Dims{12, 4, 1});
  CHECK(contiguous_strides({2, 0, 4}) == Dims{4, 4, 1});
  CHECK(is_contiguous({2, 3, 4}, {12, 4, 1}));
  CHECK(is_contiguous({}, {}));
  CHECK(is_contiguous({2, 1, 4}, {4, 777, 1}));
  CHECK(is_contiguous({2, 0, 4}, {5, 6, 7}));
  CHECK_FALSE(is_contiguous({3, 2}, {1, 3}));
  CHECK_FALSE(is_contiguous({3, 2}, {4, 1}));
  CHECK_FALSE(is_contiguous({3, 2}, {0, 1}));
  CHECK_FALSE(is_contiguous({3}, {-1}));
}

TEST_CASE("broadcasting", "[dims]") {
  CHECK(broadcast({3, 4}, {4}, "add") == Dims{3, 4});
  CHECK(broadcast({4}, {3, 4}, "add") == Dims{3, 4});
  CHECK(broadcast({3, 1}, {1, 4}, "add") == Dims{3, 4});
  CHECK(broadcast({}, {2, 3}, "add") == Dims{2, 3});
  CHECK(broadcast({0}, {1}, "add") == Dims{0});
  CHECK(broadcast({1}, {0}, "add") == Dims{0});
  CHECK_THROWS_WITH(broadcast({3, 4}, {5}, "add", kHere),
                    "add: shapes do not broadcast: (3, 4) and (5,) at user.cpp:31");
  CHECK_THROWS_AS(broadcast({2}, {0}, "add"), Error);
  CHECK_THROWS_WITH(broadcast({5}, {3, 4}, "mul"), "mul: shapes do not broadcast: (5,) and (3, 4)");
}

TEST_CASE("axes wrap", "[dims]") {
  CHECK(normalize_axis(0, 3, "sum") == 0);
  CHECK(normalize_axis(-1, 3, "sum") == 2);
  CHECK(normalize_axis(-3, 3, "sum") == 0);
  CHECK(normalize_axis(0, 0, "sum") == 0);
  CHECK(normalize_axis(-1, 0, "sum") == 0);
  CHECK_THROWS_WITH(normalize_axis(3, 3, "sum", kHere),
                    "sum: axis 3 is out of range for rank 3; expected -3 to 2 at user.cpp:31");
  CHECK_THROWS_AS(normalize_axis(-4, 3, "sum"), Error);
  CHECK_THROWS_AS(normalize_axis(1, 0, "sum"), Error);
  CHECK_THROWS_AS(normalize_axis(std::numeric_limits<int64_t>::min(), 3, "sum"), Error);
}

TEST_CASE("devices print and parse", "[device]") {
  CHECK(to_string(cpu) == "cpu");
  CHECK(to_string(Device{DeviceType::cuda, 3}) == "cuda:3");
  CHECK(parse_device("cpu") == cpu);
  CHECK(parse_device("cuda") == Device{DeviceType::cuda, 0});
  CHECK(parse_device("cuda:255") == Device{DeviceType::cuda, 255});
  for (const char* bad : {"", "cpu:0", "cuda:", "cuda:256", "cuda:-1", "cuda:1 ", "cuda:0001", "gpu", "CPU"})
    CHECK_THROWS_WITH(parse_device(bad),
                      Contains("is not known") && Contains(std::string("\"") + bad + "\""));
}
