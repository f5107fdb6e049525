// The oracle: random programs (tests/tracer/oracle/) run in two worlds, eager and traced, and everything that
// a program can see afterwards is compared bit for bit: results, parameters, gradients, kept values,
// arguments, the generator, what was thrown. `scripts/fuzz` runs others.
#include <climits>

#include "tandem/core/log.h"
#include "tests/catch.h"
#include "tests/tracer/oracle/check.h"

namespace {

/// `count` programs of seeds from `first` on, of at most `most` statements; at most three mismatches are
/// shown.
oracle::Tally run_programs(uint32_t first, int64_t count, const oracle::Options& options,
                           int most = INT_MAX) {
  tandem::core::set_log("off");
  oracle::Tally tally;
  int wrong = 0;
  for (uint32_t seed = first; tally.programs < count && wrong < 3; ++seed) {
    const oracle::Program p = oracle::make_program(seed);
    if (oracle::count_statements(p) > most || !oracle::compare(p, options, &tally)) continue;
    ++wrong;
    FAIL_CHECK(oracle::explain(p, options));
  }
  tandem::core::set_log("warn");
  return tally;
}

}  // namespace

TEST_CASE("oracle: random programs, traced against eager", "[tracer]") {
  const oracle::Tally tally = run_programs(0, 2000, {});
  CHECK(tally.calls == 20'000);
  // What they cover: every kind of statement, and every way of a call.
  for (size_t k = 0; k < oracle::kKinds; ++k) {
    INFO(oracle::kRows[k].name << " ran " << tally.coverage[k] << " times");
    CHECK(tally.coverage[k] >= 100);
  }
  CHECK(tally.threw > 200);
  CHECK(tally.threw < 4000);
  CHECK(tally.replayed > 4000);
  CHECK(tally.skipped > 1000);
  CHECK(tally.op_by_op > 1000);
  CHECK(tally.kept > 0);
}

// Small ones: each of their plans starts a compiler once, and is found in the cache in later runs.
TEST_CASE("oracle: random programs, compiled", "[tracer]") { run_programs(5000, 30, {.compile = true}, 9); }

TEST_CASE("oracle: verify finds no difference in random programs", "[tracer]") {
  CHECK(run_programs(0, 200, {.verify = -1}).verified > 1000);
}

TEST_CASE("oracle: debug leaves a trace as it would be", "[tracer]") {
  run_programs(0, 200, {.debug = true});
}
