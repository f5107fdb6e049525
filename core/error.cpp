#include "tandem/core/error.h"

namespace tandem {

std::string to_string(Location where) {
  return where.known() ? std::string(where.file) + ":" + std::to_string(where.line) : std::string();
}

namespace {
std::string with_location(const std::string& message, Location where) {
  return where.known() ? message + " at " + to_string(where) : message;
}
}  // namespace

Error::Error(const std::string& message, Location where)
    : std::runtime_error(with_location(message, where)), where_(where) {}

InternalError::InternalError(const std::string& message, Location ours)
    : std::logic_error(with_location("internal error (please report): " + message, ours)) {}

void fail(const std::string& message, Location where) { throw Error(message, where); }
void fail_again(const Error& e, const std::string& who, Location where) {
  const auto* memory = dynamic_cast<const OutOfMemory*>(&e);
  if (e.where().known()) {
    if (memory) throw OutOfMemory(*memory);
    throw Error(e);
  }
  if (memory) throw OutOfMemory(who + ": " + e.what(), where);
  throw Error(who + ": " + e.what(), where);
}
void internal_error(const std::string& message, Location ours) { throw InternalError(message, ours); }

}  // namespace tandem
