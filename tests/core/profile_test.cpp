// Profiles: spans of several threads, what the table sums, what the file holds.
#include "tandem/core/profile.h"

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "tandem/core/error.h"
#include "tandem/core/io/file.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace td = tandem;
using td::core::ProfileSpan;

namespace {
const td::Location kHere{"a \"quoted\" \\ file.cpp", 7};

const td::ProfileRow* find(const td::ProfileTable& t, const std::string& name, const std::string& kind) {
  for (const td::ProfileRow& r : t.rows)
    if (r.name == name && r.kind == kind) return &r;
  return nullptr;
}
}  // namespace

TEST_CASE("nothing is timed without a profile, or after one") {
  CHECK_FALSE(td::core::profiling());
  { const ProfileSpan before("op", "before", {}); }
  auto p = td::profile("");
  CHECK(td::core::profiling());
  { const ProfileSpan in("op", "in", {}); }
  const td::ProfileTable t = p.finish();
  CHECK_FALSE(td::core::profiling());
  { const ProfileSpan after("op", "after", {}); }
  CHECK(t.events == 1);
  REQUIRE(t.rows.size() == 1);
  CHECK(t.rows[0].name == "in");
  CHECK(p.finish().events == 1);
}

TEST_CASE("a table sums by name, kind and line; a whole span hides what is in it") {
  auto p = td::profile("");
  {
    const ProfileSpan call("call", "step", {});
    for (int i = 0; i < 3; ++i) {
      const ProfileSpan op("op", "add", kHere, 100, true);
      const ProfileSpan inside("kernel", "hidden", {});
    }
    const ProfileSpan other("op", "add", {"other.cpp", 1});
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  const td::ProfileTable t = p.finish();
  CHECK(t.events == 5);
  REQUIRE(t.rows.size() == 3);
  CHECK(t.rows[0].kind == "call");
  CHECK(t.rows[0].share == 0);
  CHECK(t.rows[1].where.line == 1);  // the longest op
  CHECK(t.rows[1].total_us >= 2000);
  CHECK(t.rows[2].calls == 3);
  CHECK(t.rows[2].bytes == 300);
  CHECK(t.rows[1].share + t.rows[2].share == Approx(1));
  CHECK(t.total_us == Approx(t.rows[1].total_us + t.rows[2].total_us));
  CHECK(t.wall_us >= t.rows[0].total_us);
  std::ostringstream out;
  out << t;
  CHECK(out.str().find("add") != std::string::npos);
  CHECK(out.str().find("other.cpp:1") != std::string::npos);
}

TEST_CASE("the file is a Chrome trace with the events of all threads") {
  const ScratchFolder scratch;
  const std::string path = scratch / "trace.json";
  auto p = td::profile(path);
  const std::string name = "a \"name\"\n\\ \x01";
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int k = 0; k < 50; ++k) {
        const ProfileSpan call("call", "outer", {});
        const ProfileSpan op("op", name, kHere, 64);
      }
    });
  for (std::thread& t : threads) t.join();
  const td::ProfileTable table = p.finish();
  REQUIRE(find(table, name, "op"));
  CHECK(find(table, name, "op")->calls == 200);

  const auto json = nlohmann::json::parse(td::core::read_file(path));
  std::set<int> tids;
  int ops = 0, calls = 0;
  for (const auto& e : json.at("traceEvents")) {
    const std::string phase = e.at("ph");
    if (phase == "M") continue;
    REQUIRE(phase == "X");
    const double ts = e.at("ts"), dur = e.at("dur");
    CHECK(ts >= 0);
    CHECK(dur >= 0);
    CHECK(ts + dur <= table.wall_us + 1);
    CHECK(e.at("pid") == 1);
    tids.insert(e.at("tid").get<int>());
    const std::string where = e.at("args").at("where");
    if (e.at("cat") == "op") {
      ++ops;
      CHECK(e.at("name") == name);
      CHECK(where == "a \"quoted\" \\ file.cpp:7");
      CHECK(e.at("args").at("bytes") == 64);
    } else {
      ++calls;
      CHECK(e.at("name") == "outer");
      CHECK(where.empty());
    }
  }
  CHECK(ops == 200);
  CHECK(calls == 200);
  CHECK(tids.size() == 4);
}

TEST_CASE("a second profile, and a path that cannot be written, are errors") {
  const ScratchFolder scratch;
  {
    auto p = td::profile("");
    CHECK_THROWS_WITH(td::profile(""),
                      Contains("another profile is running") && Contains("profile_test.cpp"));
    CHECK(td::core::profiling());
    p.finish();
  }
  CHECK_THROWS_WITH(td::profile(scratch / "no/folder.json"),
                    Contains("profile: write_file") && Contains("/no") && Contains("profile_test.cpp"));
  CHECK_FALSE(td::core::profiling());
  auto again = td::profile("");  // the failed one left nothing behind
  CHECK(again.finish().events == 0);
}
