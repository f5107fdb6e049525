// fuzz [--hours H] [--seed S] [--programs N] [--compile] [--verify] [--debug] [--print]
//
// Random programs, traced against eager, from seed S on (else from the clock), until N of them or H hours are
// over (default: 300 programs). Stops at the first mismatch with the reduced program as a C++ test; exit
// status 1. --print only prints program S.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tandem/core/log.h"
#include "tests/tracer/oracle/check.h"

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  double hours = 0;
  int64_t programs = -1;
  uint32_t seed = static_cast<uint32_t>(std::chrono::system_clock::now().time_since_epoch().count() >> 20);
  oracle::Options options;
  bool print = false;
  for (int i = 1; i < argc; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(argv[i], name) == 0; };
    const auto has_value = [&](const char* name) { return is(name) && i + 1 < argc; };
    if (has_value("--hours")) {
      hours = std::atof(argv[++i]);
    } else if (has_value("--seed")) {
      seed = static_cast<uint32_t>(std::strtoul(argv[++i], nullptr, 10));
    } else if (has_value("--programs")) {
      programs = std::atoll(argv[++i]);
    } else if (is("--compile")) {
      options.compile = true;
    } else if (is("--verify")) {
      options.verify = -1;
    } else if (is("--debug")) {
      options.debug = true;
    } else if (is("--print")) {
      print = true;
    } else {
      std::fprintf(stderr,
                   "fuzz [--hours H] [--seed S] [--programs N] [--compile] [--verify] [--debug] [--print]\n");
      return 2;
    }
  }
  if (print) {
    std::fputs(
        oracle::print(oracle::make_program(seed), "oracle: seed " + std::to_string(seed), options).c_str(),
        stdout);
    return 0;
  }
  if (programs < 0 && hours <= 0) programs = 300;
  tandem::core::set_log("off");
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  oracle::Tally tally;
  double told = 0;
  const auto tell = [&](uint32_t next) {
    std::printf(
        "seeds up to %u: %lld programs, %lld calls, %lld threw, %lld replayed, %lld plans, "
        "%lld backwards skipped, %lld keep values, %.0f s\n",
        next - 1, static_cast<long long>(tally.programs), static_cast<long long>(tally.calls),
        static_cast<long long>(tally.threw), static_cast<long long>(tally.replayed),
        static_cast<long long>(tally.plans), static_cast<long long>(tally.skipped),
        static_cast<long long>(tally.kept), seconds());
    std::fflush(stdout);
  };
  std::printf("from seed %u\n", seed);
  uint32_t next = seed;
  for (; (programs < 0 || tally.programs < programs) && (hours <= 0 || seconds() < hours * 3600); ++next) {
    const oracle::Program p = oracle::make_program(next);
    if (oracle::compare(p, options, &tally)) {
      std::printf("%s\n", oracle::explain(p, options).c_str());
      return 1;
    }
    if (seconds() - told > 60) told = seconds(), tell(next + 1);
  }
  tell(next);
  return 0;
}
