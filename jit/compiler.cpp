#include "tandem/jit/compiler.h"

#include <cpuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <sstream>
#include <system_error>
#include <utility>

#include "tandem/core/env.h"
#include "tandem/core/log.h"
#include "tandem/jit/child_process.h"

namespace tandem::jit {

namespace {

constexpr char kSourceName[] = "kernel.cpp";
constexpr char kObjectName[] = "kernel.so";
constexpr size_t kObjectLimit = size_t{256} << 20;
constexpr size_t kMessageLimit = 6000;

bool executable_file(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && access(path.c_str(), X_OK) == 0;
}

// The child runs in another folder, so relative names are made absolute; relative entries of PATH are
// skipped, as they would run whatever lies in the current folder. Links are kept: some compilers act on the
// name they are called by.
std::string locate(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    std::error_code error;
    const std::string path = std::filesystem::absolute(name, error).string();
    return !error && executable_file(path) ? path : std::string();
  }
  const char* search = std::getenv("PATH");
  std::istringstream entries(search != nullptr ? search : "/usr/local/bin:/usr/bin:/bin");
  for (std::string entry; std::getline(entries, entry, ':');) {
    if (entry.empty() || entry[0] != '/') continue;
    const std::string path = entry + "/" + name;
    if (executable_file(path)) return path;
  }
  return {};
}

// The line of the source that the first message names, unless the compiler has shown it already.
std::string quoted_line(const std::string& source, const std::string& message) {
  const std::string mark = std::string(kSourceName) + ":";
  const size_t at = message.find(mark);
  if (at == std::string::npos) return {};
  const int64_t wanted = std::strtoll(message.c_str() + at + mark.size(), nullptr, 10);
  std::istringstream lines(source);
  std::string line;
  for (int64_t number = 1; std::getline(lines, line); ++number) {
    if (number != wanted) continue;
    if (line.empty() || message.find(line) != std::string::npos) return {};
    return "\nline " + std::to_string(number) + ": " + line;
  }
  return {};
}

std::string failure_text(const std::string& compiler, const ChildResult& run, const std::string& source) {
  std::string message = run.output;
  while (!message.empty() && message.back() == '\n') message.pop_back();
  const std::string quote = quoted_line(source, message);
  if (message.size() > kMessageLimit) message = message.substr(0, kMessageLimit) + "\n...";
  return compiler + " failed (" + run.failure + ")" + (message.empty() ? "" : ":\n" + message) + quote;
}

std::vector<std::string> names_for(const std::string& wanted) {
  return wanted.empty() ? std::vector<std::string>{"c++", "g++", "clang++"}
                        : std::vector<std::string>{wanted};
}

/// What `expect` has started, until it is asked for.
struct Expected {
  std::mutex mutex;  // guards what follows
  bool begun = false;
  int process = 0;  // that started it
  std::string path;
  std::unique_ptr<Child> child;
};
Expected& expected() {
  static auto* const e = new Expected;
  return *e;
}

ChildResult version_of(const std::string& path, int time_limit_ms) {
  std::unique_ptr<Child> child;
  {
    Expected& e = expected();
    const std::lock_guard lock(e.mutex);
    if (e.child && e.path == path && e.process == getpid()) child = std::move(e.child);
  }
  return child ? child->finish() : run_child({path, "--version"}, "/", time_limit_ms);
}

}  // namespace

void HostCompiler::expect() {
  Expected& e = expected();
  const std::lock_guard lock(e.mutex);
  if (std::exchange(e.begun, true) || core::environment().compiler == "none") return;
  for (const std::string& name : names_for(core::environment().compiler)) {
    e.path = locate(name);
    if (e.path.empty()) continue;
    e.process = getpid();
    e.child = std::make_unique<Child>(std::vector<std::string>{e.path, "--version"}, "/", kTimeLimitMs);
    return;
  }
}

void HostCompiler::expect_no_more() {
  std::unique_ptr<Child> child;
  Expected& e = expected();
  const std::lock_guard lock(e.mutex);
  if (e.process == getpid()) child = std::move(e.child);
}

std::unique_ptr<const HostCompiler> HostCompiler::find(const std::string& wanted, std::string* why,
                                                       int time_limit_ms) {
  if (wanted == "none") return nullptr;
  std::string tried;
  for (const std::string& name : names_for(wanted)) {
    const std::string path = locate(name);
    tried += (tried.empty() ? "" : "; ") + name;
    if (path.empty()) {
      tried += name.find('/') == std::string::npos ? ": not on PATH" : ": no such program";
      continue;
    }
    const ChildResult version = version_of(path, time_limit_ms);
    if (version.output.empty() || !(version.ok || version.unknown)) {
      tried += " --version: " + (version.failure.empty() ? "no answer" : version.failure);
      continue;
    }
    struct stat info {};
    stat(path.c_str(), &info);
    std::unique_ptr<HostCompiler> compiler(new HostCompiler);
    compiler->path_ = path;
    compiler->identity_ = version.output + "file " + std::to_string(info.st_size) + " " +
                          std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec);
    compiler->time_limit_ms_ = time_limit_ms;
    return compiler;
  }
  if (why != nullptr) *why = tried;
  return nullptr;
}

const HostCompiler* HostCompiler::of_process() {
  static const HostCompiler* const compiler = [] {
    {
      const std::lock_guard lock(expected().mutex);
      expected().begun = true;  // from now on there is nothing to expect
    }
    std::string why;
    const HostCompiler* found = find(core::environment().compiler, &why).release();
    if (found == nullptr && !why.empty()) {
      core::log(
          core::LogArea::jit, core::LogLevel::warn,
          "no C++ compiler (" + why +
              "): kernels are interpreted, which is slower; install g++ or name a compiler in TANDEM_CXX "
              "(TANDEM_CXX=none silences this)");
    }
    return found;
  }();
  return compiler;
}

const std::vector<std::string>& HostCompiler::default_options() {
  // Without the width, GCC vectorises for 256 bits on most processors that have 512.
  static const auto* const options =
      new std::vector<std::string>{"-O3", "-march=native", "-mprefer-vector-width=512"};
  return *options;
}

std::vector<std::string> HostCompiler::arguments(const std::vector<std::string>& options) {
  std::vector<std::string> result = {"-x", "c++", "-std=gnu++20"};
  result.insert(result.end(), options.begin(), options.end());
  for (const char* fixed : {"-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions",
                            "-fno-stack-protector", "-w", "-fPIC", "-shared", "-pipe", "-nostdinc",
                            "-nostdlib", "-Wl,-Bsymbolic"}) {
    result.emplace_back(fixed);
  }
  return result;
}

CompileResult HostCompiler::compile(const std::string& source,
                                    const std::vector<std::string>& options) const {
  const auto start = std::chrono::steady_clock::now();
  CompileResult result;
  std::vector<std::string> command = {path_};
  for (std::string& argument : arguments(options)) command.push_back(std::move(argument));
  // The C library itself is in every process: what a compiler calls of it (memcpy, memset) is found there.
  // To read its table of symbols would take as long as linking the rest.
  for (const char* last : {"-o", kObjectName, kSourceName, "-lm", "-lgcc"}) command.emplace_back(last);

  result.error = "no folder for temporary files could be written (TMPDIR, /tmp, /dev/shm)";
  for (const std::string& parent : temporary_folders()) {
    const PrivateFolder folder(parent);
    if (folder.path().empty() || !write_new_file(folder.path() + "/" + kSourceName, source)) continue;
    const ChildResult run = run_child(command, folder.path(), time_limit_ms_);
    const bool read = read_file(folder.path() + "/" + kObjectName, kObjectLimit, &result.object);
    if (read && (run.ok || (run.unknown && run.output.empty()))) {
      result.error.clear();
      break;
    }
    result.object.clear();
    result.error = run.ok ? path_ + " wrote no object" : failure_text(path_, run, source);
    // A full disk is no property of the source: another folder may have room.
    if (run.output.find("No space left on device") == std::string::npos) break;
  }
  result.time_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result;
}

const std::string& host_processor() {
  static const auto* const text = [] {
    auto* words = new std::string;
    const auto append = [words](uint32_t value) {
      char digits[16];
      std::snprintf(digits, sizeof digits, " %x", value);
      *words += digits;
    };
    // Only registers that describe the kind of processor: others name the core on which we happen to run.
    constexpr unsigned kA = 1, kB = 2, kC = 4, kD = 8;
    struct Leaf {
      uint32_t leaf, subleaf;
      unsigned registers;
    };
    bool saves_state = false;
    for (const Leaf& l :
         {Leaf{0, 0, kB | kC | kD}, Leaf{1, 0, kA | kC | kD}, Leaf{7, 0, kB | kC | kD},
          Leaf{7, 1, kA | kB | kC | kD}, Leaf{7, 2, kD}, Leaf{0xd, 1, kA}, Leaf{0x14, 0, kB},
          Leaf{0x19, 0, kB}, Leaf{0x24, 0, kB}, Leaf{0x80000001, 0, kC | kD}, Leaf{0x80000008, 0, kB}}) {
      uint32_t a = 0, b = 0, c = 0, d = 0;
      __get_cpuid_count(l.leaf, l.subleaf, &a, &b, &c, &d);
      if (l.leaf == 1) saves_state = (c >> 27 & 1) != 0;
      if (l.registers & kA) append(a);
      if (l.registers & kB) append(b);
      if (l.registers & kC) append(c);
      if (l.registers & kD) append(d);
    }
    if (saves_state) {  // which vector registers the operating system keeps
      uint32_t low, high;
      __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
      append(low);
    }
    return words;
  }();
  return *text;
}

}  // namespace tandem::jit
