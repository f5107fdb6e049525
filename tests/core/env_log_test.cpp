#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/log.h"
#include "tandem/core/thread_pool.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::core;

// The environment is read once per process, so each case below runs this binary again, with the hidden test
// "environment child", and looks at what that prints.
TEST_CASE("environment child", "[.environment_child]") {
  if (std::getenv("TANDEM_TEST_CHILD") == nullptr) return;
  const Environment& e = environment();
  std::printf("<cache=%s|cxx=%s|dump=%s|threads=%d|jit=%d|poison=%d|graph=%d|plan=%d|num=%d|winograd=%d>\n",
              e.cache_dir.c_str(), e.compiler.c_str(), e.dump.c_str(), e.num_threads, e.jit, e.poison,
              dumps("graph"), dumps("plan"), num_threads(), e.winograd);
  std::fflush(stdout);
  log(LogArea::jit, LogLevel::debug, "jit debug");
  log(LogArea::trace, LogLevel::info, "trace info");
  log(LogArea::data, LogLevel::warn, "data warn");
  log(LogArea::core, LogLevel::info, "core info");
}

namespace {

/// Output and errors of the child under these variables.
std::string child(const std::string& variables) {
  std::array<char, 4096> self{};
  REQUIRE(readlink("/proc/self/exe", self.data(), self.size() - 1) > 0);
  const std::string clear =
      "env -u TANDEM_LOG -u TANDEM_CACHE_DIR -u TANDEM_CXX -u TANDEM_DUMP -u TANDEM_NUM_THREADS "
      "-u TANDEM_JIT -u TANDEM_POISON -u TANDEM_WINOGRAD -u XDG_CACHE_HOME HOME=/home/user "
      "TANDEM_TEST_CHILD=1 ";
  const std::string command = clear + variables + " '" + self.data() + "' '[.environment_child]' 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  std::array<char, 1024> part{};
  while (fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr) output += part.data();
  REQUIRE(pclose(pipe) == 0);
  return output;
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

std::vector<std::string> caught;
void catch_message(LogArea, LogLevel, const std::string& message) { caught.push_back(message); }

struct LogGuard {
  LogGuard() { set_log_sink(catch_message), caught.clear(); }
  ~LogGuard() {
    set_log_sink(nullptr);
    set_log("");
  }
};

}  // namespace

TEST_CASE("settings without variables", "[env]") {
  const std::string out = child("");
  CHECK_THAT(out, Contains("cache=/home/user/.cache/tandem|cxx=|dump=|threads=0|jit=1|"));
  CHECK_THAT(out, Contains("graph=0|plan=0|") && Contains("winograd=1>"));
  CHECK(count(out, "ignored") == 0);
}

TEST_CASE("settings follow the variables", "[env]") {
  const std::string out = child(
      "TANDEM_CACHE_DIR=/c XDG_CACHE_HOME=/x TANDEM_CXX=none TANDEM_DUMP=graph,kernels:/d "
      "TANDEM_NUM_THREADS=3 "
      "TANDEM_JIT=0 TANDEM_POISON=1 TANDEM_WINOGRAD=0");
  CHECK_THAT(out, Contains("<cache=/c|cxx=none|dump=graph,kernels:/"
                           "d|threads=3|jit=0|poison=1|graph=1|plan=0|num=3|winograd=0>"));
  CHECK_THAT(child("TANDEM_POISON=0"), Contains("poison=0"));
}

TEST_CASE("the cache folder follows the usual order", "[env]") {
  CHECK_THAT(child("XDG_CACHE_HOME=/x"), Contains("cache=/x/tandem|"));
  CHECK_THAT(child("TANDEM_CACHE_DIR=off"), Contains("cache=off|"));
  CHECK_THAT(child("HOME="), Contains("cache=off|"));
}

TEST_CASE("malformed values are reported once and ignored", "[env]") {
  for (const char* bad : {"TANDEM_NUM_THREADS=0", "TANDEM_NUM_THREADS=257", "TANDEM_NUM_THREADS=4x",
                          "TANDEM_JIT=yes", "TANDEM_POISON=2", "TANDEM_DUMP=grph", "TANDEM_DUMP=graph,,plan",
                          "TANDEM_LOG=jit:loud", "TANDEM_LOG=jit:", "TANDEM_LOG=jot:debug"}) {
    CAPTURE(bad);
    const std::string out = child(bad);
    CHECK(count(out, std::string("tandem: ") + bad + " is ignored; ") == 1);
    CHECK_THAT(out, Contains("|dump=|threads=0|jit=1|"));
    CHECK(count(out, "data warn") == 1);
    CHECK(count(out, "trace info") == 0);
  }
}

TEST_CASE("messages go to stderr as TANDEM_LOG says", "[log]") {
  const std::string quiet = child("");
  CHECK(count(quiet, "data warn") == 1);
  CHECK(
      (count(quiet, "jit debug") == 0 && count(quiet, "trace info") == 0 && count(quiet, "core info") == 0));
  const std::string some = child("TANDEM_LOG=jit:debug,trace:info");
  CHECK((count(some, "jit debug") == 1 && count(some, "trace info") == 1 && count(some, "core info") == 0));
  CHECK(count(some, "[tandem/jit] [debug] jit debug") == 1);
  const std::string all = child("TANDEM_LOG=trace:off,debug");
  CHECK((count(all, "jit debug") == 1 && count(all, "trace info") == 0 && count(all, "core info") == 1));
}

TEST_CASE("a sink receives what is enabled", "[log]") {
  LogGuard guard;
  set_log("trace:debug,error");
  CHECK(log_enabled(LogArea::trace, LogLevel::debug));
  CHECK_FALSE(log_enabled(LogArea::core, LogLevel::warn));
  CHECK(log_enabled(LogArea::core, LogLevel::error));
  log(LogArea::trace, LogLevel::debug, "one {} %s");
  log(LogArea::core, LogLevel::warn, "two");
  log(LogArea::core, LogLevel::error, "three");
  CHECK(caught == std::vector<std::string>{"one {} %s", "three"});
}

TEST_CASE("a bad specification is an error and changes nothing", "[log]") {
  LogGuard guard;
  set_log("jit:debug");
  CHECK_THROWS_WITH(set_log("core:debug,jit:loud"), Contains("\"jit:loud\" is not known"));
  CHECK_THROWS_AS(set_log(","), Error);
  CHECK(log_enabled(LogArea::jit, LogLevel::debug));
  CHECK_FALSE(log_enabled(LogArea::core, LogLevel::debug));
}
