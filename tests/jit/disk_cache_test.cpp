#include "tandem/jit/disk_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "tandem/jit/sha256.h"
#include "tests/catch.h"
#include "tests/jit/scratch.h"
#include "tests/log_capture.h"

namespace tandem::jit {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> entries(const ScratchFolder& folder) { return files_in(folder / "cpu"); }

}  // namespace

TEST_CASE("disk cache: any flipped byte and any truncation is a miss", "[jit][disk_cache]") {
  const ScratchFolder folder;
  DiskCache cache(folder.path(), "cpu", 1 << 20);
  const std::string name(64, 'a');
  cache.store(name, "key", "source", "object");
  REQUIRE(cache.load(name, "key", "source") == "object");
  CHECK_FALSE(cache.load(name, "kez", "source").has_value());
  CHECK_FALSE(cache.load(name, "key", "sourcf").has_value());
  CHECK_FALSE(cache.load(name, "keys", "ource").has_value());
  const std::string path = entries(folder).at(0);
  const std::string right = contents_of(path);
  for (size_t at = 0; at < right.size(); ++at) {
    for (const int bit : {0, 7}) {
      std::string damaged = right;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      write_file(path, damaged);
      if (cache.load(name, "key", "source").has_value()) FAIL("byte " << at << ", bit " << bit);
    }
    write_file(path, right.substr(0, at));
    if (cache.load(name, "key", "source").has_value()) FAIL("cut to " << at << " bytes");
  }
  // Lengths beyond everything, under a valid hash.
  std::string forged = right;
  forged.replace(48, 8, 8, '\xff');
  const Digest digest = sha256(std::string_view(forged).substr(40));
  forged.replace(8, 32, reinterpret_cast<const char*>(digest.data()), 32);
  write_file(path, forged);
  CHECK_FALSE(cache.load(name, "key", "source").has_value());
  write_file(path, right);
  CHECK(cache.load(name, "key", "source") == "object");
}

TEST_CASE("disk cache: writers killed at any moment leave nothing wrong", "[jit][disk_cache]") {
  const ScratchFolder folder;
  DiskCache cache(folder.path(), "cpu", 64 << 20);
  const auto name = [](int i) { return std::string(60, 'e') + std::to_string(1000 + i); };
  const auto object = [](int i) {
    return std::string(20'000 + static_cast<size_t>(i), static_cast<char>('a' + i));
  };
  int found = 0;
  for (int round = 0; round < 60 || (found == 0 && round < 2000); ++round) {
    const pid_t pid = fork();
    if (pid == 0) {
      for (int i = round;; ++i) cache.store(name(i % 20), "key", "source", object(i % 20));
    }
    usleep(static_cast<useconds_t>(200 + 97 * (round % 60)));
    kill(pid, SIGKILL);
    REQUIRE(waitpid(pid, nullptr, 0) == pid);
    for (int i = 0; i < 20; ++i) {
      const auto loaded = cache.load(name(i), "key", "source");
      if (!loaded.has_value()) continue;
      ++found;
      if (*loaded != object(i)) FAIL("a wrong object, round " << round);
    }
  }
  CHECK(found > 0);

  // Left-overs of killed writers go when they are an hour old.
  const std::string old = folder / "cpu/.new-1-1-0";
  write_file(old, "half");
  const timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  REQUIRE(utimensat(AT_FDCWD, old.c_str(), times, 0) == 0);
  DiskCache next(folder.path(), "cpu", 64 << 20);
  next.store(name(0), "key", "source", object(0));
  CHECK_FALSE(fs::exists(old));
}

TEST_CASE("disk cache: an entry that is being replaced is always whole", "[jit][disk_cache]") {
  const ScratchFolder folder;
  DiskCache cache(folder.path(), "cpu", 64 << 20);
  const std::string object(50'000, 'x');
  cache.store("name", "key", "source", object);
  const pid_t pid = fork();
  if (pid == 0) {
    for (;;) cache.store("name", "key", "source", object);
  }
  int misses = 0;
  for (int i = 0; i < 300; ++i) misses += cache.load("name", "key", "source") == object ? 0 : 1;
  kill(pid, SIGKILL);
  REQUIRE(waitpid(pid, nullptr, 0) == pid);
  CHECK(misses == 0);
}

TEST_CASE("disk cache: the least recently used entries go first", "[jit][disk_cache]") {
  const ScratchFolder folder;
  const std::string object(10'000, 'x');
  DiskCache cache(folder.path(), "cpu", 65'000);  // six entries and a bit
  const auto name = [](int i) { return "entry" + std::to_string(i); };
  const auto set_age = [&](int i, time_t when) {
    const timespec times[2] = {{when, 0}, {when, 0}};
    REQUIRE(utimensat(AT_FDCWD, (folder / ("cpu/" + name(i) + ".kernel")).c_str(), times, 0) == 0);
  };
  for (int i = 0; i < 6; ++i) {
    cache.store(name(i), "key", "source", object);
    set_age(i, 1'000'000'000 + i);
  }
  CHECK(entries(folder).size() == 6);
  CHECK(cache.load(name(0), "key", "source").has_value());  // now the most recent
  cache.store(name(6), "key", "source", object);
  CHECK(entries(folder).size() == 4);  // down to three quarters
  for (const int kept : {0, 4, 5, 6}) CHECK(cache.load(name(kept), "key", "source").has_value());
  for (const int gone : {1, 2, 3}) CHECK_FALSE(cache.load(name(gone), "key", "source").has_value());

  SECTION("what is larger than the whole is not stored") {
    cache.store("large", "key", "source", std::string(70'000, 'x'));
    CHECK_FALSE(cache.load("large", "key", "source").has_value());
    CHECK(entries(folder).size() == 4);
  }
  SECTION("several evict at once") {
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        DiskCache mine(folder.path(), "cpu", 65'000);
        for (int i = 0; i < 50; ++i) {
          mine.store(name(100 * t + i), "key", "source", object);
          const auto loaded = mine.load(name(100 * t + i / 2), "key", "source");
          if (loaded.has_value() && *loaded != object) std::abort();
        }
      });
    }
    for (std::thread& t : threads) t.join();
    cache.store("last", "key", "source", object);
    CHECK(cache.load("last", "key", "source") == object);
  }
  SECTION("a folder that vanishes") {
    const test::LogCapture quiet;
    fs::remove_all(folder.path());
    cache.store("after", "key", "source", object);
    CHECK_FALSE(cache.load("after", "key", "source").has_value());
  }
}

TEST_CASE("disk cache: a folder that others could write is not used", "[jit][disk_cache]") {
  const ScratchFolder folder;
  const test::LogCapture log;
  fs::create_directory(folder / "cpu");
  for (const mode_t mode : {0777, 0770, 0722, 0750}) {
    REQUIRE(chmod((folder / "cpu").c_str(), mode) == 0);
    DiskCache cache(folder.path(), "cpu", 1 << 20);
    CHECK_FALSE(cache.enabled());
    cache.store("name", "key", "source", "object");
    CHECK_FALSE(cache.load("name", "key", "source").has_value());
  }
  CHECK(entries(folder).empty());
  CHECK(log.warnings().size() == 4);  // one for each cache
  CHECK_THAT(log.warnings().at(0), Contains("open to other users") && Contains(folder.path()));

  fs::remove_all(folder / "cpu");
  fs::create_directory(folder / "elsewhere");
  fs::permissions(folder / "elsewhere", fs::perms::owner_all);
  fs::create_directory_symlink(folder / "elsewhere", folder / "cpu");
  CHECK_FALSE(DiskCache(folder.path(), "cpu", 1 << 20).enabled());
  fs::remove(folder / "cpu");
  write_file(folder / "cpu", "a file");
  CHECK_FALSE(DiskCache(folder.path(), "cpu", 1 << 20).enabled());
  CHECK(log.warnings().size() == 6);

  fs::remove(folder / "cpu");
  REQUIRE(chmod(folder.path().c_str(), 0755) == 0);  // only the section's folder matters
  CHECK(DiskCache(folder.path(), "cpu", 1 << 20).enabled());
  CHECK(DiskCache(folder / "made/on/the/way", "cpu", 1 << 20).enabled());
  if (geteuid() == 0) {
    REQUIRE(chown((folder / "cpu").c_str(), 12345, 12345) == 0);
    CHECK_FALSE(DiskCache(folder.path(), "cpu", 1 << 20).enabled());
    CHECK_THAT(log.warnings().back(), Contains("another user"));
  }
}

}  // namespace tandem::jit
