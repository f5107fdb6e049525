// Programs run in two worlds and compared. One thread at a time; uses the default generator.
#pragma once

#include <optional>
#include <string>

#include "tests/tracer/oracle/world.h"

namespace oracle {

/// What differed between the worlds, in words; nothing if they are equal bit for bit.
struct Difference {
  size_t call = 0;
  std::string text;
};
/// What runs have done; sums.
struct Tally {
  Coverage coverage{};
  int64_t programs = 0, calls = 0, threw = 0;
  int64_t verified = 0, replayed = 0, plans = 0, skipped = 0, op_by_op = 0, kept = 0;
};
std::optional<Difference> compare(const Program& p, const Options& options, Tally* tally = nullptr);

/// The first program among seeds `first`, ..., `first + count - 1` whose worlds differ.
std::optional<uint32_t> first_difference(uint32_t first, uint32_t count, const Options& options);

/// The difference, the reduced program, and its C++.
std::string explain(const Program& p, const Options& options);

}  // namespace oracle
