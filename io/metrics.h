// Numbers of a training run as a file of JSON lines, for scripts: {"step": 20, "time": 1763781000.5, "loss":
// 2.25}. A MetricsFile owns the open file; any thread may write. In a traced body,
// writing is host code: it happens on each call whose body runs, so not in a frozen one.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "tandem/core/location.h"

namespace tandem::core {
class AppendFile;
}

namespace tandem {

struct MetricsOptions {
  /// For a run that is resumed after this step: lines of later steps are removed first.
  std::optional<int64_t> last_step = {};
  std::function<double()> clock = {};  // seconds since 1970; default: the system's
};

class MetricsFile {
 public:
  /// Appends to `path`, whose folder is made. A last line that a killed process left without its end is
  /// removed. Errors: lines that are no JSON object with a whole "step" (naming the line; the file is left as
  /// it is), and what the system says of the file.
  explicit MetricsFile(const std::string& path, const MetricsOptions& options = {},
                       Location where = Location::here());
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  using Numbers = std::span<const std::pair<std::string, double>>;
  /// One line, which is in the file when the call returns. Numbers are written with all their digits; those
  /// that JSON does not have as the strings "nan", "inf" and "-inf", which Python's float() takes as it takes
  /// numbers. Errors: a name that is empty, given twice, "step", "time" or not UTF-8.
  void write(int64_t step, Numbers numbers, Location where = Location::here());
  void write(int64_t step, std::initializer_list<std::pair<std::string, double>> numbers,
             Location where = Location::here()) {
    write(step, Numbers(numbers.begin(), numbers.size()), where);
  }

  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  const std::function<double()> clock_;
  std::mutex mutex_;
  std::unique_ptr<core::AppendFile> file_;
};

}  // namespace tandem
