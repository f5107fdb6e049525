// The host compiler that turns printed kernels into shared objects, as a child process.
// A HostCompiler is an immutable value; any thread may compile, several at once. The process's own lives to
// its end.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace tandem::jit {

/// What a compilation gave: a shared object, or the reason why there is none.
struct CompileResult {
  std::string object;  // bytes of the shared object; empty on failure
  std::string error;   // compiler, its message and the source line it names; empty on success
  double time_ms = 0;
  bool ok() const { return error.empty(); }
};

class HostCompiler {
 public:
  static constexpr int kTimeLimitMs = 60'000;

  /// `wanted`: a path, a name looked up on PATH, "" for the first of c++, g++, clang++ that answers, "none"
  /// for none. Null when there is none; `why`, if given, then says what was tried (it stays empty for
  /// "none").
  static std::unique_ptr<const HostCompiler> find(const std::string& wanted, std::string* why = nullptr,
                                                  int time_limit_ms = kTimeLimitMs);
  /// The one named by TANDEM_CXX, asked for its version at first use; null, after one warning, when there is
  /// none.
  static const HostCompiler* of_process();
  /// Kernels will be wanted soon: starts asking, so that `of_process` finds the answer.
  static void expect();
  /// Nothing is waiting for that answer: stops asking.
  static void expect_no_more();

  const std::string& path() const { return path_; }
  /// What is known of it, for cache keys: its own version text, and the size and time of its file. No path.
  const std::string& identity() const { return identity_; }

  /// -O3 for this machine's processor.
  static const std::vector<std::string>& default_options();
  /// All arguments of a compilation but the compiler's path and files: part of a cache key.
  static std::vector<std::string> arguments(const std::vector<std::string>& options);

  /// Compiles `source` (C++20, no includes: they are refused, for they would escape a cache key; libm may be
  /// called through declarations) in a private folder. Floating-point results do not depend on contraction.
  CompileResult compile(const std::string& source,
                        const std::vector<std::string>& options = default_options()) const;

 private:
  HostCompiler() = default;

  std::string path_, identity_;
  int time_limit_ms_ = kTimeLimitMs;
};

/// Identifies what `-march=native` means here: the processor's maker, model and features. Objects made for
/// one processor must not be loaded on another that shares the cache folder.
const std::string& host_processor();

}  // namespace tandem::jit
