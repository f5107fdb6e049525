// TANDEM_DUMP: graphs, passes, plans and kernels of what is made, on stderr or in files. The variable is read
// once a process, so each case runs this program again.
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "tandem/jit/child_process.h"
#include "tests/core/scratch_folder.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("dump child", "[.dump_child]") {
  if (std::getenv("TANDEM_TEST_CHILD") == nullptr) return;
  jit::Graph g;
  jit::GraphEmitter e(g, false);
  const int32_t in = g.add_input({.dtype = DType::float32, .sizes = {4}}, {1});
  const Value exponential = e.exp({in});
  g.outputs = {e.tanh(exponential).id};
  Executable::make(g, {.compile = false});
}

namespace {

std::string child(const std::string& dump, const ScratchFolder& folder) {
  std::array<char, 4096> self{};
  REQUIRE(readlink("/proc/self/exe", self.data(), self.size() - 1) > 0);
  const jit::ChildResult r = jit::run_child({"/usr/bin/env", "TANDEM_TEST_CHILD=1", "TANDEM_LOG=warn",
                                             "TANDEM_DUMP=" + dump, self.data(), "[.dump_child]"},
                                            folder.path(), 60'000);
  INFO(r.failure << r.output);
  REQUIRE(r.ok);
  return r.output;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("what the JIT makes is printed if asked for", "[jit]") {
  const ScratchFolder folder;
  const std::string nothing = child("", folder);
  CHECK(!has(nothing, "---"));
  const std::string all = child("graph,passes,kernels,plan", folder);
  CHECK_THAT(all, Contains("--- graph\n") && Contains("--- plan\n0: pointwise kernel") &&
                      Contains("--- kernels\n") && Contains("--- passes\nbefore passes:\n") &&
                      Contains("after dead_code"));
  const std::string plan = child("plan", folder);
  CHECK(has(plan, "--- plan\n"));
  CHECK(!has(plan, "--- graph\n"));
  CHECK(!has(plan, "--- kernels\n"));
}

TEST_CASE("what the JIT makes is written to a folder if asked for", "[jit]") {
  const ScratchFolder folder;
  const std::string out = child("graph,plan:" + (folder / "made/here"), folder);
  CHECK(!has(out, "---"));
  int graphs = 0, plans = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "made/here")) {
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const std::string name = entry.path().filename().string();
    graphs += has(name, ".graph.txt") && has(text.str(), "tanh");
    plans += has(name, ".plan.txt") && has(text.str(), "0: pointwise kernel");
  }
  CHECK(graphs == 1);
  CHECK(plans == 1);
  folder.put("file", "");
  CHECK(has(child("plan:" + (folder / "file"), folder), "is ignored; expected a folder to write to"));
}
