#include "tandem/jit/kernel_cache.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>

#include "tests/catch.h"
#include "tests/jit/cache_settings.h"
#include "tests/jit/scratch.h"
#include "tests/log_capture.h"

namespace tandem::jit {
namespace {

namespace fs = std::filesystem;

std::string kernel(int answer) {
  return "extern \"C\" int answer() { return " + std::to_string(answer) + "; }";
}

/// What the module's function returns; -1 if there is no module.
int run(const std::shared_ptr<const Module>& module) {
  if (module == nullptr || module->symbol("answer") == nullptr) return -1;
  return reinterpret_cast<int (*)()>(module->symbol("answer"))();
}
int run(KernelCache& cache, int answer) { return run(cache.get(kernel(answer))); }

std::vector<std::string> entries(const ScratchFolder& folder) { return files_in(folder / "cpu"); }

/// Runs `body` in a forked process and returns its exit status; -1 if it was killed.
int in_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool write_text(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  const bool good = fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (fd >= 0) close(fd);
  return good;
}

constexpr int kNotAllowed = 77;

/// In a child process that sees its own mounts, with a small tmpfs on `folder`; kNotAllowed where that is
/// forbidden.
int in_child_with_mount(const std::string& folder, const char* options, unsigned long flags,
                        const std::function<int()>& body) {
  return in_child([&] {
    const std::string user = std::to_string(geteuid());
    const std::string group = std::to_string(getegid());
    if (unshare(CLONE_NEWNS) != 0) {
      if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kNotAllowed;
      if (!write_text("/proc/self/setgroups", "deny") ||
          !write_text("/proc/self/uid_map", user + " " + user + " 1") ||
          !write_text("/proc/self/gid_map", group + " " + group + " 1")) {
        return kNotAllowed;
      }
    }
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNotAllowed;
    if (mount("tmpfs", folder.c_str(), "tmpfs", flags, options) != 0) return kNotAllowed;
    return body();
  });
}

void check_unless_forbidden(int status) {
  if (status == kNotAllowed) {
    WARN("not checked: this machine does not allow mounts to tests");
  } else {
    CHECK(status == 0);
  }
}

}  // namespace

TEST_CASE("kernel cache: memory, then disk, then the compiler", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  KernelCache cache(settings(folder.path()));
  const auto module = cache.get(kernel(11));
  CHECK(run(module) == 11);
  CHECK(module->source() == kernel(11));
  CHECK(cache.get(kernel(11)) == module);
  CHECK(cache.stats().compiles == 1);
  CHECK(cache.stats().memory_hits == 1);
  CHECK(cache.stats().compile_ms > 0);
  CHECK(entries(folder).size() == 1);

  cache.forget();
  CHECK(run(cache, 11) == 11);
  CHECK(cache.stats().disk_hits == 1);
  CHECK(cache.stats().compiles == 1);
  CHECK(run(module) == 11);

  KernelCache next(settings(folder.path()));
  CHECK(run(next, 11) == 11);
  CHECK(run(next, 12) == 12);
  CHECK(next.stats().disk_hits == 1);
  CHECK(next.stats().compiles == 1);

  SECTION("other options, another entry") {
    KernelCache::Settings other = settings(folder.path());
    other.options = {"-O1"};
    KernelCache optimised(other);
    CHECK(run(optimised, 11) == 11);
    CHECK(optimised.stats().disk_hits == 0);
    CHECK(entries(folder).size() == 3);
  }
  SECTION("another version of Tandem, another entry") {
    CHECK_THAT(contents_of(entries(folder).at(0)), Contains("tandem " + std::string(core::version()) + "\n"));
    KernelCache::Settings other = settings(folder.path());
    CHECK(other.version == core::version());
    other.version += "1";
    KernelCache newer(other);
    CHECK(run(newer, 11) == 11);
    CHECK(newer.stats().disk_hits == 0);
    CHECK(newer.stats().compiles == 1);
    CHECK(entries(folder).size() == 3);
  }
  SECTION("another compiler, another entry") {
    const std::string wrapped = folder.script("c++", "exec '" + compiler().path() + "' \"$@\"\n");
    const auto found = HostCompiler::find(wrapped);
    REQUIRE(found != nullptr);
    KernelCache::Settings other = settings(folder.path());
    other.compiler = found.get();
    KernelCache wrapped_cache(other);
    CHECK(run(wrapped_cache, 11) == 11);
    CHECK(wrapped_cache.stats().disk_hits == 0);
  }
  SECTION("entries are for this user alone") {
    for (const std::string& path : entries(folder)) {
      struct stat info;
      REQUIRE(stat(path.c_str(), &info) == 0);
      CHECK((info.st_mode & 0777) == 0600);
    }
  }
}

TEST_CASE("kernel cache: the process's own", "[jit][kernel_cache]") {
  if (HostCompiler::of_process() == nullptr) {
    CHECK(KernelCache::of_process().get(kernel(21)) == nullptr);
    return;
  }
  CHECK(run(KernelCache::of_process().get(kernel(21))) == 21);
  const int64_t hits = cache_stats().memory_hits;
  CHECK(run(KernelCache::of_process().get(kernel(21))) == 21);
  CHECK(cache_stats().memory_hits == hits + 1);
}

TEST_CASE("kernel cache: no compiler and a failed compilation are null, with one warning",
          "[jit][kernel_cache]") {
  const ScratchFolder folder;
  const test::LogCapture log;
  std::string error;
  KernelCache::Settings none = settings(folder.path());
  none.compiler = nullptr;
  KernelCache without(none);
  CHECK(without.get(kernel(1), &error) == nullptr);
  CHECK_THAT(error, Contains("no host compiler"));

  KernelCache cache(settings(folder.path()));
  CHECK(cache.get("extern \"C\" int answer() { return unheard_of; }", &error) == nullptr);
  CHECK_THAT(error, Contains("unheard_of") && Contains("kernel.cpp:1"));
  CHECK(cache.get("extern \"C\" int answer() { return unheard_of; }", &error) == nullptr);  // not tried again
  CHECK_THAT(error, Contains("unheard_of"));
  CHECK(cache.get("neither is this", &error) == nullptr);
  CHECK(cache.stats().failures == 2);
  CHECK(cache.stats().compiles == 0);
  CHECK(cache.stats().memory_hits == 1);
  CHECK(entries(folder).empty());
  REQUIRE(log.warnings().size() == 1);
  CHECK_THAT(log.warnings()[0], Contains("unheard_of"));
  CHECK(run(cache, 3) == 3);
}

TEST_CASE("kernel cache: threads that want one kernel share one compilation", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  KernelCache cache(settings(folder.path()));
  std::vector<std::thread> threads;
  std::vector<int> results(8);
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] { results[static_cast<size_t>(i)] = run(cache, i < 6 ? 31 : 32); });
  }
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 8; ++i) CHECK(results[static_cast<size_t>(i)] == (i < 6 ? 31 : 32));
  CHECK(cache.stats().compiles == 2);
  CHECK(cache.stats().memory_hits == 6);
}

TEST_CASE("kernel cache: 100 damaged entries", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  std::string right, other, path;
  {
    KernelCache cache(settings(folder.path()));
    REQUIRE(run(cache, 41) == 41);
    path = entries(folder).at(0);
    right = contents_of(path);
    REQUIRE(run(cache, 42) == 42);
    for (const std::string& each : entries(folder)) {
      if (each != path) other = contents_of(each);
    }
  }
  const test::LogCapture quiet;
  REQUIRE(right.size() > 4096);
  REQUIRE(other.size() > 4096);
  for (int i = 0; i < 100; ++i) {
    CAPTURE(i);
    const size_t somewhere = right.size() * static_cast<size_t>(i) / 100;
    std::string damaged = right;
    bool replaceable = true;
    fs::remove_all(path);
    switch (i % 10) {
      case 0:
        write_file(path, "");
        break;
      case 1:
        write_file(path, right.substr(0, somewhere));
        break;
      case 2:
        write_file(path, other);
        break;
      case 3:
        write_file(path, right + std::string(static_cast<size_t>(i), 'x'));
        break;
      case 4:
        write_file(path, std::string(right.size(), '\0'));
        break;
      case 5:
        write_file(path, right.substr(somewhere) + right.substr(0, somewhere));
        break;
      case 6:
        damaged.replace(somewhere, 64, 64, static_cast<char>(i));
        write_file(path, damaged.substr(0, right.size()));
        break;
      case 7:  // what another user, or another's permission, has touched
        write_file(path, right);
        chmod(path.c_str(), 0666);
        break;
      case 8:
        switch (i / 10 % 3) {
          case 0:
            fs::create_directory(path), replaceable = false;
            break;
          case 1:
            REQUIRE(mkfifo(path.c_str(), 0600) == 0);
            break;
          case 2:
            fs::create_symlink("/dev/zero", path);
            break;
        }
        break;
      default:
        damaged[somewhere] = static_cast<char>(damaged[somewhere] ^ (1 << (i % 8)));
        write_file(path, damaged);
    }
    KernelCache cache(settings(folder.path()));
    REQUIRE(run(cache, 41) == 41);
    REQUIRE(cache.stats().compiles == 1);
    if (replaceable) {
      KernelCache next(settings(folder.path()));
      REQUIRE(run(next, 41) == 41);
      REQUIRE(next.stats().disk_hits == 1);
    }
  }
}

TEST_CASE("kernel cache: four processes share a cold folder", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  compiler();
  constexpr int kKernels = 8;
  std::vector<pid_t> processes;
  for (int p = 0; p < 4; ++p) {
    const pid_t pid = fork();
    if (pid == 0) {
      KernelCache cache(settings(folder.path()));
      int wrong = 0;
      for (int i = 0; i < kKernels; ++i) {
        const int answer = 100 + (i + 2 * p) % kKernels;
        if (run(cache, answer) != answer) ++wrong;
      }
      const CacheStats stats = cache.stats();
      if (stats.compiles + stats.disk_hits != kKernels || stats.failures != 0) wrong += 100;
      _exit(wrong);
    }
    processes.push_back(pid);
  }
  for (const pid_t pid : processes) {
    int status = -1;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
  }
  CHECK(entries(folder).size() == kKernels);
  KernelCache cache(settings(folder.path()));
  for (int i = 0; i < kKernels; ++i) CHECK(run(cache, 100 + i) == 100 + i);
  CHECK(cache.stats().disk_hits == kKernels);
}

TEST_CASE("kernel cache: a forked child does not wait for its parent's compilation", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  const std::string body = "[ \"$1\" = --version ] || { : > '" + folder.path() +
                           "/started'; sleep 0.5; }\nexec '" + compiler().path() + "' \"$@\"\n";
  const auto slow = HostCompiler::find(folder.script("slow", body));
  REQUIRE(slow != nullptr);
  KernelCache::Settings s = settings(folder.path());
  s.compiler = slow.get();
  KernelCache cache(s);
  std::thread thread([&] { run(cache, 51); });
  while (!fs::exists(folder / "started")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(in_child([&] {
          alarm(60);  // a hang ends as a failure
          return run(cache, 51) == 51 ? 0 : 1;
        }) == 0);
  thread.join();
  CHECK(run(cache, 51) == 51);
}

TEST_CASE("kernel cache: without a folder", "[jit][kernel_cache]") {
  const ScratchFolder open_to_all;
  const test::LogCapture log;
  for (const char* none : {"", "off"}) {
    KernelCache cache(settings(none));
    CHECK_FALSE(cache.disk().enabled());
    CHECK(run(cache, 71) == 71);
  }
  CHECK(log.warnings().empty());
  KernelCache impossible(settings("/proc/no/such/place"));
  CHECK(run(impossible, 71) == 71);
  REQUIRE(log.warnings().size() == 1);
  CHECK_THAT(log.warnings()[0], Contains("cannot be made"));

  fs::create_directory(open_to_all / "cpu");
  REQUIRE(chmod((open_to_all / "cpu").c_str(), 0777) == 0);
  KernelCache unsafe(settings(open_to_all.path()));
  CHECK(run(unsafe, 72) == 72);
  CHECK_FALSE(unsafe.disk().enabled());
  CHECK(entries(open_to_all).empty());
  REQUIRE(log.warnings().size() == 2);
  CHECK_THAT(log.warnings()[1], Contains("open to other users"));
}

TEST_CASE("kernel cache: a read-only folder", "[jit][kernel_cache]") {
  const ScratchFolder folder;
  {
    KernelCache cache(settings(folder.path()));
    REQUIRE(run(cache, 81) == 81);
  }
  const auto use = [&] {
    const test::LogCapture log;
    KernelCache cache(settings(folder.path()));
    if (run(cache, 81) != 81 || cache.stats().disk_hits != 1) return 1;
    if (run(cache, 82) != 82 || run(cache, 83) != 83 || cache.stats().compiles != 2) return 2;
    return log.warnings().size() == 1 && log.warnings()[0].find("cannot write") != std::string::npos ? 0 : 3;
  };
  if (geteuid() != 0) {  // permissions do not bind root
    REQUIRE(chmod((folder / "cpu").c_str(), 0500) == 0);
    CHECK(use() == 0);
    REQUIRE(chmod((folder / "cpu").c_str(), 0700) == 0);
  }
  const ScratchFolder point;
  check_unless_forbidden(in_child_with_mount(point.path(), "size=1m", 0, [&] {
    if (mount(folder.path().c_str(), point.path().c_str(), nullptr, MS_BIND, nullptr) != 0)
      return kNotAllowed;
    constexpr unsigned long kReadOnly = MS_BIND | MS_REMOUNT | MS_RDONLY;
    if (mount(nullptr, point.path().c_str(), nullptr, kReadOnly, nullptr) != 0) return kNotAllowed;
    const test::LogCapture log;
    KernelCache cache(settings(point.path()));
    if (run(cache, 81) != 81 || cache.stats().disk_hits != 1) return 1;
    if (run(cache, 84) != 84 || run(cache, 85) != 85) return 2;
    if (log.warnings().size() != 1 || log.warnings()[0].find("cannot write") == std::string::npos) return 3;
    KernelCache fresh(settings(point / "new"));
    return run(fresh, 86) == 86 && !fresh.disk().enabled() ? 0 : 4;
  }));
}

TEST_CASE("kernel cache: a full disk", "[jit][kernel_cache]") {
  const ScratchFolder point;
  check_unless_forbidden(in_child_with_mount(point.path(), "size=48k,mode=0700", 0, [&] {
    const test::LogCapture log;
    KernelCache cache(settings(point.path()));
    for (int i = 0; i < 8; ++i) {
      if (run(cache, 90 + i) != 90 + i) return 1;
    }
    if (log.warnings().size() != 1 || log.warnings()[0].find("No space") == std::string::npos) return 2;
    for (const auto& item : fs::directory_iterator(point / "cpu")) {
      if (item.path().extension() != ".kernel") return 3;  // a half-written file
    }
    // Nor may the temporary folder be full: the next one serves.
    setenv("TMPDIR", point.path().c_str(), 1);
    return run(cache, 99) == 99 ? 0 : 4;
  }));
}

TEST_CASE("kernel cache: a place from which code may not run is told", "[jit][kernel_cache]") {
  const ScratchFolder point;
  check_unless_forbidden(in_child_with_mount(point.path(), "size=1m,mode=0700", MS_NOEXEC, [&] {
    const test::LogCapture log;
    KernelCache::Settings s = settings(point.path());
    s.places = {false, {point.path()}};
    KernelCache cache(s);
    std::string error;
    if (cache.get(kernel(1), &error) != nullptr || cache.get(kernel(2)) != nullptr) return 1;
    if (error.find("noexec") == std::string::npos || error.find(point.path()) == std::string::npos) return 2;
    if (cache.stats().compiles != 1) return 3;  // the second is not compiled in vain
    if (log.warnings().size() != 1) return 4;
    // With another place, all is well.
    const ScratchFolder other;
    s.places.folders.push_back(other.path());
    KernelCache second(s);
    if (run(second, 3) != 3) return 5;
    s.places = {true, {}};
    KernelCache third(s);
    return run(third, 4) == 4 ? 0 : 6;
  }));
}

}  // namespace tandem::jit
