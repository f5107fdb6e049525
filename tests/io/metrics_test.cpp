// metrics.jsonl: the lines, what a resumed run finds, and what mistakes and kills leave.
#include "tandem/io/metrics.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "tandem/core/io/file.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::MetricsFile;
using td::core::read_file;
using td::test::message;

TEST_CASE("a line has step, time and numbers with all their digits", "[metrics]") {
  ScratchFolder folder;
  const std::string path = folder / "a/b/metrics.jsonl";
  MetricsFile file(path, {.clock = [] { return 1700000000.25; }});
  file.write(1, {{"loss", 0.1}, {"lr", 1e-300}});
  CHECK(read_file(path) == "{\"step\": 1, \"time\": 1700000000.25, \"loss\": 0.1, \"lr\": 1e-300}\n");
  file.write(-2, {});
  file.write(3, {{"q\"\n\xc3\xa9", 2.0 / 3}});
  const std::string text = read_file(path);
  const std::string last = text.substr(text.rfind('\n', text.size() - 2) + 1);
  const nlohmann::json parsed = nlohmann::json::parse(last);
  CHECK(parsed["q\"\n\xc3\xa9"].get<double>() == 2.0 / 3);
  CHECK(parsed["step"] == 3);
}

TEST_CASE("numbers that JSON lacks are strings that float() reads", "[metrics]") {
  ScratchFolder folder;
  const double inf = std::numeric_limits<double>::infinity();
  MetricsFile file(folder / "m", {.clock = [] { return 2.0; }});
  file.write(1, {{"a", std::nan("")}, {"b", inf}, {"c", -inf}, {"d", -0.0}});
  CHECK(read_file(folder / "m") ==
        "{\"step\": 1, \"time\": 2, \"a\": \"nan\", \"b\": \"inf\", \"c\": \"-inf\", \"d\": -0}\n");
}

TEST_CASE("a resumed run loses the lines after its step", "[metrics]") {
  ScratchFolder folder;
  const std::string path = folder / "m";
  {
    MetricsFile file(path);
    for (int i = 1; i <= 5; ++i) file.write(i, {{"x", i}});
  }
  const std::string before = read_file(path);
  {
    MetricsFile same(path);  // without a step, it goes on
    CHECK(read_file(path) == before);
  }
  MetricsFile file(path, {.last_step = 3});
  file.write(4, {{"x", 40}});
  std::vector<double> x;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) x.push_back(nlohmann::json::parse(line)["x"]);
  CHECK(x == std::vector<double>{1, 2, 3, 40});
  const MetricsFile none(path, {.last_step = 0});
  CHECK(read_file(path).empty());
}

TEST_CASE("a line that a kill cut is removed, whatever is left of it", "[metrics]") {
  ScratchFolder folder;
  const std::string path = folder / "m", first = "{\"step\": 1, \"time\": 2, \"x\": 3}\n",
                    second = "{\"step\": 2, \"time\": 2, \"x\": 4}\n";
  for (size_t n = 0; n < second.size(); ++n) {
    folder.put("m", first + second.substr(0, n));
    const MetricsFile file(path);
    REQUIRE(read_file(path) == first);
  }
}

TEST_CASE("mistakes are told, and the file is left as it was", "[metrics]") {
  ScratchFolder folder;
  const std::string path = folder / "m";
  MetricsFile file(path);
  for (const char* name : {"", "step", "time"})
    CHECK(message([&] {
            file.write(1, {{name, 1}});
          }).find("is empty, reserved or given twice") != std::string::npos);
  CHECK(message([&] {
          file.write(1, {{"a", 1}, {"a", 2}});
        }).find("\"a\" is empty, reserved or given twice") != std::string::npos);
  CHECK(message([&] { file.write(1, {{"\xff", 1}}); }).find("not valid UTF-8") != std::string::npos);
  CHECK(read_file(path).empty());
  for (const char* line :
       {"3\n", "{}\n", "{\"step\": 1.5}\n", "{\"step\": 1\n", "\n", "{\"step\": \"1\"}\n"}) {
    const std::string text = std::string("{\"step\": 1}\n") + line;
    folder.put("bad", text);
    CHECK(message([&] {
            MetricsFile(folder / "bad", {.last_step = 0});
          }).find("MetricsFile: \"" + (folder / "bad") + "\", line 2: a JSON object") == 0);
    CHECK(read_file(folder / "bad") == text);
  }
  CHECK_THROWS_WITH(MetricsFile(folder.path()), Contains("is a folder"));
  CHECK_THROWS_WITH(MetricsFile(path + "/below"), Contains("cannot make the folder"));
}

TEST_CASE("threads write whole lines", "[metrics][threads]") {
  ScratchFolder folder;
  MetricsFile file(folder / "m");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&file, t] {
      for (int i = 0; i < 100; ++i) file.write(i, {{"thread", t}});
    });
  for (std::thread& t : threads) t.join();
  int lines = 0;
  std::istringstream text(read_file(folder / "m"));
  for (std::string line; std::getline(text, line); ++lines) REQUIRE(nlohmann::json::accept(line));
  CHECK(lines == 400);
}

TEST_CASE("whatever bytes a file holds, it is gone on with or refused", "[metrics]") {
  ScratchFolder folder;
  std::string right;
  for (int i = 0; i < 20; ++i) right += "{\"step\": " + std::to_string(i) + ", \"time\": 2, \"x\": 0.5}\n";
  std::mt19937 random(5);
  int opened = 0;
  for (int i = 0; i < 300; ++i) {
    std::string changed = right;
    changed[random() % changed.size()] = static_cast<char>(random());
    const std::string path = folder.put(std::to_string(i), changed);
    const std::string told = message([&] { MetricsFile(path, {.last_step = 10}); });
    const bool fine = told == "no error";
    REQUIRE((fine || told.find("MetricsFile: \"" + path) == 0));
    if (!fine) REQUIRE(read_file(path) == changed);
    opened += fine;
  }
  CHECK((opened > 10 && opened < 290));
}
