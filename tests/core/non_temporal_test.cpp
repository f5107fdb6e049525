#include "tandem/core/non_temporal.h"

#include <string>

#include "tests/catch.h"

TEST_CASE("a copy past the caches copies what it is given and nothing else", "[core]") {
  std::string from(512, '\0');
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<char>(i * 7);
  for (size_t to_at = 0; to_at < 65; ++to_at)
    for (const size_t from_at : {0, 1, 16, 63})
      for (const size_t bytes : {0, 1, 63, 64, 65, 127, 128, 200, 256}) {
        std::string to(512, '#'), expected = to;
        expected.replace(to_at, bytes, from, from_at, bytes);
        tandem::core::copy_non_temporal(to.data() + to_at, from.data() + from_at,
                                        static_cast<int64_t>(bytes));
        tandem::core::order_non_temporal();
        if (to != expected) FAIL(to_at << ", " << from_at << ", " << bytes);
      }
}
