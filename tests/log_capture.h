// What the framework logs while a test looks on.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "tandem/core/log.h"

namespace tandem::test {

/// Collects warnings while it lives; one at a time.
class LogCapture {
 public:
  LogCapture() {
    messages().clear();
    core::set_log_sink([](core::LogArea, core::LogLevel level, const std::string& message) {
      static std::mutex mutex;
      const std::lock_guard lock(mutex);
      if (level == core::LogLevel::warn) messages().push_back(message);
    });
  }
  ~LogCapture() { core::set_log_sink(nullptr); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  const std::vector<std::string>& warnings() const { return messages(); }
  /// Whether some warning has this in it.
  bool warned(const std::string& part) const {
    for (const std::string& m : messages())
      if (m.find(part) != std::string::npos) return true;
    return false;
  }

 private:
  static std::vector<std::string>& messages() {
    static std::vector<std::string> list;
    return list;
  }
};

}  // namespace tandem::test
