#include "tandem/core/generator.h"

#include <set>
#include <vector>

#include "tandem/core/error.h"
#include "tests/catch.h"

using namespace tandem;
using Words = std::array<uint32_t, 4>;

TEST_CASE("philox 4x32-10 gives the published vectors", "[generator]") {
  CHECK(core::philox_4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(core::philox_4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(core::philox_4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("seed and counter are the low words first", "[generator]") {
  CHECK(core::philox(0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(core::philox(0x0000000200000001, 0x0000000400000003) == core::philox_4x32({3, 4, 0, 0}, {1, 2}));
}

TEST_CASE("a generator hands out counters", "[generator]") {
  Generator g(7);
  CHECK(g.seed() == 7);
  CHECK(g.advance(5) == 0);
  CHECK(g.advance(1) == 5);
  CHECK(g.offset() == 6);
  const Words lanes = core::philox(7, 6);
  CHECK(g.next_u64() == (lanes[0] | uint64_t{lanes[1]} << 32));
  CHECK(g.offset() == 7);
  g.set_offset(6);
  const uint64_t again = g.next_u64();
  g.seed(7);
  CHECK(g.offset() == 0);
  g.advance(6);
  CHECK(g.next_u64() == again);
}

TEST_CASE("bounded draws are uniform enough and in range", "[generator]") {
  Generator g(1);
  std::vector<int> counts(7);
  for (int i = 0; i < 70'000; ++i) {
    const uint64_t draw = g.below(7);
    REQUIRE(draw < 7);
    ++counts[draw];
  }
  for (const int n : counts) CHECK((n > 9500 && n < 10500));
  CHECK(g.below(1) == 0);
  const uint64_t large = (uint64_t{1} << 63) + 1;  // nearly half of all draws are refused
  for (int i = 0; i < 100; ++i) CHECK(g.below(large) < large);
  CHECK_THROWS_AS(g.below(0), Error);
}

TEST_CASE("manual_seed restarts the default generator", "[generator]") {
  manual_seed(42);
  const uint64_t first = default_generator().next_u64();
  default_generator().next_u64();
  manual_seed(42);
  CHECK(default_generator().next_u64() == first);
  manual_seed(43);
  CHECK(default_generator().next_u64() != first);
}
