#include "tandem/core/memory.h"

#include "tandem/core/allocator.h"
#include "tandem/core/cuda/runtime.h"

namespace tandem {

DeviceMemory device_memory(Device device, Location where) {
  if (device.type == DeviceType::cuda) {
    const cuda::MemoryStats stats = cuda::Runtime::of(device, "device_memory", where).memory_stats();
    return {stats.live_bytes, stats.peak_bytes};
  }
  const core::AllocatorStats stats = core::allocator_stats();
  return {stats.live_bytes, stats.peak_bytes};
}

void reset_peak_memory(Device device, Location where) {
  if (device.type == DeviceType::cuda)
    cuda::Runtime::of(device, "reset_peak_memory", where).reset_peak();
  else
    core::reset_peak_bytes();
}

}  // namespace tandem
