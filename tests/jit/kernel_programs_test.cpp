// Kernels that are compiled together and found one by one: jit/programs.h, and the cache's parts.
#include "tandem/jit/programs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>

#include "tandem/core/env.h"
#include "tandem/jit/child_process.h"
#include "tandem/jit/kernel_cache.h"
#include "tests/catch.h"
#include "tests/jit/cache_settings.h"
#include "tests/jit/scratch.h"
#include "tests/log_capture.h"

namespace tandem::jit {
namespace {

const ProgramStart kStart("static inline int twice(int x) { return 2 * x; }\n");

std::string symbol(int i) { return "part_" + std::to_string(i); }

std::vector<ProgramPart> parts(const std::vector<int>& which) {
  std::vector<ProgramPart> out;
  for (const int i : which) {
    const std::string text =
        "extern \"C\" int " + symbol(i) + "() { return twice(" + std::to_string(i) + "); }\n";
    out.push_back({text, text.size()});
  }
  return out;
}

using Modules = std::vector<std::shared_ptr<const Module>>;

/// What part `i` returns; -1 if it is not there.
int run(const std::shared_ptr<const Module>& module, int i) {
  void* const f = module != nullptr ? module->symbol(symbol(i).c_str()) : nullptr;
  return f != nullptr ? reinterpret_cast<int (*)()>(f)() : -1;
}

void check(const Modules& modules, const std::vector<int>& which) {
  REQUIRE(modules.size() == which.size());
  for (size_t i = 0; i < which.size(); ++i) CHECK(run(modules[i], which[i]) == 2 * which[i]);
}

std::vector<std::string> entries(const ScratchFolder& folder) { return files_in(folder / "cpu"); }

std::set<ino_t> files(const ScratchFolder& folder) {
  std::set<ino_t> out;
  for (const std::string& path : entries(folder)) {
    struct stat info;
    REQUIRE(stat(path.c_str(), &info) == 0);
    out.insert(info.st_ino);
  }
  return out;
}

}  // namespace

TEST_CASE("programs: parts are shared out evenly, each once", "[jit][programs]") {
  const std::vector<size_t> costs = {900, 12'000, 30, 6'000, 5'000, 7'000, 11'000, 400};
  for (const size_t processors : {1, 2, 3, 16, 64}) {
    const auto programs = share_out(costs, processors);
    CAPTURE(processors, programs.size());
    CHECK(programs.size() == std::min<size_t>(processors, 4));  // 42,330 is worth four starts
    std::vector<size_t> seen;
    size_t most = 0;
    for (const auto& p : programs) {
      REQUIRE_FALSE(p.empty());
      CHECK(std::is_sorted(p.begin(), p.end()));
      size_t sum = 0;
      for (const size_t i : p) sum += costs[i], seen.push_back(i);
      most = std::max(most, sum);
    }
    CHECK(3 * most <= 4 * std::max<size_t>(42'330 / programs.size(), 12'000));  // what the rule promises
    std::sort(seen.begin(), seen.end());
    REQUIRE(seen.size() == costs.size());
    for (size_t i = 0; i < seen.size(); ++i) CHECK(seen[i] == i);
  }
  CHECK(share_out({}, 4).empty());
  const std::vector<size_t> one = {1};
  CHECK(share_out(one, 4).size() == 1);
  // However few processors, a program does not grow without bounds.
  const std::vector<size_t> many(100, 8'000);
  CHECK(share_out(many, 1).size() == 5);
  CHECK(share_out(many, 2).size() == 6);  // in whole rounds: no processor waits for the last one
  CHECK(share_out(many, 4).size() == 8);
  const std::vector<size_t> large(3, 1'000'000);
  CHECK(share_out(large, 1).size() == 3);
}

TEST_CASE("programs: jobs run once each, and the first failure is told", "[jit][programs]") {
  std::vector<std::atomic<int>> calls(20);
  side_by_side(20, [&](size_t i) { ++calls[i]; });
  for (const auto& c : calls) CHECK(c == 1);
  CHECK_THROWS_WITH(side_by_side(20,
                                 [&](size_t i) {
                                   ++calls[i];
                                   if (i % 7 == 3) throw std::runtime_error("job " + std::to_string(i));
                                 }),
                    "job 3");
  for (const auto& c : calls) CHECK(c == 2);
}

TEST_CASE("programs: what is on the disk is loaded, what is not or cannot be is compiled",
          "[jit][programs]") {
  const ScratchFolder folder;
  DiskCache disk(folder.path(), "cpu", uint64_t{1} << 20);
  std::set<std::string> refused;  // sources
  std::string damaged;            // an object that does not load
  std::vector<std::string> compiled, loaded;
  std::vector<int> parts_of(6);  // per part: programs loaded for it
  const auto compile = [&](std::span<const size_t>,
                           const std::string& source) -> std::optional<DiskCache::Stored> {
    compiled.push_back(source);
    if (refused.count(source)) return {};
    return DiskCache::Stored{source, "code of " + source};
  };
  const auto load = [&](const DiskCache::Stored& program, std::span<const size_t> parts) {
    if (program.object == damaged) return false;
    loaded.push_back(program.source);
    for (const size_t i : parts) ++parts_of[i];
    return true;
  };
  const ProgramMaker maker{disk, "key", compile, load};
  const auto wanted = [](const std::string& letters) {
    std::vector<WantedPart> out;
    for (size_t i = 0; i < letters.size(); ++i)
      out.push_back({std::string_view("abcdef").substr(static_cast<size_t>(letters[i] - 'a'), 1), 1,
                     std::string(1, letters[i])});
    return out;
  };
  using Texts = std::vector<std::string>;
  const auto check = [&](const std::string& letters, int64_t found, const Texts& to_compile,
                         const Texts& to_load, const std::vector<int>& times) {
    INFO(letters);
    compiled.clear(), loaded.clear();
    std::fill(parts_of.begin(), parts_of.end(), 0);
    CHECK(load_programs(wanted(letters), maker) == found);
    CHECK(compiled == to_compile);
    CHECK(loaded == to_load);
    CHECK(std::vector<int>(parts_of.begin(), parts_of.begin() + static_cast<int>(letters.size())) == times);
  };
  check("abc", 0, {"abc"}, {"abc"}, {1, 1, 1});
  check("cd", 1, {"d"}, {"abc", "d"}, {1, 1});
  check("dbea", 3, {"e"}, {"d", "abc", "e"}, {1, 1, 1, 1});
  damaged = "code of abc";
  check("afb", 0, {"afb"}, {"afb"}, {1, 1, 1});
  check("a", 1, {}, {"afb"}, {1});
  damaged = "code of f";
  refused = {"ef", "e"};
  for (const std::string& path : entries(folder)) std::filesystem::remove(path);
  check("ef", 0, {"ef", "e", "f"}, {}, {0, 0});
  CHECK(entries(folder).empty());  // neither what was refused nor what does not load
}

TEST_CASE("kernel cache: kernels compiled together are found one by one", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  {
    KernelCache cache(settings(folder.path()));
    const Modules modules = cache.get(kStart, parts({1, 2, 3}));
    check(modules, {1, 2, 3});
    CHECK(modules[0] == modules[2]);
    CHECK(modules[0]->source() == kStart.text + parts({1})[0].text + parts({2})[0].text + parts({3})[0].text);
    CHECK(cache.stats().compiles == 1);
    CHECK(entries(folder).size() == 3);
    CHECK(files(folder).size() == 1);  // one file of three names

    // In other company.
    check(cache.get(kStart, parts({4, 2})), {4, 2});
    CHECK(cache.stats().compiles == 2);
    CHECK(cache.stats().memory_hits == 1);
  }
  KernelCache next(settings(folder.path()));
  const Modules second = next.get(kStart, parts({2}));
  check(second, {2});
  CHECK(second[0]->source() == kStart.text + parts({1})[0].text + parts({2})[0].text + parts({3})[0].text);
  const Modules others = next.get(kStart, parts({3, 5, 4, 1}));
  check(others, {3, 5, 4, 1});
  CHECK(others[0] == second[0]);  // not loaded twice
  CHECK(next.stats().disk_hits == 4);
  CHECK(next.stats().compiles == 1);
  CHECK(entries(folder).size() == 5);

  // Behind another beginning they are other kernels.
  const ProgramStart thrice("static inline int twice(int x) { return 3 * x; }\n");
  const Modules changed = next.get(thrice, parts({2, 3}));
  CHECK(run(changed[0], 2) == 6);
  CHECK(run(changed[1], 3) == 9);
  CHECK(next.stats().disk_hits == 4);
}

TEST_CASE("kernel cache: the same part twice in one request", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  KernelCache cache(settings(folder.path()));
  check(cache.get(kStart, parts({7, 8, 7})), {7, 8, 7});
  CHECK(cache.stats().compiles == 1);
}

TEST_CASE("kernel cache: a kernel that does not compile leaves the others theirs", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  const test::LogCapture log;
  KernelCache cache(settings(folder.path()));
  std::vector<ProgramPart> all = parts({1, 2, 3});
  all[1].text = "extern \"C\" int part_2() { return unheard_of; }\n";
  std::string error;
  const Modules modules = cache.get(kStart, all, &error);
  CHECK(run(modules[0], 1) == 2);
  CHECK(modules[1] == nullptr);
  CHECK(run(modules[2], 3) == 6);
  CHECK_THAT(error, Contains("unheard_of"));
  CHECK(cache.stats().failures == 1);
  CHECK(entries(folder).size() == 2);
  REQUIRE(log.warnings().size() == 1);
  CHECK_THAT(log.warnings()[0], Contains("unheard_of"));
}

TEST_CASE("kernel cache: a damaged file of several names, and names that show another's",
          "[jit][kernel_cache]") {
  const ScratchFolder folder;
  {
    KernelCache cache(settings(folder.path()));
    check(cache.get(kStart, parts({1, 2})), {1, 2});
    check(cache.get(kStart, parts({3, 4})), {3, 4});
  }
  REQUIRE(files(folder).size() == 2);
  const test::LogCapture quiet;
  SECTION("damaged") {
    const std::string path = entries(folder)[0];
    std::string bytes = contents_of(path);
    bytes[bytes.size() / 2] ^= 1;
    write_file(path, bytes);  // under each of its names
    KernelCache cache(settings(folder.path()));
    check(cache.get(kStart, parts({1, 2, 3, 4})), {1, 2, 3, 4});
    CHECK(cache.stats().disk_hits == 2);
    CHECK(cache.stats().compiles == 1);
  }
  SECTION("every name shows the other program") {
    std::string one, other, one_path;
    for (const std::string& path : entries(folder)) {
      if (one.empty()) one = contents_of(path), one_path = path;
      if (contents_of(path) != one) other = contents_of(path);
    }
    for (const std::string& path : entries(folder)) {
      const std::string wrong = contents_of(path) == one ? other : one;
      std::filesystem::remove(path);
      write_file(path, wrong);
      std::filesystem::permissions(path,
                                   std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
    }
    KernelCache cache(settings(folder.path()));
    check(cache.get(kStart, parts({1, 2, 3, 4})), {1, 2, 3, 4});
    CHECK(cache.stats().disk_hits == 0);
  }
  KernelCache after(settings(folder.path()));
  check(after.get(kStart, parts({4, 3, 2, 1})), {4, 3, 2, 1});
  CHECK(after.stats().compiles == 0);
}

TEST_CASE("kernel cache: threads that want overlapping sets wait for one another's", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  KernelCache cache(settings(folder.path()));
  std::vector<std::thread> threads;
  std::vector<Modules> results(6);
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&, t] {
      results[static_cast<size_t>(t)] = cache.get(kStart, parts({t, (t + 1) % 6, (t + 2) % 6}));
    });
  for (std::thread& t : threads) t.join();
  for (int t = 0; t < 6; ++t) check(results[static_cast<size_t>(t)], {t, (t + 1) % 6, (t + 2) % 6});
  CHECK(entries(folder).size() == 6);
  CHECK(cache.stats().memory_hits == 12);  // each of six was somebody's once
}

TEST_CASE("disk cache: a file of several names counts once", "[jit][disk_cache]") {
  const ScratchFolder folder;
  DiskCache cache(folder.path(), "cpu", 28'000);
  const std::string object(10'000, 'x');
  const std::vector<std::string> first = {"a", "b", "c", "d"}, second = {"e", "f", "g"};
  cache.store(first, "key", "source", object);
  cache.store(second, "key", "source", object);
  CHECK(entries(folder).size() == 7);
  for (const auto& names : {first, second})
    for (const std::string& name : names) CHECK(cache.load(name, "key", "source") == object);
  CHECK(cache.find("b", "key", "our")->source == "source");
  CHECK_FALSE(cache.find("b", "key", "ours").has_value());
  // Over the limit: the older file's names go first.
  const timespec old[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  REQUIRE(utimensat(AT_FDCWD, (folder / "cpu/b.kernel").c_str(), old, 0) == 0);
  cache.store("h", "key", "source", object);
  CHECK(files(folder).size() == 2);
  for (const std::string& name : second) CHECK(cache.load(name, "key", "source") == object);
  CHECK(cache.load("h", "key", "source") == object);
  for (const std::string& name : first) CHECK_FALSE(cache.load(name, "key", "source").has_value());
}

TEST_CASE("child process: one that runs beside us is waited for later, or killed", "[jit][child_process]") {
  {
    Child child({"/bin/sh", "-c", "echo here; exit 3"}, "/", 10'000);
    const ChildResult result = child.finish();
    CHECK_FALSE(result.ok);
    CHECK(result.output == "here\n");
    CHECK(result.failure == "exit status 3");
  }
  const auto start = std::chrono::steady_clock::now();
  { const Child forgotten({"/bin/sh", "-c", "sleep 60"}, "/", 60'000); }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  CHECK(Child({"/no/such/program"}, "/", 1000).finish().failure.find("cannot start") == 0);
}

TEST_CASE("compiler: one that is expected answers as one that is asked", "[jit][compiler]") {
  HostCompiler::expect();
  HostCompiler::expect();
  const std::string& wanted = core::environment().compiler;
  const auto found = HostCompiler::find(wanted), again = HostCompiler::find(wanted);
  REQUIRE((found == nullptr) == (again == nullptr));
  if (found) CHECK(found->identity() == again->identity());
}

}  // namespace tandem::jit
