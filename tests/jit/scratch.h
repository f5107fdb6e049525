// What the tests of the JIT's files and processes share: a folder that vanishes, and a record of what was
// logged.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "tandem/core/log.h"

namespace tandem::jit {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "tandem-test-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  /// Writes an executable shell script and returns its path.
  std::string script(const std::string& name, const std::string& body) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << body;
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }

 private:
  std::string path_;
};

inline std::string contents_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
}

/// The paths of what lies in a folder.
inline std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& item : std::filesystem::directory_iterator(folder)) paths.push_back(item.path().string());
  return paths;
}

/// Collects warnings while it lives.
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

 private:
  static std::vector<std::string>& messages() {
    static std::vector<std::string> list;
    return list;
  }
};

}  // namespace tandem::jit
