// The caching CPU allocator: 64-byte aligned blocks in thread-local free lists by size class, so that a warm
// allocation touches no lock and no malloc. A block may be freed on any thread. Fresh memory is filled with
// NaN bytes when `poison` is on (debug builds, tests).
#pragma once

#include <cstdint>

namespace tandem::core {

/// At least `nbytes` bytes, 64-byte aligned; throws Error when the system has no memory or nbytes is
/// negative.
void* allocate(int64_t nbytes);
/// Gives a block of `allocate(nbytes)` back; `nbytes` as it was asked for.
void deallocate(void* block, int64_t nbytes) noexcept;

struct AllocatorStats {
  int64_t live_bytes = 0;    // handed out now, over all threads; of others within 1 MiB
  int64_t peak_bytes = 0;    // highest live_bytes, within 1 MiB a thread
  int64_t cached_bytes = 0;  // waiting in this thread's free lists
  int64_t system_calls = 0;  // allocations that reached the system
};
/// Figures of this thread's lists, and of all threads where said. Large blocks only are counted in live and
/// peak, unless count_small_blocks() was called.
AllocatorStats allocator_stats();
/// From now on small blocks of this thread, and of threads that begin later, are counted in live and peak as
/// large ones are, to the byte; each then comes from the system and goes back. For measuring: call it before
/// the first tensor is made, since blocks that were taken before are counted when they come back.
void count_small_blocks();
/// peak_bytes begins again at live_bytes.
void reset_peak_bytes() noexcept;
/// Returns this thread's cached blocks to the system.
void empty_cache() noexcept;

/// Fill fresh memory with 0xFF bytes (NaN in every floating type, -1 in the integers). Returns the old
/// setting.
bool set_poison(bool on);

}  // namespace tandem::core
