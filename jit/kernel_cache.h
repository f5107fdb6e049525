// Compiled kernels by their source: memory, then disk, then the host compiler. Kernels that are asked for
// together are compiled in programs of several, and each is known by itself afterwards, in whatever company
// it is asked for. A cache holds its modules to its end; modules outlive it. Any thread: threads that ask for
// one source at the same time share one compilation, and different sources compile side by side. Nothing here
// throws for a missing compiler, a full disk or a failed compilation: the answer is null, with one warning,
// and the caller runs the evaluator.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tandem/core/version.h"
#include "tandem/jit/compiler.h"
#include "tandem/jit/disk_cache.h"
#include "tandem/jit/module.h"
#include "tandem/jit/programs.h"

namespace tandem::jit {

struct CacheStats {
  int64_t memory_hits = 0;  // sources that were known here (failed ones, too), waited for perhaps
  int64_t disk_hits = 0;
  int64_t compiles = 0;   // objects made by the compiler, of one source or several
  int64_t failures = 0;   // sources that were refused, or whose object could not be loaded
  double compile_ms = 0;  // sum over compilations, refused ones included
};

class KernelCache {
 public:
  struct Settings {
    std::string folder;  // of the disk cache; "" or "off": none
    uint64_t limit_bytes = uint64_t{512} << 20;
    const HostCompiler* compiler = nullptr;  // not owned; null: every answer is null
    std::vector<std::string> options = HostCompiler::default_options();
    LoadPlaces places{true, {}};  // folders: where objects may be loaded from if not from memory
    std::string version = core::version();
  };
  explicit KernelCache(Settings settings);

  /// The module compiled from `source`, or null with the reason in `error`.
  std::shared_ptr<const Module> get(const std::string& source, std::string* error = nullptr);
  /// For each part the module that has its functions, compiled behind `start`; several may be in one. Null
  /// where that failed, with the last reason in `error`.
  std::vector<std::shared_ptr<const Module>> get(const ProgramStart& start,
                                                 std::span<const ProgramPart> parts,
                                                 std::string* error = nullptr);

  /// Drops what is held in memory (modules in use live on). The disk stays.
  void forget();
  CacheStats stats() const;
  const DiskCache& disk() const { return disk_; }

  /// The process's cache, set by TANDEM_CACHE_DIR and TANDEM_CXX at first use; lives to the end of the
  /// process.
  static KernelCache& of_process();

 private:
  struct Entry {
    int process;  // that builds it: a forked child does not wait for its parent's threads
    bool done = false;
    std::shared_ptr<const Module> module;
    std::string error;
  };

  /// What an entry will have.
  struct Built {
    std::shared_ptr<const Module> module;
    std::string error;
  };
  std::vector<Built> build(const ProgramStart& start, std::span<const WantedPart> wanted);
  /// The program of one source behind `start`; the stored source ends with `key`, the module's.
  std::optional<DiskCache::Stored> compile(const ProgramStart& start, std::string source,
                                           const std::string& key, std::string* error);
  std::shared_ptr<const Module> load(const ProgramStart& start, const DiskCache::Stored& program,
                                     std::string* error);
  std::string disk_key(const ProgramStart& start) const { return key_ + "start " + start.digest + "\n"; }
  void warn_once(const std::string& message);

  const Settings settings_;
  const std::string key_;  // all that decides about an object but its source
  DiskCache disk_;
  std::atomic<bool> no_place_{false};
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable built_;
  std::unordered_map<std::string, std::shared_ptr<Entry>> entries_;        // by a part's name
  std::unordered_map<std::string, std::weak_ptr<const Module>> programs_;  // by a module's key
  CacheStats stats_;
  bool warned_ = false;
};

/// The process's.
CacheStats cache_stats();

}  // namespace tandem::jit
