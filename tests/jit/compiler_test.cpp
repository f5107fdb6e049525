#include "tandem/jit/compiler.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <thread>

#include "tandem/jit/child_process.h"
#include "tandem/jit/module.h"
#include "tests/catch.h"
#include "tests/jit/scratch.h"

namespace tandem::jit {
namespace {

const std::vector<std::string> kFast = {"-O0"};

const HostCompiler& compiler() {
  static const auto found = HostCompiler::find("").release();
  REQUIRE(found != nullptr);
  return *found;
}

std::shared_ptr<const Module> load(const CompileResult& compiled, const std::string& key,
                                   const LoadPlaces& places = {}) {
  INFO(compiled.error);
  REQUIRE(compiled.ok());
  std::string error;
  bool no_place = false;
  auto module = Module::load(compiled.object, "", key, places, &error, &no_place);
  INFO(error);
  REQUIRE(module != nullptr);
  return module;
}

template <class F>
F* function(const std::shared_ptr<const Module>& module, const char* name) {
  void* address = module->symbol(name);
  REQUIRE(address != nullptr);
  return reinterpret_cast<F*>(address);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int open_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

bool no_child_left() { return waitpid(-1, nullptr, WNOHANG) == -1 && errno == ECHILD; }

}  // namespace

// The first test of the file: a process asks for its compiler once.
TEST_CASE("compiler: one that was expected and is not wanted leaves no child", "[jit][compiler]") {
  HostCompiler::expect();
  siginfo_t child{};
  const bool asked = waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0;
  if (!asked) return;
  HostCompiler::expect_no_more();
  const int left = waitpid(-1, nullptr, WNOHANG), error = errno;
  CHECK(left == -1);
  CHECK(error == ECHILD);
}

TEST_CASE("compiler: a kernel is compiled, loaded and called", "[jit][compiler]") {
  const std::string source = R"(
typedef float v16 __attribute__((vector_size(64)));
extern "C" float sqrtf(float);
extern "C" double cosh(double);
extern "C" void scale(float* a, long n, float f) {
  for (long i = 0; i + 16 <= n; i += 16) {
    v16 x; __builtin_memcpy(&x, a + i, 64);
    x *= f; __builtin_memcpy(a + i, &x, 64);
  }
}
extern "C" double call_libm(double x) { return cosh(x); }
extern "C" double square_minus(double a, double b) { return a * a - b; }
)";
  const auto module = load(compiler().compile(module_source(source, "k")), "k");
  float values[32];
  for (int i = 0; i < 32; ++i) values[i] = static_cast<float>(i);
  function<void(float*, long, float)>(module, "scale")(values, 32, 3.0f);
  for (int i = 0; i < 32; ++i) CHECK(values[i] == 3.0f * static_cast<float>(i));
  CHECK(function<double(double)>(module, "call_libm")(0.75) == std::cosh(0.75));
  // With a fused multiply-add this would be 2^-54.
  const double a = 1 + std::ldexp(1.0, -27);
  CHECK(function<double(double, double)>(module, "square_minus")(a, 1 + std::ldexp(1.0, -26)) == 0.0);
  CHECK(module->symbol("not_there") == nullptr);
}

TEST_CASE("compiler: what it refuses is reported with its words and the line", "[jit][compiler]") {
  const CompileResult wrong =
      compiler().compile("extern \"C\" int fine();\nint broken = nothing_of_this_name;\n", kFast);
  CHECK_FALSE(wrong.ok());
  CHECK(wrong.object.empty());
  CHECK_THAT(wrong.error, Contains("kernel.cpp:2") && Contains("int broken = nothing_of_this_name;") &&
                              Contains(compiler().path()) && Contains("exit status"));

  SECTION("headers would escape the key of a cache") {
    CHECK_FALSE(compiler().compile("#include <cmath>\n", kFast).ok());
    CHECK_FALSE(compiler().compile("#include <stddef.h>\n", kFast).ok());
  }
  SECTION("the line is quoted for a compiler that does not") {
    const ScratchFolder folder;
    const std::string body =
        "[ \"$1\" = --version ] && { echo terse 1; exit; }\necho 'kernel.cpp:2:1: error: bad' >&2\nexit 1\n";
    const auto terse = HostCompiler::find(folder.script("terse", body));
    REQUIRE(terse != nullptr);
    CHECK_THAT(terse->compile("first;\nsecond;\nthird;\n").error, Contains("error: bad\nline 2: second;"));
  }
  SECTION("an unknown function is noticed when the object is loaded") {
    const CompileResult compiled =
        compiler().compile(module_source("void nowhere(); extern \"C\" void f() { nowhere(); }", "k"), kFast);
    REQUIRE(compiled.ok());
    std::string error;
    bool no_place = true;
    CHECK(Module::load(compiled.object, "", "k", {}, &error, &no_place) == nullptr);
    CHECK_THAT(error, Contains("nowhere"));
    CHECK_FALSE(no_place);
  }
}

TEST_CASE("compiler: how one is found", "[jit][compiler]") {
  const ScratchFolder folder;
  std::string why;
  CHECK(HostCompiler::find("none", &why) == nullptr);
  CHECK(why.empty());
  CHECK(HostCompiler::find(folder / "absent", &why) == nullptr);
  CHECK_THAT(why, Contains("absent: no such program"));
  CHECK(HostCompiler::find("no-compiler-of-this-name", &why) == nullptr);
  CHECK_THAT(why, Contains("not on PATH"));
  CHECK(HostCompiler::find(folder.script("refuses", "exit 3\n"), &why) == nullptr);
  CHECK_THAT(why, Contains("exit status 3"));
  CHECK(HostCompiler::find(folder.script("silent", "exit 0\n"), &why) == nullptr);
  CHECK_THAT(why, Contains("no answer"));

  const auto one = HostCompiler::find(folder.script("one", "echo version 1\n"));
  const auto two = HostCompiler::find(folder.script("two", "echo version 2\n"));
  REQUIRE(one != nullptr);
  REQUIRE(two != nullptr);
  CHECK(one->identity() != two->identity());
  CHECK_THAT(one->identity(), Contains("version 1"));
  CHECK(one->identity().find(folder.path()) == std::string::npos);
  CHECK(host_processor().size() > 40);
}

TEST_CASE("compiler: the time limit ends the compiler and all that it started", "[jit][compiler]") {
  const ScratchFolder folder;
  const std::string body = "if [ \"$1\" = --version ]; then echo slow 1; exit; fi\nsleep 1000 & echo $! > '" +
                           folder.path() + "/pid'\nwait\n";
  const auto slow = HostCompiler::find(folder.script("slow", body), nullptr, 1000);
  REQUIRE(slow != nullptr);
  const auto start = std::chrono::steady_clock::now();
  const CompileResult compiled = slow->compile("", kFast);
  CHECK(seconds_since(start) < 20);
  CHECK_THAT(compiled.error, Contains("stopped after 1000 ms"));
  CHECK(no_child_left());
  const int grandchild = std::atoi(contents_of(folder / "pid").c_str());
  REQUIRE(grandchild > 0);
  // It is gone, or a zombie that waits for its new parent: no longer running in any case.
  std::string state;
  for (int i = 0; i < 100; ++i) {
    state = contents_of("/proc/" + std::to_string(grandchild) + "/stat");
    if (state.empty() || state.find(") Z") != std::string::npos) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK((state.empty() || state.find(") Z") != std::string::npos));
}

TEST_CASE("compiler: nothing is left behind", "[jit][compiler]") {
  const ScratchFolder folder;
  const char* before = std::getenv("TMPDIR");
  const std::string saved = before != nullptr ? before : "";
  setenv("TMPDIR", folder.path().c_str(), 1);
  const int descriptors = open_descriptors();
  CHECK(compiler().compile("extern \"C\" int f() { return 1; }", kFast).ok());
  CHECK_FALSE(compiler().compile("this is not C++", kFast).ok());
  load(compiler().compile(module_source("", "a"), kFast), "a");
  load(compiler().compile(module_source("", "b"), kFast), "b", {false, {folder.path()}});
  const std::string full =
      folder.script("full", "case \"$TMPDIR\" in '" + folder.path() +
                                "'/*) echo 'No space left on device'; exit 1;; esac\nexec '" +
                                compiler().path() + "' \"$@\"\n");
  const auto elsewhere = HostCompiler::find(full);
  REQUIRE(elsewhere != nullptr);
  CHECK(elsewhere->compile("extern \"C\" int f() { return 1; }", kFast).ok());  // in the next folder
  std::filesystem::remove(full);
  CHECK(open_descriptors() == descriptors);
  CHECK(no_child_left());
  CHECK(std::filesystem::is_empty(folder.path()));
  if (before != nullptr) {
    setenv("TMPDIR", saved.c_str(), 1);
  } else {
    unsetenv("TMPDIR");
  }
}

TEST_CASE("compiler: several threads compile at once, each gets its own", "[jit][compiler]") {
  const HostCompiler& host = compiler();  // assertions do not belong into threads
  std::vector<std::thread> threads;
  std::vector<CompileResult> results(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i, &results, &host] {
      const std::string source = "extern \"C\" int f() { return " + std::to_string(100 + i) + "; }";
      results[static_cast<size_t>(i)] = host.compile(module_source(source, std::to_string(i)), kFast);
    });
  }
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 4; ++i) {
    const auto module = load(results[static_cast<size_t>(i)], std::to_string(i));
    CHECK(function<int()>(module, "f")() == 100 + i);
  }
}

TEST_CASE("module: each load gives the object it was given, and no other", "[jit][module]") {
  const CompileResult first =
      compiler().compile(module_source("extern \"C\" int f() { return 1; }", "first"), kFast);
  const CompileResult second =
      compiler().compile(module_source("extern \"C\" int f() { return 2; }", "second"), kFast);
  const ScratchFolder folder;
  // Descriptor numbers, and so naive paths, are the same each time.
  for (const LoadPlaces& places : {LoadPlaces{true, {}}, LoadPlaces{false, {folder.path()}}}) {
    for (int i = 0; i < 20; ++i) {
      CHECK(function<int()>(load(first, "first", places), "f")() == 1);
      CHECK(function<int()>(load(second, "second", places), "f")() == 2);
    }
  }
  std::string error;
  bool no_place = true;
  CHECK(Module::load(first.object, "", "second", {}, &error, &no_place) == nullptr);
  CHECK_THAT(error, Contains("not the one"));
  CHECK_FALSE(no_place);
  CHECK(Module::load("no object", "", "k", {}, &error, &no_place) == nullptr);
  CHECK_FALSE(no_place);
  CHECK(Module::load(first.object, "", "first", {false, {folder / "absent"}}, &error, &no_place) == nullptr);
  CHECK(no_place);
  CHECK_THAT(error, Contains("TMPDIR"));
}

TEST_CASE("child process: how it ends is told", "[jit][child_process]") {
  const ScratchFolder folder;
  const auto shell = [&](const std::string& command, int time_limit_ms = 20'000) {
    return run_child({"/bin/sh", "-c", command}, folder.path(), time_limit_ms);
  };
  CHECK(shell("pwd").output == folder.path() + "\n");
  CHECK(shell("exit 7").failure == "exit status 7");
  CHECK(shell("kill -9 $$").failure == "killed by signal 9");
  CHECK_THAT(run_child({folder / "absent"}, folder.path(), 1000).failure, Contains("cannot start"));
  CHECK_THAT(run_child({"/bin/sh"}, folder / "absent", 1000).failure, Contains("cannot start"));
  CHECK(shell("cat; echo done").output == "done\n");  // standard input is empty
  CHECK(shell("echo $LC_ALL $TMPDIR").output == "C " + folder.path() + "\n");

  SECTION("standard error is kept too; long output is read, and cut") {
    CHECK(shell("echo a; echo b >&2; echo c").output == "a\nb\nc\n");
    const ChildResult loud = shell(
        "i=0; while [ $i -lt 2000 ]; do echo 0123456789012345678901234567890123456789; "
        "i=$((i+1)); done; echo end > end");
    CHECK(loud.ok);
    CHECK(loud.output.size() == 16384);
    CHECK(std::filesystem::exists(folder / "end"));
  }
  SECTION("our descriptors stay ours") {
    const int fd = open("/dev/null", O_RDONLY);  // on purpose without O_CLOEXEC
    CHECK(shell("[ -e /proc/self/fd/" + std::to_string(fd) + " ] && echo leaked").output.empty());
    close(fd);
  }
  SECTION("an interrupt for the child's group does not reach us, nor ours it") {
    CHECK(shell("kill -INT 0; sleep 20").failure == "killed by signal 2");
    CHECK(shell("trap 'exit 5' INT; kill -INT $$; exit 6").failure == "exit status 5");
  }
  SECTION("signals that we ignore are not ignored there") {
    struct sigaction ignore {
    }, before{};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGTERM, &ignore, &before);
    const ChildResult result = shell("kill -TERM $$; exit 3");
    sigaction(SIGTERM, &before, nullptr);
    CHECK(result.failure == "killed by signal 15");
  }
  SECTION("a server that keeps the output open does not keep us waiting") {
    const auto start = std::chrono::steady_clock::now();
    const ChildResult result = shell("sleep 15 & echo started $!");
    CHECK(result.ok);
    CHECK(seconds_since(start) < 10);
    REQUIRE(result.output.rfind("started ", 0) == 0);
    kill(std::atoi(result.output.c_str() + 8), SIGKILL);
  }
  SECTION("a program that ignores its children still compiles") {
    struct sigaction ignore {
    }, before{};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGCHLD, &ignore, &before);
    const ChildResult result = shell("echo text");
    const auto found = HostCompiler::find("");
    const CompileResult good = compiler().compile("extern \"C\" int f() { return 1; }", kFast);
    const CompileResult bad = compiler().compile("this is not C++", kFast);
    sigaction(SIGCHLD, &before, nullptr);
    CHECK(result.output == "text\n");
    CHECK(result.unknown);
    CHECK(found != nullptr);
    CHECK(good.ok());
    CHECK_FALSE(bad.ok());
  }
}

}  // namespace tandem::jit
