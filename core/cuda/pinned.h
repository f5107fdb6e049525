// Pinned memory of the host, which devices copy to and from while the host goes on: blocks of the driver's in
// free lists by size class (powers of two), with the events of the copies that are still to come. Who touches
// such memory on the host waits for these first (`core::settle_host`, storage.h), and a block is handed out
// again only when they are done. One for the process, for all devices; any thread, one lock.
#pragma once

#include <cstdint>

#include "tandem/core/device.h"
#include "tandem/core/ref.h"

namespace tandem::core {
struct Storage;
}

namespace tandem::cuda {

class Runtime;

/// Memory of the host's, pinned by the device's driver; throws OutOfMemory.
core::Ref<core::Storage> make_pinned_storage(int64_t nbytes, Device device, const char* who,
                                             Location where = {});
/// Whether the address lies in such memory.
bool is_pinned(const void* data);

/// Copies between pinned and device memory that are queued on the device's current stream behind what
/// conflicts with them, and not waited for.
void queue_copy_in(Runtime& device, unsigned long long to, const void* from, int64_t nbytes);
void queue_copy_out(Runtime& device, void* to, unsigned long long from, int64_t nbytes);

struct PinnedStats {
  int64_t live_bytes = 0, cached_bytes = 0;
};
PinnedStats pinned_stats();
/// Gives cached blocks back to the driver, when their copies are done.
void empty_pinned_cache() noexcept;

}  // namespace tandem::cuda
