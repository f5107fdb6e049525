// The atomic save: a temporary file in the same folder (rename does not cross file systems), made
// exclusively, with the old file's mode; written; fsync, so that the name never points at bytes that are not
// on the disk; rename; fsync of the folder, so that the new name survives a power cut.
#include "tandem/core/io/file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "tandem/core/error.h"

namespace tandem::core {

namespace {

[[noreturn, gnu::cold]] void fail_system(const char* what, const std::string& path, int code,
                                         Location where) {
  fail(std::string(what) + " \"" + path + "\": " + std::generic_category().message(code), where);
}

template <class F>
auto retried(F&& call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

/// What a name leads to through links, also if it is not there yet.
std::string resolved(std::string path, Location where) {
  const std::string given = path;
  for (int links = 0; links < 40; ++links) {
    if (char* real = realpath(path.c_str(), nullptr)) {
      path = real;
      std::free(real);
      return path;
    }
    std::error_code none;
    const std::filesystem::path to = std::filesystem::read_symlink(path, none);
    if (none) return path;
    path = to.is_absolute() ? to.string() : folder_of(path) + '/' + to.string();
  }
  fail_system("write_file: cannot follow", given, ELOOP, where);
}

/// All of `bytes`; false, and errno, if they cannot be written.
bool write_all(int fd, ByteSpan bytes) {
  while (!bytes.empty()) {
    const size_t most = std::min<size_t>(bytes.size(), size_t{1} << 30);
    const ssize_t n = retried([&] { return ::write(fd, bytes.data(), most); });
    if (n < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return true;
}

/// The new file beside the old one; removed unless it was renamed.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& target, Location where) : target_(target), where_(where) {
    struct stat old {};
    const bool replaces = stat(target.c_str(), &old) == 0;
    if (replaces && !S_ISREG(old.st_mode))
      fail("write_file: \"" + target + "\" is not a regular file", where);
    for (int attempt = 0; attempt < 100 && fd_ < 0; ++attempt) {
      uint64_t random = 0;
      if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        random = static_cast<uint64_t>(getpid()) * 1000003u + static_cast<uint64_t>(attempt);
      char suffix[32];
      std::snprintf(suffix, sizeof(suffix), ".tmp-%016llx", static_cast<unsigned long long>(random));
      path_ = target + suffix;
      fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST && errno != EINTR)
        fail_system("write_file: cannot make a file in", folder_of(target), errno, where);
    }
    if (fd_ < 0) fail_system("write_file: cannot make a file in", folder_of(target), errno, where);
    if (replaces && fchmod(fd_, old.st_mode & 07777) != 0) {
      const int code = errno;
      remove();
      fail_system("write_file: cannot copy the mode of", target, code, where);
    }
  }
  ~TemporaryFile() { remove(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(ByteSpan bytes) {
    if (!write_all(fd_, bytes)) fail_system("write_file: cannot write", target_, errno, where_);
  }

  void become_target() {
    if (retried([&] { return fsync(fd_); }) != 0)
      fail_system("write_file: cannot write", target_, errno, where_);
    const int fd = std::exchange(fd_, -1);
    if (close(fd) != 0 && errno != EINTR) fail_system("write_file: cannot write", target_, errno, where_);
    if (rename(path_.c_str(), target_.c_str()) != 0)
      fail_system("write_file: cannot replace", target_, errno, where_);
    path_.clear();
    const int folder = open(folder_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;  // a folder that may be written but not listed: the file itself is complete
    const bool synced = retried([&] { return fsync(folder); }) == 0 || errno == EINVAL;
    const int code = errno;
    close(folder);
    if (!synced) fail_system("write_file: cannot sync the folder of", target_, code, where_);
  }

 private:
  void remove() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
    if (!path_.empty()) unlink(path_.c_str());
    path_.clear();
  }

  std::string target_, path_;
  Location where_;
  int fd_ = -1;
};

}  // namespace

InputFile::InputFile(const std::string& path, Location where) : path_(path), where_(where) {
  // Without O_NONBLOCK, opening a pipe would wait for a writer before it could be refused.
  fd_ = retried([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (fd_ < 0) fail_system("read_file: cannot open", path, errno, where);
  struct stat status {};
  const bool known = fstat(fd_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    close(fd_);
    fail("read_file: \"" + path + "\" is " +
             (known && S_ISDIR(status.st_mode) ? "a folder" : "not a regular file"),
         where);
  }
  size_ = status.st_size;
}

InputFile::~InputFile() { close(fd_); }

void InputFile::read(void* to, int64_t nbytes) {
  char* next = static_cast<char*>(to);
  while (nbytes > 0) {
    const size_t most = static_cast<size_t>(std::min<int64_t>(nbytes, int64_t{1} << 30));
    const ssize_t n = retried([&] { return ::read(fd_, next, most); });
    if (n < 0) fail_system("read_file: cannot read", path_, errno, where_);
    if (n == 0) fail("read_file: \"" + path_ + "\" ended " + std::to_string(nbytes) + " bytes early", where_);
    next += n;
    nbytes -= n;
  }
}

std::string read_file(const std::string& path, int64_t max_bytes, Location where) {
  InputFile file(path, where);
  if (file.size() > max_bytes)
    fail("read_file: \"" + path + "\" has " + std::to_string(file.size()) + " bytes; at most " +
             std::to_string(max_bytes) + " are read",
         where);
  std::string bytes(static_cast<size_t>(file.size()), '\0');
  file.read(bytes.data(), file.size());
  return bytes;
}

void write_file_atomic(const std::string& path, std::span<const ByteSpan> pieces, Location where) {
  TemporaryFile file(resolved(path, where), where);
  for (const ByteSpan piece : pieces) file.write(piece);
  file.become_target();
}

void write_file_atomic(const std::string& path, const std::string& bytes, Location where) {
  const ByteSpan piece = bytes_of(bytes);
  write_file_atomic(path, std::span(&piece, 1), where);
}

AppendFile::AppendFile(const std::string& path, Open open, Location where) : path_(path) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (open == Open::new_only ? O_EXCL : 0);
  // Without O_NONBLOCK, opening a pipe would wait for a reader before it could be refused.
  fd_ = retried([&] { return ::open(path.c_str(), flags | O_NONBLOCK, 0666); });
  if (fd_ < 0) fail_system("append: cannot open", path, errno, where);
  struct stat status {};
  if (fstat(fd_, &status) == 0 && S_ISREG(status.st_mode)) return;
  close(fd_);
  fail("append: \"" + path + "\" is not a regular file", where);
}

AppendFile::~AppendFile() { close(fd_); }

void AppendFile::append(const std::string& bytes, Location where) {
  struct stat before {};
  if (fstat(fd_, &before) != 0) fail_system("append: cannot look at", path_, errno, where);
  if (write_all(fd_, bytes_of(bytes))) return;
  const int code = errno;
  if (retried([&] { return ftruncate(fd_, before.st_size); }) != 0)
    fail_system("append: cannot take back a part that was written to", path_, code, where);
  fail_system("append: cannot write", path_, code, where);
}

void make_folders(const std::string& path, Location where) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error || !std::filesystem::is_directory(path, error))
    fail_system("cannot make the folder", path, error ? error.value() : ENOTDIR, where);
}

}  // namespace tandem::core
