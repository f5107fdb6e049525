// Logs for TensorBoard: event files as PyTorch's SummaryWriter writes them. A Writer owns one file; any
// thread may add to it. In a traced call, what is added of a tensor is a read, as item() is; a frozen call
// does not run its body, and freezing a body that reads is refused: there, add what the call returns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tandem/eager/tensor.h"

namespace tandem::tensorboard {

struct WriterOptions {
  std::string comment = {};                // the end of the default folder's name
  std::optional<int64_t> purge_step = {};  // TensorBoard hides what earlier files hold of this step and later
  int64_t max_queue = 10;                  // so many values are kept before they are written
  double flush_secs = 120;                 // a value that is added after so long has all written
  std::string filename_suffix = {};
  std::function<double()> clock = {};  // seconds since 1970; default: the system's
};

/// Writes a file `events.out.tfevents.<seconds>.<host>.<process>.<number>` into a folder, which is made; its
/// name sorts behind those that are there, since TensorBoard reads a folder's files in the order of their
/// names. A killed process leaves whole values and perhaps a part of the last one, which readers pass over;
/// those that were kept are lost. Errors of all methods: texts that are not UTF-8, empty tags, and what the
/// system says of the file, such as a full disk: then nothing was written and what was kept still is, for the
/// next try.
class Writer {
 public:
  /// By default into "runs/<date>_<time>_<host><comment>".
  explicit Writer(const std::string& log_dir = "", const WriterOptions& options = {},
                  Location where = Location::here());
  /// Writes what is kept; where that fails, a warning is logged.
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// A number, kept as float32; NaN and infinities, too. `walltime`: seconds since 1970, default now.
  void add_scalar(const std::string& tag, double value, int64_t global_step = 0,
                  std::optional<double> walltime = {}, Location where = Location::here());
  /// A tensor of one element, any dtype and device.
  void add_scalar(const std::string& tag, const Tensor& value, int64_t global_step = 0,
                  std::optional<double> walltime = {}, Location where = Location::here());
  /// The distribution of a tensor's elements over TensorFlow's bins, whose limits are 0, +-1e-12 times powers
  /// of 1.1 up to 1e20, and beyond (PyTorch's default, bins="tensorflow", which drops what is beyond).
  /// Elements that are not finite belong to no bin, and not to the minimum, maximum and sums; how many there
  /// are is added as the scalar `<tag>/not_finite` if there are any. Errors: a tensor without elements.
  void add_histogram(const std::string& tag, const Tensor& values, int64_t global_step = 0,
                     std::optional<double> walltime = {}, Location where = Location::here());
  /// A text, shown as Markdown under the tag `<tag>/text_summary`, as PyTorch names it.
  void add_text(const std::string& tag, const std::string& text, int64_t global_step = 0,
                std::optional<double> walltime = {}, Location where = Location::here());
  /// All that log_scalar() kept (take_scalars()): each name a tag, each value's index plus `first_step` its
  /// step. For what a traced step logs without waiting for it (a body that logs cannot be frozen). Values
  /// that find no room are added by the next call.
  void add_logged(int64_t first_step = 0, Location where = Location::here());

  /// Writes what is kept.
  void flush(Location where = Location::here());
  /// flush(), after which nothing can be added.
  void close(Location where = Location::here());

  /// The folder and the file in it.
  const std::string& log_dir() const;
  const std::string& path() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace tandem::tensorboard
