// CUDA devices, as programs ask for them. Free functions, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/core/device.h"
#include "tandem/core/error.h"

namespace tandem::cuda {

/// True if the driver, NVRTC, cuBLASLt and a device are there; else `why_not_available` says in one sentence
/// what was looked for and where.
bool is_available();
std::string why_not_available();
int device_count();

/// Waits for all work of the device; throws what failed since the last time (an index out of range, with its
/// op and line).
void synchronize(Device device = {DeviceType::cuda, 0});

struct MemoryStats {
  int64_t live_bytes = 0;    // of blocks in use
  int64_t peak_bytes = 0;    // highest live_bytes
  int64_t cached_bytes = 0;  // waiting to be used again
  int64_t system_calls = 0;  // allocations that reached the driver
};
MemoryStats memory_stats(Device device = {DeviceType::cuda, 0});
/// Gives cached memory back to the device, and pinned memory to the host.
void empty_cache(Device device = {DeviceType::cuda, 0});

}  // namespace tandem::cuda
