// The contract tests: programs that other tracers get wrong. A trap's program runs as eager code and in each
// way that traces; all that it sees (values, sizes, strides, history flags, errors, random numbers
// afterwards) must be equal bit for bit. In the frozen way a call whose body cannot be frozen, or that a
// guard refuses, goes on checked; what a frozen function does not see (docs/semantics.md, Frozen replay) is
// marked at the trap, and must differ there. With the mechanism switched off that holds the rule it must go
// wrong (another value, a missing error, a broken claim, a crash), so that no trap can pass for nothing; that
// run is a child process.
#pragma once

#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <optional>
#include <span>
#include <sstream>
#include <thread>

#include "tandem/core/log.h"
#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

namespace programs {

using td::Tensor;
using td::tracer::Mechanism;

/// How a program's functions run. Another way of replay is one more name here, its case in `Wrapped`, and its
/// line in `check`.
enum class Way : uint8_t { eager, checked, verified, frozen };

/// A thread with the default device of the one that makes it.
template <class F>
std::thread thread_of(F f) {
  return std::thread([f = std::move(f), device = td::default_device()]() mutable {
    td::set_default_device(device);
    f();
  });
}

/// Set by calls that ran without their body.
inline std::atomic<bool> ran_frozen{false};

/// A function as a way runs it.
template <class F>
class Wrapped {
 public:
  Wrapped(Way way, F f, td::TraceOptions options) : plain_(std::move(f)), frozen_(way == Way::frozen) {
    switch (way) {
      case Way::eager:
        return;
      case Way::frozen:
        options.replay = td::Replay::frozen;
        traced_.emplace(plain_, std::move(options));
        return;
      case Way::verified:
        options.verify = -1;
        [[fallthrough]];
      case Way::checked:
        traced_.emplace(plain_, std::move(options));
    }
  }
  template <class... Args>
  decltype(auto) operator()(Args&&... args) {
    using Result = std::invoke_result_t<F&, Args&&...>;
    if (frozen_) return static_cast<Result>(call_frozen<Result>(std::forward<Args>(args)...));
    return traced_ ? static_cast<Result>((*traced_)(std::forward<Args>(args)...))
                   : static_cast<Result>(std::invoke(plain_, std::forward<Args>(args)...));
  }
  /// What the trace has done; nothing in the eager way.
  std::optional<td::TraceReport> report() const {
    if (!traced_) return {};
    return traced_->report();
  }

 private:
  /// What freezing or a guard refuses has had no effect; such a call goes on checked (verified, since that is
  /// how such a function is asked for it).
  template <class Result, class... Args>
  Result call_frozen(Args&&... args) {
    const struct Note {
      Wrapped& w;
      ~Note() {
        if (!td::tracer::inside_call() && w.traced_->report().frozen_calls > 0) ran_frozen = true;
      }
    } note{*this};
    try {
      return (*traced_)(std::forward<Args>(args)...);
    } catch (const td::Error& e) {
      const std::string text = e.what();
      if (text.find(": freeze: ") == std::string::npos && text.find(" (frozen): ") == std::string::npos)
        throw;
    }
    return traced_->check(std::forward<Args>(args)...);
  }

  F plain_;
  bool frozen_;
  std::optional<td::TracedFunction<F>> traced_;
};

/// One run of a program: wraps its functions and writes down what it sees.
class Run {
 public:
  explicit Run(Way way) : way_(way) {}

  template <class F>
  Wrapped<F> wrap(F f, td::TraceOptions options = {.compile = false}) const {
    return {way_, std::move(f), std::move(options)};
  }

  void see(const Tensor& t) {
    std::ostringstream out;
    if (!t.defined()) return see("undefined");
    out << td::name(t.dtype()) << td::to_string(t.sizes()) << " strides " << td::to_string(t.strides())
        << (t.requires_grad() ? " requires grad" : "") << (t.is_leaf() ? " leaf" : "") << ":";
    if (td::is_floating(t.dtype())) {
      for (const double v : t.to_vector<double>())
        out << ' ' << std::hexfloat << v << '=' << std::defaultfloat << v;
    } else {
      for (const int64_t v : t.to_vector<int64_t>()) out << ' ' << v;
    }
    seen.push_back(out.str());
  }
  void see(std::string text) { seen.push_back(std::move(text)); }
  void see(const char* text) { seen.emplace_back(text); }
  template <td::Number T>
  void see(T v) {
    std::ostringstream out;
    out << std::hexfloat << static_cast<double>(v) << '=' << std::defaultfloat << static_cast<double>(v);
    seen.push_back(out.str());
  }
  /// Runs f and sees what it throws.
  template <class F>
  void attempt(F&& f) {
    try {
      f();
    } catch (const std::exception& e) {
      see(std::string("threw: ") + e.what());
    }
  }
  /// What must hold of a traced function besides what the program sees: `claim(f, [](const auto& r) { ...
  /// })`.
  template <class F, class Holds>
  void claim(const Wrapped<F>& f, Holds&& holds) {
    if (const auto report = f.report(); report && way_ == Way::checked && !holds(*report))
      see("a claim does not hold: " + to_string(*report));
  }

  std::vector<std::string> seen;

 private:
  Way way_;
};

/// Why a frozen function cannot follow the program, without an Error: host state that changes without a trace
/// in any observed call.
struct HostState {
  const char* reason = nullptr;
};

struct Trap {
  const char* peers;  // who falls into it, or the rule of docs/semantics.md that it stands for
  Mechanism mechanism;
  void (*program)(Run&);
  HostState unseen = {};
};
/// All of this binary.
inline std::vector<Trap>& traps() {
  static std::vector<Trap> all;
  return all;
}
struct Registered {
  explicit Registered(const Trap& t) { traps().push_back(t); }
};

inline std::vector<std::string> run_program(Way way, void (*program)(Run&)) {
  td::manual_seed(11);
  Run run(way);
  try {
    program(run);
    run.see(td::rand({2}));
    run.see("done");
  } catch (const std::exception& e) {
    run.see(std::string("the program threw: ") + e.what());
  }
  return run.seen;
}

/// True if `holds` returns true in a child process with the mechanism off.
inline bool holds_without(Mechanism m, const std::function<bool()>& holds) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    // A crash is an answer, and so is a loop.
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) std::signal(signal, SIG_DFL);
    alarm(20);
    std::freopen("/dev/null", "w", stderr);
    td::core::set_log("off");
    td::tracer::mechanisms_off = uint64_t{1} << static_cast<uint32_t>(m);
    bool right = false;
    try {
      right = holds();
    } catch (...) {
    }
    _exit(right ? 0 : 1);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

inline void check(const Trap& trap) {
  INFO(trap.peers);
  const std::vector<std::string> eager = run_program(Way::eager, trap.program);
  REQUIRE(eager.back() == "done");
  for (const Way way : {Way::checked, Way::verified, Way::frozen}) {
    INFO((way == Way::checked    ? "checked replay"
          : way == Way::verified ? "every call verified"
                                 : "frozen replay"));
    const std::vector<std::string> traced = run_program(way, trap.program);
    if (way == Way::frozen && trap.unseen.reason) {
      INFO("what frozen replay does not see: " << trap.unseen.reason);
      CHECK(traced != eager);
      continue;
    }
    for (size_t i = 0; i < std::min(eager.size(), traced.size()); ++i) {
      INFO("observation " << i);
      CHECK(traced[i] == eager[i]);
      if (traced[i] != eager[i]) break;
    }
    CHECK(traced.size() == eager.size());
    CHECK(traced.back() == eager.back());
  }
  INFO("checked replay with the mechanism off");
  CHECK_FALSE(
      holds_without(trap.mechanism, [&] { return run_program(Way::checked, trap.program) == eager; }));
}

#define TANDEM_TRAP_NAMED(id, name, peers, mechanism, ...)                                             \
  static void id(programs::Run& run);                                                                  \
  static const programs::Trap id##_row = {peers, Mechanism::mechanism, id __VA_OPT__(, ) __VA_ARGS__}; \
  static const programs::Registered id##_registered(id##_row);                                         \
  TEST_CASE("trap: " name, "[contract]") { check(id##_row); }                                          \
  static void id(programs::Run& run)
#define TANDEM_TRAP_WITH(id, ...) TANDEM_TRAP_NAMED(id, __VA_ARGS__)
#define TANDEM_TRAP_JOIN2(a, b) a##b
#define TANDEM_TRAP_JOIN(a, b) TANDEM_TRAP_JOIN2(a, b)
/// TRAP("what the program does", "who falls into it", mechanism) { ... run ... }
/// A fourth argument, HostState{"reason"}: frozen replay does not see it.
#define TRAP(...) TANDEM_TRAP_WITH(TANDEM_TRAP_JOIN(trap_, __LINE__), __VA_ARGS__)

/// A rule that is more than equal results.
struct Contract {
  const char* rule;
  const char* text;
  Mechanism mechanism;
  bool (*holds)();
};

/// All rows first, then all with their mechanisms off.
inline void check_contracts(std::span<const Contract> rows) {
  for (const Contract& c : rows) {
    INFO(c.rule << ": " << c.text);
    CHECK(c.holds());
  }
  for (const Contract& c : rows) {
    INFO(c.rule << ", with its mechanism off: " << c.text);
    CHECK_FALSE(holds_without(c.mechanism, c.holds));
  }
}

}  // namespace programs
