// An entry: magic (8 bytes), SHA-256 of all that follows (32), schema (u64), lengths of key, source and
// object (u64 each, little endian), then the three texts. Lengths must add up to the file's size and key and
// source must be what is asked for, byte by byte: a file that was cut, flipped, renamed or written by
// another version is a miss.
#include "tandem/jit/disk_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <random>
#include <string_view>
#include <vector>

#include "tandem/core/log.h"
#include "tandem/jit/child_process.h"
#include "tandem/jit/sha256.h"

namespace tandem::jit {

namespace {

constexpr std::string_view kMagic = "TDMKERN\n";
constexpr uint64_t kSchema = 1;
constexpr size_t kDigestEnd = 8 + 32;
constexpr size_t kHeaderNbytes = kDigestEnd + 4 * 8;
constexpr uint64_t kEntryLimit = uint64_t{512} << 20;
constexpr std::string_view kSuffix = ".kernel";
constexpr std::string_view kTemporary = ".new-";
constexpr time_t kStaleSeconds = 3600;
constexpr int kWritesBetweenScans = 256;

void warn(const std::string& message) { core::log(core::LogArea::jit, core::LogLevel::warn, message); }

void append_u64(std::string* out, uint64_t value) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t read_u64(std::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= uint64_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  return value;
}

std::string encode(const std::string& key, const std::string& source, const std::string& object) {
  std::string rest;
  rest.reserve(32 + key.size() + source.size() + object.size());
  append_u64(&rest, kSchema);
  for (const std::string* part : {&key, &source, &object}) append_u64(&rest, part->size());
  rest += key;
  rest += source;
  rest += object;
  const Digest digest = sha256(rest);
  std::string entry(kMagic);
  entry.append(reinterpret_cast<const char*>(digest.data()), digest.size());
  return entry + rest;
}

std::optional<DiskCache::Stored> decode(std::string_view entry, const std::string& key) {
  if (entry.size() < kHeaderNbytes || entry.substr(0, kMagic.size()) != kMagic) return std::nullopt;
  const Digest digest = sha256(entry.substr(kDigestEnd));
  if (std::memcmp(digest.data(), entry.data() + kMagic.size(), digest.size()) != 0) return std::nullopt;
  if (read_u64(entry, kDigestEnd) != kSchema) return std::nullopt;
  std::string_view rest = entry.substr(kHeaderNbytes);
  std::string_view parts[3];
  for (size_t i = 0; i < 3; ++i) {
    const uint64_t nbytes = read_u64(entry, kDigestEnd + 8 * (i + 1));
    if (nbytes > rest.size()) return std::nullopt;
    parts[i] = rest.substr(0, nbytes);
    rest.remove_prefix(nbytes);
  }
  if (!rest.empty() || parts[0] != key) return std::nullopt;
  return DiskCache::Stored{std::string(parts[1]), std::string(parts[2])};
}

// Ours, and nobody else may write it.
bool trusted(const struct stat& info) { return info.st_uid == geteuid() && (info.st_mode & 022) == 0; }

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

std::string temporary_name() {
  static std::atomic<uint32_t> counter{0};
  std::random_device random;
  char text[80];
  std::snprintf(text, sizeof text, "%s%ld-%u-%08x%08x", kTemporary.data(), static_cast<long>(getpid()),
                ++counter, random(), random());
  return text;
}

std::string file_name(const std::string& name) { return name + std::string(kSuffix); }

bool make_folders(const std::string& path) {
  for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
    const std::string part = path.substr(0, at);
    if (mkdir(part.c_str(), 0700) != 0) {
      const int error = errno;  // a folder that exists on a read-only mount is reported as read-only
      const bool exists = error == EEXIST || access(part.c_str(), F_OK) == 0;
      errno = error;
      if (!exists) return false;
    }
    if (at == std::string::npos) return true;
  }
}

}  // namespace

DiskCache::DiskCache(const std::string& folder, const std::string& section, uint64_t limit_bytes)
    : limit_bytes_(limit_bytes) {
  if (!folder.empty() && folder != "off") open_folder(folder, section);
}

DiskCache::~DiskCache() {
  if (folder_ >= 0) close(folder_);
}

void DiskCache::open_folder(const std::string& folder, const std::string& section) {
  std::error_code ignored;
  const std::string path = std::filesystem::absolute(folder, ignored).string() + "/" + section;
  const std::string kOff =
      "; compiled kernels are not kept for the next run (TANDEM_CACHE_DIR names another folder, or off)";
  if (!make_folders(path)) {
    warn("kernel cache: " + path + " cannot be made: " + system_error_text(errno) + kOff);
    return;
  }
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) {
    warn("kernel cache: " + path + " cannot be opened: " + system_error_text(errno) + kOff);
  } else if (info.st_uid != geteuid()) {
    warn("kernel cache: " + path + " belongs to another user" + kOff);
  } else if ((info.st_mode & 077) != 0) {
    warn("kernel cache: " + path +
         " is open to other users, who could place code there; remove it or run chmod 700" + kOff);
  } else {
    folder_ = fd;
    path_ = path;
    return;
  }
  if (fd >= 0) close(fd);
}

std::optional<std::string> DiskCache::load(const std::string& name, const std::string& key,
                                           const std::string& source) {
  std::optional<Stored> stored = find(name, key, source);
  if (!stored || stored->source != source) return std::nullopt;
  return std::move(stored->object);
}

std::optional<DiskCache::Stored> DiskCache::find(const std::string& name, const std::string& key,
                                                 const std::string& part) {
  if (!enabled()) return std::nullopt;
  // Not blocking: the name may have become a pipe.
  const int fd = openat(folder_, file_name(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::optional<Stored> stored;
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && trusted(info) && info.st_size >= 0 &&
      static_cast<uint64_t>(info.st_size) <= kEntryLimit) {
    std::string contents;
    if (read_descriptor(fd, static_cast<size_t>(info.st_size), &contents)) stored = decode(contents, key);
    if (stored && stored->source.find(part) == std::string::npos) stored.reset();
  }
  if (stored) {
    futimens(fd, nullptr);  // recently used
  } else {
    core::log(core::LogArea::jit, core::LogLevel::info,
              "kernel cache: entry " + name + " is damaged or another's; it is compiled again");
  }
  close(fd);
  return stored;
}

void DiskCache::store(std::span<const std::string> names, const std::string& key, const std::string& source,
                      const std::string& object) {
  if (!enabled()) return;
  const std::string contents = encode(key, source, object);
  if (contents.size() > std::min(limit_bytes_, kEntryLimit)) return;
  uint64_t bytes = 0;
  const bool written = write_entry(names, contents, &bytes);
  const int error = errno;
  if (!written) {
    if (!warned_.exchange(true))
      warn("kernel cache: cannot write to " + path_ + ": " + system_error_text(error));
    return;
  }
  const std::lock_guard lock(mutex_);
  used_bytes_ += bytes;
  if (--writes_until_scan_ < 0 || used_bytes_ > limit_bytes_) evict();
}

// The first name is the last to appear; the others are links to the same file, or, where there are no links,
// copies.
bool DiskCache::write_entry(std::span<const std::string> names, const std::string& contents,
                            uint64_t* bytes) {
  const std::string temporary = temporary_name();
  const int fd =
      openat(folder_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool good = write_all(fd, contents.data(), contents.size());
  int error = errno;
  if (close(fd) != 0 && good) {
    good = false;
    error = errno;
  }
  for (const std::string& name : names.subspan(1)) {
    if (!good) break;
    good = link_entry(temporary, name) || write_entry({&name, 1}, contents, bytes);
    error = errno;
  }
  if (good && renameat(folder_, temporary.c_str(), folder_, file_name(names[0]).c_str()) != 0) {
    good = false;
    error = errno;
  }
  if (good)
    *bytes += contents.size();
  else
    unlinkat(folder_, temporary.c_str(), 0);
  errno = error;
  return good;
}

bool DiskCache::link_entry(const std::string& written, const std::string& name) {
  const std::string temporary = temporary_name();
  if (linkat(folder_, written.c_str(), folder_, temporary.c_str(), 0) != 0) return false;
  const bool good = renameat(folder_, temporary.c_str(), folder_, file_name(name).c_str()) == 0;
  if (!good) unlinkat(folder_, temporary.c_str(), 0);
  return good;
}

// Called with the mutex held. Measures the folder; if it is over the limit, removes the least recently used
// entries down to three quarters of it. Other processes do the same at the same time: a file that is gone is
// no failure.
void DiskCache::evict() {
  const int fd = openat(folder_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* listing = fd >= 0 ? fdopendir(fd) : nullptr;
  if (listing == nullptr) {
    if (fd >= 0) close(fd);
    return;
  }
  struct Entry {
    int64_t used_at_ns;
    uint64_t nbytes;
    std::string name;
  };
  std::vector<Entry> entries;
  uint64_t total = 0;
  const time_t now = time(nullptr);
  while (const dirent* item = readdir(listing)) {
    const std::string_view name = item->d_name;
    const bool temporary = name.substr(0, kTemporary.size()) == kTemporary;
    if (!temporary && !ends_with(name, kSuffix)) continue;
    struct stat info;
    if (fstatat(folder_, item->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) continue;
    if (temporary) {  // of a process that was killed while it wrote
      if (now - info.st_mtim.tv_sec > kStaleSeconds) unlinkat(folder_, item->d_name, 0);
      continue;
    }
    const uint64_t share = static_cast<uint64_t>(info.st_size) / std::max<uint64_t>(info.st_nlink, 1);
    total += share;
    entries.push_back(
        {int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec, share, std::string(name)});
  }
  closedir(listing);
  if (total > limit_bytes_) {
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.used_at_ns < b.used_at_ns; });
    for (const Entry& entry : entries) {
      if (total <= limit_bytes_ / 4 * 3) break;
      if (unlinkat(folder_, entry.name.c_str(), 0) == 0 || errno == ENOENT) total -= entry.nbytes;
    }
  }
  used_bytes_ = total;
  writes_until_scan_ = kWritesBetweenScans;
}

}  // namespace tandem::jit
