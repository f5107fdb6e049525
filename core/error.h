// The two kinds of errors: the user's mistake (`Error`) and ours (`InternalError`).
// Messages read `op: what was asked, what was found; a hint at file.cpp:31` and are built in cold code only.
// Free functions, any thread.
#pragma once

#include <stdexcept>
#include <string>

#include "tandem/core/location.h"

namespace tandem {

/// "file:line"; empty if it is not known.
std::string to_string(Location where);

/// The user's mistake: bad shapes, dtypes, indices, files. `what()` ends with ` at file:line` where the line
/// is known.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, Location where = {});
  Location where() const { return where_; }

 private:
  Location where_;
};

/// No memory left, on the host or a device, after all that was cached went back to it.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// A defect of Tandem itself; the message carries our own file and line.
class InternalError : public std::logic_error {
 public:
  InternalError(const std::string& message, Location ours);
};

/// Throws `Error`. Out of line so that callers stay small.
[[noreturn, gnu::cold]] void fail(const std::string& message, Location where = {});
/// Throws `e` again, an OutOfMemory as one: as it is if it names a place, else as `who: message at where`.
/// For errors of deep layers, which do not know for whom they work.
[[noreturn, gnu::cold]] void fail_again(const Error& e, const std::string& who, Location where);
/// Throws `InternalError`.
[[noreturn, gnu::cold]] void internal_error(const std::string& message, Location ours = Location::here());

}  // namespace tandem

/// Our own invariants. `message` is evaluated only when the condition fails.
#define TANDEM_INTERNAL(condition, message) \
  do {                                      \
    if (!(condition)) [[unlikely]]          \
      ::tandem::internal_error(message);    \
  } while (false)
