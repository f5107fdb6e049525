// Kernels are compiled in programs of several, the programs side by side on several threads, and lie on the
// disk for each of their kernels. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/jit/disk_cache.h"

namespace tandem::jit {

/// What stands before the kernels of a program, the same in all of them, with its digest for cache keys.
struct ProgramStart {
  std::string text, digest;
  explicit ProgramStart(std::string text_);
};

/// A kernel's text, which knows of no other kernel. `cost`: how long it takes to compile, in characters of a
/// plain kernel.
struct ProgramPart {
  std::string text;
  size_t cost;
};

/// Which parts share a program (rising indices): as many programs as `processors`, or a multiple of that,
/// alike in cost, but none that would take longer to begin with than for its kernels, and none that grows
/// without bounds.
std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs, size_t processors);
/// The same for this machine.
std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs);

/// Calls work(i) for i in [0, jobs), on as many threads as there are jobs and processors. Waits for all;
/// throws what the first job threw that failed.
void side_by_side(size_t jobs, const std::function<void(size_t)>& work);

/// A kernel whose code is wanted.
struct WantedPart {
  std::string_view text;
  size_t cost;       // as of a ProgramPart
  std::string name;  // on the disk
};

/// How programs are made where they shall run. Both functions are called on several threads at once; `parts`
/// are numbers of wanted kernels.
struct ProgramMaker {
  DiskCache& disk;
  std::string key;  // on the disk: all that decides about code but its source
  /// The program of these parts, whose texts `source` is, as it shall be stored; nothing if it is refused.
  std::function<std::optional<DiskCache::Stored>(std::span<const size_t> parts, std::string source)> compile;
  /// Loads a program for those of its parts that are wanted; false if it cannot be loaded.
  std::function<bool(const DiskCache::Stored& program, std::span<const size_t> parts)> load;
};

/// Loads programs for all of `wanted`: first what the disk has, in whatever company, then what must be
/// compiled, each program stored once it is loaded. The parts of a program that is refused are compiled one
/// by one. Returns how many parts the disk had.
int64_t load_programs(std::span<const WantedPart> wanted, const ProgramMaker& maker);

}  // namespace tandem::jit
