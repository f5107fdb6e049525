// The child is made by posix_spawn (no copy of our page tables, no code between fork and exec). We read its
// output until it has ended: end of file alone is not enough (a server that the compiler started may keep the
// pipe open), nor is the end of the process (output may still be in the pipe). Past the time limit its whole
// process group is killed.
#include "tandem/jit/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

extern char** environ;

namespace tandem::jit {

namespace {

using Clock = std::chrono::steady_clock;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// Search paths for headers would let text that is no part of a cache key into a kernel; the dependency
// variables make GCC write files; a preloaded library is meant for us, not for a compiler; the rest changes
// messages.
constexpr std::array kRemoved = {"CPATH",
                                 "C_INCLUDE_PATH",
                                 "CPLUS_INCLUDE_PATH",
                                 "OBJC_INCLUDE_PATH",
                                 "TMPDIR",
                                 "DEPENDENCIES_OUTPUT",
                                 "SUNPRO_DEPENDENCIES",
                                 "GCC_COMPARE_DEBUG",
                                 "LC_ALL",
                                 "LANGUAGE",
                                 "LD_PRELOAD",
                                 "CCACHE_DISABLE",
                                 "PWD",
                                 "GCC_EXTRA_DIAGNOSTIC_OUTPUT",
                                 "CCC_OVERRIDE_OPTIONS",
                                 "MALLOC_PERTURB_"};

std::vector<std::string> child_environment(const std::string& folder) {
  std::vector<std::string> result;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    const std::string_view name = text.substr(0, text.find('='));
    if (std::find(kRemoved.begin(), kRemoved.end(), name) == kRemoved.end()) result.emplace_back(text);
  }
  result.push_back("TMPDIR=" + folder);
  result.push_back("LC_ALL=C");
  result.push_back("CCACHE_DISABLE=1");
  return result;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (const std::string& s : strings) result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

// Returns 0 and the process id, or an errno value.
int spawn(const std::vector<std::string>& arguments, const std::string& folder, int output, pid_t* pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (const int error = posix_spawn_file_actions_init(&actions)) return error;
  if (const int error = posix_spawnattr_init(&attributes)) {
    posix_spawn_file_actions_destroy(&actions);
    return error;
  }
  // The output is placed before standard input is replaced: `output` itself may be descriptor 0.
  int error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  if (error == 0) error = posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  if (error == 0) error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
  if (error == 0) error = posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
#endif
#endif
  if (error == 0) error = posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  if (error == 0) error = posix_spawnattr_setsigmask(&attributes, &none);
  if (error == 0) error = posix_spawnattr_setsigdefault(&attributes, &all);
  if (error == 0) error = posix_spawnattr_setpgroup(&attributes, 0);
  constexpr short kFlags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP;
  if (error == 0) error = posix_spawnattr_setflags(&attributes, kFlags);
  if (error == 0) {
    const std::vector<std::string> variables = child_environment(folder);
    error = posix_spawn(pid, arguments[0].c_str(), &actions, &attributes, pointers(arguments).data(),
                        pointers(variables).data());
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Appends what is in the pipe now; true once its end is reached.
bool drain(int fd, size_t limit, std::string* output) {
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n == 0) return true;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno != EAGAIN;
    output->append(buffer.data(), std::min(static_cast<size_t>(n), limit - std::min(limit, output->size())));
  }
}

}  // namespace

Child::Child(const std::vector<std::string>& arguments, const std::string& folder, int time_limit_ms,
             size_t output_limit)
    : deadline_(Clock::now() + std::chrono::milliseconds(time_limit_ms)),
      time_limit_ms_(time_limit_ms),
      output_limit_(output_limit) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    failure_ = "cannot make a pipe: " + system_error_text(errno);
    return;
  }
  reader_ = ends[0];
  const Descriptor writer(ends[1]);
  fcntl(reader_, F_SETFL, O_NONBLOCK);
  if (const int error = spawn(arguments, folder, writer.get(), &pid_))
    failure_ = "cannot start " + arguments[0] + ": " + system_error_text(error), pid_ = -1;
}

Child::~Child() {
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
    while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
    }
  }
  if (reader_ >= 0) close(reader_);
}

void Child::wait_for_end(ChildResult* result) {
  bool end_of_output = false;
  for (int pause_ms = 1;; pause_ms = std::min(2 * pause_ms, 20)) {
    if (end_of_output) {
      poll(nullptr, 0, std::min(pause_ms, 2));
    } else {
      pollfd watched{reader_, POLLIN, 0};
      // Output wakes us at once; the pause matters only if someone else holds the pipe open after the child's
      // end.
      poll(&watched, 1, pause_ms);
      end_of_output = drain(reader_, output_limit_, &result->output);
    }
    const pid_t ended = waitpid(pid_, &status_, WNOHANG);
    if (ended == pid_) break;
    if (ended < 0 && errno == ECHILD) {
      if (!end_of_output && Clock::now() < deadline_) continue;  // still reading: it may not have ended yet
      result->unknown = true;
      break;
    }
    if (Clock::now() >= deadline_) {
      result->timed_out = true;
      kill(-pid_, SIGKILL);
      while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
      }
      break;
    }
  }
  if (!end_of_output) drain(reader_, output_limit_, &result->output);
  pid_ = -1;
}

ChildResult Child::finish() {
  ChildResult result;
  result.failure = failure_;
  if (pid_ < 0) return result;
  wait_for_end(&result);
  if (result.timed_out) {
    result.failure = "stopped after " + std::to_string(time_limit_ms_) + " ms";
  } else if (result.unknown) {
    result.failure = "exit status unknown";
  } else if (WIFEXITED(status_)) {
    result.ok = WEXITSTATUS(status_) == 0;
    if (!result.ok) result.failure = "exit status " + std::to_string(WEXITSTATUS(status_));
  } else {
    result.failure = "killed by signal " + std::to_string(WTERMSIG(status_));
  }
  return result;
}

ChildResult run_child(const std::vector<std::string>& arguments, const std::string& folder, int time_limit_ms,
                      size_t output_limit) {
  return Child(arguments, folder, time_limit_ms, output_limit).finish();
}

std::vector<std::string> temporary_folders() {
  std::vector<std::string> folders;
  const char* chosen = std::getenv("TMPDIR");
  if (chosen != nullptr && chosen[0] == '/') folders.push_back(chosen);
  folders.push_back("/tmp");
  folders.push_back("/dev/shm");
  return folders;
}

PrivateFolder::PrivateFolder(const std::string& parent) {
  std::string name = parent + "/tandem-XXXXXX";
  if (mkdtemp(name.data()) != nullptr) path_ = std::move(name);
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

bool write_all(int fd, const void* data, size_t nbytes) {
  const char* p = static_cast<const char*>(data);
  while (nbytes > 0) {
    const ssize_t n = write(fd, p, nbytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    nbytes -= static_cast<size_t>(n);
  }
  return true;
}

bool read_descriptor(int fd, size_t nbytes, std::string* contents) {
  contents->resize(nbytes);
  for (size_t filled = 0; filled < nbytes;) {
    const ssize_t n = read(fd, contents->data() + filled, nbytes - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    filled += static_cast<size_t>(n);
  }
  return true;
}

bool read_file(const std::string& path, size_t limit, std::string* contents) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info;
  if (file.get() < 0 || fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  if (info.st_size < 0 || static_cast<uint64_t>(info.st_size) > limit) return false;
  return read_descriptor(file.get(), static_cast<size_t>(info.st_size), contents);
}

bool write_new_file(const std::string& path, const std::string& contents) {
  Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  return file.get() >= 0 && write_all(file.get(), contents.data(), contents.size());
}

std::string system_error_text(int error) { return std::generic_category().message(error); }

}  // namespace tandem::jit
