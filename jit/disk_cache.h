// A folder of compiled objects, shared by processes without locks: one self-contained file per entry, written
// under a name of its own and renamed, verified whole before use. A program of several kernels is one file
// that lies there under the name of each of them (hard links), so that any one is found by itself. What it
// holds is code, so it lies in a folder that this user alone can enter; else it is off. It is never needed:
// every failure is a miss. Any thread, any number of processes.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>

namespace tandem::jit {

class DiskCache {
 public:
  /// The cache in `folder`/`section`, both made (for this user alone) if missing; "" or "off" as folder for
  /// none. Warns once if it cannot be used safely. `limit_bytes`: when it is passed, least recently used
  /// entries go.
  DiskCache(const std::string& folder, const std::string& section, uint64_t limit_bytes);
  ~DiskCache();
  DiskCache(const DiskCache&) = delete;
  DiskCache& operator=(const DiskCache&) = delete;

  bool enabled() const { return folder_ >= 0; }
  /// Where entries lie; empty if the cache is off.
  const std::string& path() const { return path_; }

  struct Stored {
    std::string source, object;
  };
  /// What is stored under `name` for exactly this key, if its source has `part` in it.
  std::optional<Stored> find(const std::string& name, const std::string& key, const std::string& part);
  /// The object stored under `name` for exactly this key and source. Anything else (absent, damaged,
  /// another's) is a miss.
  std::optional<std::string> load(const std::string& name, const std::string& key, const std::string& source);
  /// Stores, replacing what was there; failures are reported once and otherwise ignored.
  void store(const std::string& name, const std::string& key, const std::string& source,
             const std::string& object) {
    store({&name, 1}, key, source, object);
  }
  /// The same under several names.
  void store(std::span<const std::string> names, const std::string& key, const std::string& source,
             const std::string& object);

 private:
  void open_folder(const std::string& folder, const std::string& section);
  /// `bytes` grows by what the files take.
  bool write_entry(std::span<const std::string> names, const std::string& contents, uint64_t* bytes);
  bool link_entry(const std::string& written, const std::string& name);
  void evict();

  int folder_ = -1;
  std::string path_;
  const uint64_t limit_bytes_;
  std::atomic<bool> warned_{false};
  std::mutex mutex_;           // guards what follows
  uint64_t used_bytes_ = 0;    // at the last scan, and what we wrote since
  int writes_until_scan_ = 0;  // other processes write too
};

}  // namespace tandem::jit
