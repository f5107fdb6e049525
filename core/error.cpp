#include "tandem/core/error.h"

namespace tandem {

namespace {
std::string with_location(const std::string& message, Location where) {
  if (!where.known()) return message;
  return message + " at " + where.file + ":" + std::to_string(where.line);
}
}  // namespace

Error::Error(const std::string& message, Location where)
    : std::runtime_error(with_location(message, where)), where_(where) {}

InternalError::InternalError(const std::string& message, Location ours)
    : std::logic_error(with_location("internal error (please report): " + message, ours)) {}

void fail(const std::string& message, Location where) { throw Error(message, where); }
void fail_again(const Error& e, const std::string& who, Location where) {
  if (e.where().known()) throw e;
  throw Error(who + ": " + e.what(), where);
}
void internal_error(const std::string& message, Location ours) { throw InternalError(message, ours); }

}  // namespace tandem
