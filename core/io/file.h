// Whole files: read with clear errors, and replaced in one step, so that a reader or a crash sees the old or
// the new file; and files that grow. Nothing is held open between calls, except by an InputFile or an
// AppendFile, which its owner closes. Any thread; two writers of one file each leave a whole one, the last
// stays; an AppendFile is used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "tandem/core/location.h"

namespace tandem::core {

using ByteSpan = std::span<const std::byte>;

/// The bytes of a text or an array.
inline ByteSpan bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// A file that is read front to back. Errors name the path.
class InputFile {
 public:
  /// Refuses what is not a regular file.
  explicit InputFile(const std::string& path, Location where = {});
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  /// Bytes in the file when it was opened.
  int64_t size() const { return size_; }
  /// The next `nbytes` bytes; an Error if the file ends before.
  void read(void* to, int64_t nbytes);

 private:
  std::string path_;
  Location where_;
  int fd_ = -1;
  int64_t size_ = 0;
};

inline constexpr int64_t kMaxFileBytes = int64_t{1} << 40;

/// The whole file; an Error if it has more than `max_bytes`.
std::string read_file(const std::string& path, int64_t max_bytes = kMaxFileBytes, Location where = {});

/// Replaces `path` by the pieces, one after another. They are written to a new file beside it (`<name>.tmp-`
/// and random digits), which takes over the old file's mode, reaches the disk, and is renamed. On an Error
/// the old file is as it was and the new one removed; only a process killed meanwhile leaves it behind. A
/// symbolic link stays one, also if what it points to is not there yet.
void write_file_atomic(const std::string& path, std::span<const ByteSpan> pieces, Location where = {});
void write_file_atomic(const std::string& path, const std::string& bytes, Location where = {});

/// A file that grows at its end, for logs. What one append() was given is all there or, after an Error, not
/// at all; a process killed meanwhile leaves some of it. It reaches the disk when the system writes it back.
class AppendFile {
 public:
  enum class Open : uint8_t { append, new_only };
  /// Makes the file if it is missing; with new_only that it is there already is an Error.
  explicit AppendFile(const std::string& path, Open open = Open::append, Location where = {});
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  const std::string& path() const { return path_; }
  void append(const std::string& bytes, Location where = {});

 private:
  std::string path_;
  int fd_ = -1;
};

/// Makes a folder and those above it, where they are missing.
void make_folders(const std::string& path, Location where = {});

}  // namespace tandem::core
