// Where the time goes: while a Profile lives, every eager op, every entry of a traced plan and every
// compilation of the process is timed, with the user's line. Its end writes a Chrome trace (Perfetto and
// chrome://tracing open it) and sums up.
//
// One Profile at a time; any thread may run what is timed. Without one nothing is: plans look at one word per
// run, the shortest eager ops at none.
#pragma once

#include <atomic>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/core/location.h"

namespace tandem {

/// All events of one name, kind and line, summed up.
struct ProfileRow {
  std::string name, kind;  // kind: op, backward, kernel, product, native, compile, call
  Location where;
  int64_t calls = 0;
  double total_us = 0;
  double share = 0;   // of ProfileTable::total_us; 0 for calls, which contain the others
  int64_t bytes = 0;  // entries of plans: read and written; ops: of their operands; 0: not known
};

struct ProfileTable {
  double wall_us = 0;   // from the profile's start to its end
  double total_us = 0;  // of everything timed but calls; on several threads more than the wall time
  int64_t events = 0;
  int64_t unwritten = 0;         // events beyond the file's bound: summed up here, not in the file
  std::vector<ProfileRow> rows;  // longest total first, calls before all
};
/// A table for the terminal.
std::string to_string(const ProfileTable& table);
std::ostream& operator<<(std::ostream& out, const ProfileTable& table);

class Profile {
 public:
  /// Starts. `path`: the Chrome trace; empty for none. Error if it cannot be written or another one runs.
  explicit Profile(std::string path, Location where = Location::here());
  /// Unless finished: finishes and prints the table on stderr; what fails is logged.
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  /// Ends, writes the file, and says what was measured. Called again: the same table.
  ProfileTable finish();

 private:
  std::string path_;
  Location where_;
  bool running_ = false;
  ProfileTable table_;
};

/// Times what this process does until the result goes out of scope:
///   { auto p = td::profile("step.json"); step(x, y); }
[[nodiscard]] inline Profile profile(std::string path, Location where = Location::here()) {
  return Profile(std::move(path), where);
}

namespace core {

/// Tensors of up to this many elements may be computed in ways too short to time; -1 while a profile runs.
extern constinit std::atomic<int64_t> untimed_elements;
inline constexpr int64_t kUntimedElements = 16384;
inline bool profiling() { return untimed_elements.load(std::memory_order_relaxed) < 0; }

/// Times a scope, if a profile runs. What `kind` and `name` point to outlives the scope. With `whole`, spans
/// inside are not timed on their own.
class ProfileSpan {
 public:
  ProfileSpan(const char* kind, std::string_view name, Location where, int64_t bytes = 0,
              bool whole = false) {
    if (profiling()) [[unlikely]]
      start(kind, name, where, bytes, whole);
  }
  ~ProfileSpan() {
    if (kind_) [[unlikely]]
      stop();
  }
  ProfileSpan(const ProfileSpan&) = delete;
  ProfileSpan& operator=(const ProfileSpan&) = delete;

 private:
  void start(const char* kind, std::string_view name, Location where, int64_t bytes, bool whole);
  void stop() noexcept;

  const char* kind_ = nullptr;  // null: not timed
  bool whole_ = false;
  uint32_t session_ = 0;
  std::string_view name_;
  Location where_;
  int64_t bytes_ = 0, start_ = 0;
};

}  // namespace core
}  // namespace tandem
