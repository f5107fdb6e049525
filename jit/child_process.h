// Running another program: no shell, a time limit, its output captured, no zombie and no inherited descriptor
// left. Plain functions; any thread, several at once.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace tandem::jit {

struct ChildResult {
  bool ok = false;         // ran to its end and returned 0
  bool timed_out = false;  // killed, with all that it started, at the time limit
  bool unknown = false;    // ended, but someone else in this process took its status: SIGCHLD is ignored, say
  std::string output;      // standard output and error, in the order written; cut at the limit
  std::string
      failure;  // why not `ok`: "exit status 1", "killed by signal 9", "cannot start ...: No such file"
};

/// A program that runs beside its caller: `arguments[0]` (a path), in `folder`, with standard input empty.
/// The child has a process group of its own, so an interrupt from the terminal reaches the caller alone and a
/// time-out ends everything that the child started. Its environment is ours without what would change a
/// compiler's input or output (CPATH, LD_PRELOAD, ...); temporary files go to `folder`. One that nobody has
/// finished is killed. For the process that started it alone: after a fork the other has no such child.
class Child {
 public:
  Child(const std::vector<std::string>& arguments, const std::string& folder, int time_limit_ms,
        size_t output_limit = 16384);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  /// Waits for its end, once.
  ChildResult finish();

 private:
  void wait_for_end(ChildResult* result);

  int pid_ = -1, reader_ = -1, status_ = 0;
  std::chrono::steady_clock::time_point deadline_;
  int time_limit_ms_;
  size_t output_limit_;
  std::string failure_;  // to start
};

/// Runs it to its end.
ChildResult run_child(const std::vector<std::string>& arguments, const std::string& folder, int time_limit_ms,
                      size_t output_limit = 16384);

/// Folders for temporary files, best first: TMPDIR, /tmp, /dev/shm; only absolute ones.
std::vector<std::string> temporary_folders();

/// A new folder that only this user can enter, removed with its contents by the destructor.
class PrivateFolder {
 public:
  explicit PrivateFolder(const std::string& parent);
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  /// Empty if it could not be made.
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Writes all of `nbytes`; false (with errno) on failure.
bool write_all(int fd, const void* data, size_t nbytes);
/// Reads exactly `nbytes`; false if there are fewer.
bool read_descriptor(int fd, size_t nbytes, std::string* contents);
/// Reads a whole file of at most `limit` bytes; false if it is missing, larger or unreadable.
bool read_file(const std::string& path, size_t limit, std::string* contents);
/// Creates `path`, which must not exist, readable by this user alone; false (with errno) on failure.
bool write_new_file(const std::string& path, const std::string& contents);

/// The system's text for an errno value, from any thread.
std::string system_error_text(int error);

}  // namespace tandem::jit
