// The messages are tensorflow.Event, Summary and what is in them (event.proto, summary.proto, tensor.proto of
// TensorFlow), their fields in the order of their numbers, defaults left out: the bytes that Python's
// protocol buffers give.
#include "tandem/io/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <mutex>
#include <utility>

#include "tandem/core/io/file.h"
#include "tandem/core/log.h"
#include "tandem/eager/scalars.h"
#include "tandem/io/histogram.h"
#include "tandem/io/records.h"
#include "tandem/io/wire.h"

namespace tandem::tensorboard {

namespace {

using io::Wire;

constexpr const char* kPrefix = "events.out.tfevents.";
constexpr const char* kVersion = "brain.Event:2";

double system_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0 || *name == '\0') return "localhost";
  std::string text = name;
  std::replace(text.begin(), text.end(), '/', '-');
  return text;
}

std::string default_folder(double now, const std::string& comment) {
  const auto seconds = static_cast<std::time_t>(now);
  std::tm local{};
  localtime_r(&seconds, &local);
  char date[32];
  std::strftime(date, sizeof date, "%b%d_%H-%M-%S", &local);
  return std::string("runs/") + date + '_' + host_name() + comment;
}

/// The seconds of the event files' names in a folder: the largest; -1 if there are none.
int64_t newest_seconds(const std::string& folder) {
  int64_t newest = -1;
  std::error_code error;
  for (std::filesystem::directory_iterator file(folder, error), end; !error && file != end;
       file.increment(error)) {
    const std::string name = file->path().filename().string();
    long long seconds = 0;
    if (name.starts_with(kPrefix) && std::sscanf(name.c_str() + 20, "%18lld", &seconds) == 1)
      newest = std::max<int64_t>(newest, seconds);
  }
  return newest;
}

std::string file_name(int64_t seconds, const std::string& suffix) {
  static std::atomic<int> number = 0;
  char padded[32];
  std::snprintf(padded, sizeof padded, "%010lld", static_cast<long long>(seconds));
  return kPrefix + std::string(padded) + '.' + host_name() + '.' + std::to_string(getpid()) + '.' +
         std::to_string(number++) + suffix;
}

/// What does not differ from a message's default is not written.
void nonzero(Wire& wire, int field, double value) {
  if (std::bit_cast<uint64_t>(value) != 0) wire.number(field, value);
}
void nonzero(Wire& wire, int field, int64_t value) {
  if (value != 0) wire.integer(field, value);
}
/// A packed field of doubles.
void packed(Wire& wire, int field, const std::vector<double>& values) {
  static_assert(std::endian::native == std::endian::little);
  wire.bytes(field, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)});
}

Wire event(double walltime, int64_t step) {
  Wire e;
  nonzero(e, 1, walltime);
  nonzero(e, 2, step);
  return e;
}

Wire scalar(const std::string& tag, double value) {
  return Wire().bytes(1, tag).number(2, static_cast<float>(value));
}

Wire histogram(const std::string& tag, const io::Histogram& h) {
  Wire w;
  nonzero(w, 1, h.min);
  nonzero(w, 2, h.max);
  nonzero(w, 3, static_cast<double>(h.count));
  nonzero(w, 4, h.sum);
  nonzero(w, 5, h.sum_squares);
  packed(w, 6, h.limits);
  packed(w, 7, h.counts);
  return Wire().bytes(1, tag).message(5, w);
}

/// A tensor of one string, for the plugin "text".
Wire text_value(const std::string& tag, const std::string& text) {
  constexpr int64_t kString = 7;  // DT_STRING
  const Wire shape = Wire().message(2, Wire().integer(1, 1));
  const Wire tensor = Wire().integer(1, kString).message(2, shape).bytes(8, text);
  const Wire metadata = Wire().message(1, Wire().bytes(1, "text"));
  return Wire().bytes(1, tag + "/text_summary").message(8, tensor).message(9, metadata);
}

}  // namespace

/// Guarded by the mutex, but for what the constructor sets.
struct Writer::State {
  std::string folder;
  std::function<double()> clock;
  size_t max_queue = 0;
  double flush_secs = 0;
  std::unique_ptr<core::AppendFile> file;
  std::string path;

  std::mutex mutex;
  std::string kept;   // whole records
  size_t queued = 0;  // so many
  double written_at = 0;
  std::vector<Scalar> logged;  // by log_scalar, at their steps, which found no room yet
  bool closed = false;

  void write(Location where) {
    if (!kept.empty()) file->append(kept, where);
    kept.clear();
    queued = 0;
    written_at = clock();
  }
  void check_open(const char* who, Location where) const {
    if (closed) fail(std::string(who) + ": \"" + path + "\" is closed", where);
  }
  void add(const Wire& event) {
    kept += io::record(event.text());
    ++queued;
  }
  /// An event with one value. Room is made first: what cannot be written is not added to either.
  void add_value(const char* who, const Wire& value, int64_t step, std::optional<double> walltime,
                 Location where) {
    const std::lock_guard lock(mutex);
    check_open(who, where);
    const double now = clock();
    if (queued >= max_queue || now - written_at >= flush_secs) write(where);
    add(event(walltime.value_or(now), step).message(5, Wire().message(1, value)));
  }
};

namespace {

void check_tag(const char* who, const std::string& tag, Location where) {
  if (tag.empty()) fail(std::string(who) + ": the tag is empty", where);
  if (!io::is_utf8(tag)) fail(std::string(who) + ": the tag is not valid UTF-8", where);
}

}  // namespace

Writer::Writer(const std::string& log_dir, const WriterOptions& options, Location where)
    : state_(std::make_unique<State>()) {
  State& s = *state_;
  if (options.max_queue < 1)
    fail("tensorboard::Writer: max_queue is " + std::to_string(options.max_queue) + ", at least 1 is wanted",
         where);
  if (!(options.flush_secs >= 0))
    fail(
        "tensorboard::Writer: flush_secs is " + std::to_string(options.flush_secs) + ", at least 0 is wanted",
        where);
  s.clock = options.clock ? options.clock : system_clock;
  s.max_queue = static_cast<size_t>(options.max_queue);
  s.flush_secs = options.flush_secs;
  const double now = s.clock();
  s.folder = log_dir.empty() ? default_folder(now, options.comment) : log_dir;
  core::make_folders(s.folder, where);
  const int64_t seconds = std::max(static_cast<int64_t>(now), newest_seconds(s.folder) + 1);
  s.path = (std::filesystem::path(s.folder) / file_name(seconds, options.filename_suffix)).string();
  s.file = std::make_unique<core::AppendFile>(s.path, core::AppendFile::Open::new_only, where);
  s.add(event(now, 0).bytes(3, kVersion));
  if (options.purge_step) {
    constexpr int64_t kStart = 1;  // SessionLog.START: the program began again at this step
    s.add(event(now, *options.purge_step).message(7, Wire().integer(1, kStart)));
  }
  s.write(where);
}

Writer::~Writer() {
  try {
    close();
  } catch (const std::exception& e) {
    core::log(core::LogArea::core, core::LogLevel::warn,
              std::string("tensorboard::Writer: the last values are lost: ") + e.what());
  }
}

void Writer::add_scalar(const std::string& tag, double value, int64_t global_step,
                        std::optional<double> walltime, Location where) {
  check_tag("add_scalar", tag, where);
  state_->add_value("add_scalar", scalar(tag, value), global_step, walltime, where);
}

void Writer::add_scalar(const std::string& tag, const Tensor& value, int64_t global_step,
                        std::optional<double> walltime, Location where) {
  if (!value.defined()) fail("add_scalar: \"" + tag + "\": the tensor is undefined", where);
  if (value.numel() != 1)
    fail("add_scalar: \"" + tag + "\": one element is wanted, the tensor has " + to_string(value.sizes()),
         where);
  add_scalar(tag, value.item<double>(where), global_step, walltime, where);
}

void Writer::add_histogram(const std::string& tag, const Tensor& values, int64_t global_step,
                           std::optional<double> walltime, Location where) {
  check_tag("add_histogram", tag, where);
  if (!values.defined()) fail("add_histogram: \"" + tag + "\": the tensor is undefined", where);
  if (values.numel() == 0)
    fail("add_histogram: \"" + tag + "\": the tensor " + to_string(values.sizes()) + " has no elements",
         where);
  const io::Histogram h = io::histogram(values, where);
  if (h.count > 0) state_->add_value("add_histogram", histogram(tag, h), global_step, walltime, where);
  if (h.not_finite > 0)
    add_scalar(tag + "/not_finite", static_cast<double>(h.not_finite), global_step, walltime, where);
}

void Writer::add_text(const std::string& tag, const std::string& text, int64_t global_step,
                      std::optional<double> walltime, Location where) {
  check_tag("add_text", tag, where);
  if (!io::is_utf8(text)) fail("add_text: \"" + tag + "\": the text is not valid UTF-8", where);
  state_->add_value("add_text", text_value(tag, text), global_step, walltime, where);
}

void Writer::add_logged(int64_t first_step, Location where) {
  std::vector<Scalar> all;
  std::optional<std::string> no_tag;
  {
    const std::lock_guard lock(state_->mutex);
    state_->check_open("add_logged", where);
    std::vector<Scalar> taken = take_scalars();
    all.swap(state_->logged);
    for (Scalar& s : taken) {
      if (s.name.empty() || !io::is_utf8(s.name)) {
        no_tag = s.name;
        continue;
      }
      s.index += first_step;
      all.push_back(std::move(s));
    }
  }
  auto next = all.begin();
  try {
    for (; next != all.end(); ++next)
      state_->add_value("add_logged", scalar(next->name, next->value), next->index, {}, where);
  } catch (...) {
    const std::lock_guard lock(state_->mutex);
    state_->logged.insert(state_->logged.begin(), next, all.end());
    throw;
  }
  if (no_tag) check_tag("add_logged", *no_tag, where);
}

void Writer::flush(Location where) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->closed) state_->write(where);
}

void Writer::close(Location where) {
  const std::lock_guard lock(state_->mutex);
  if (state_->closed) return;
  state_->write(where);
  state_->closed = true;
  state_->file.reset();
}

const std::string& Writer::log_dir() const { return state_->folder; }
const std::string& Writer::path() const { return state_->path; }

}  // namespace tandem::tensorboard
