// The oracle tested: tracers with a mechanism switched off (tracer/mechanisms.h) are found by the programs of
// every run, and what it prints of one is small. A broken tracer may spoil memory, so it runs in a child.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tandem/core/log.h"
#include "tests/catch.h"
#include "tests/tracer/oracle/check.h"
#include "tests/tracer/programs.h"

using tandem::tracer::Mechanism;

namespace {

// Under a sanitizer a broken tracer stops at its first wrong access, slowly, and shows nothing of the oracle.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

struct Planted {
  const char* name;
  Mechanism mechanism;
  uint32_t programs;
};

enum class Found { nothing, difference, crash, hang };

/// What the programs of seeds 0 to `count - 1` find; no mechanism: all are on.
Found found_without(std::optional<Mechanism> mechanism, uint32_t count) {
  const pid_t child = fork();
  if (child == 0) {
    // Not the handlers of the test binary, which would go on with its other tests.
    for (const int signal_number : {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTERM})
      signal(signal_number, SIG_DFL);
    alarm(300);
    std::optional<programs::Off> off;
    if (mechanism) off.emplace(*mechanism);
    _exit(oracle::first_difference(0, count, {}) ? 1 : 0);
  }
  int status = 0;
  REQUIRE(child > 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGALRM ? Found::hang : Found::crash;
  if (WEXITSTATUS(status) > 1) return Found::crash;  // a sanitizer's exit
  return WEXITSTATUS(status) ? Found::difference : Found::nothing;
}

/// Found by the programs of seeds 0 to 299, and by those of seeds 0 to 1999, which every run runs.
constexpr Planted kPlanted[] = {
#define X(name) {#name, Mechanism::name, 300},
    X(compare_operands) X(compare_attributes) X(compare_modes) X(compare_in_place) X(store_scalars)
        X(follow_numbers) X(slot_types) X(slot_watch) X(argument_types) X(argument_sizes) X(captured_aliasing)
            X(cell_values) X(versions) X(leaf_gradients) X(host_code) X(consumed_tape) X(record_order)
                X(reads_run) X(abandon) X(result_layout) X(result_aliasing) X(fresh_handles) X(end_event)
                    X(inline_traces) X(once)
#undef X
#define X(name) {#name, Mechanism::name, 2000},
                        X(slot_once) X(argument_aliasing) X(outside_history) X(live_outputs)
                            X(leaving_history) X(borrowed_memory)
#undef X
};

}  // namespace

TEST_CASE("oracle: planted bugs of the tracer are found", "[tracer]") {
  tandem::core::set_log("off");
  CHECK(found_without({}, 300) == Found::nothing);
  for (const Planted& p : kPlanted) {
    if (kSanitized) break;
    INFO(p.name);
    const Found found = found_without(p.mechanism, p.programs);
    CHECK((found == Found::difference || found == Found::crash));
  }
  tandem::core::set_log("warn");
}

TEST_CASE("oracle: a failing program is reduced and printed as a small test", "[tracer]") {
  tandem::core::set_log("off");
  // Mechanisms without which values are wrong and memory is not.
  for (const Mechanism mechanism : {Mechanism::store_scalars, Mechanism::compare_operands, Mechanism::once}) {
    CAPTURE(static_cast<int>(mechanism));
    const programs::Off off(mechanism);
    const std::optional<uint32_t> seed = oracle::first_difference(0, 300, {});
    REQUIRE(seed);
    const oracle::Program whole = oracle::make_program(*seed);
    const oracle::Program small =
        oracle::reduce(whole, [](const oracle::Program& p) { return oracle::compare(p, {}).has_value(); });
    CHECK(oracle::compare(small, {}));
    CHECK(oracle::count_statements(small) <= 3);
    CHECK(small.calls.size() <= 3);
    const std::string text = oracle::print(small, "reduced", {});
    INFO(text);
    CHECK(std::count(text.begin(), text.end(), '\n') < 27);
    CHECK(text.find("TEST_CASE(\"reduced\"") != text.npos);
    // Nothing is left of the rows' own names.
    for (const char* name : {"BODY", "RETURN", "GIVE_UP"}) CHECK(text.find(name) == text.npos);
  }
  tandem::core::set_log("warn");
}

TEST_CASE("oracle: a program is the same whenever it is made, and whatever is left out", "[tracer]") {
  tandem::core::set_log("off");
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const oracle::Program p = oracle::make_program(seed);
    CHECK(oracle::print(p, "", {}) == oracle::print(oracle::make_program(seed), "", {}));
    // Every sub-list of the statements is a program.
    for (size_t i = 0; i < p.body.size(); i += 3) {
      oracle::Program part = p;
      part.body.erase(part.body.begin() + static_cast<std::ptrdiff_t>(i));
      INFO("seed " << seed << " without statement " << i);
      CHECK_FALSE(oracle::compare(part, {}));
    }
  }
  tandem::core::set_log("warn");
}
