// Memory of tensors, alike for every device: what is in use, and the most that was. Free functions, any
// thread.
#pragma once

#include <cstdint>

#include "tandem/core/device.h"
#include "tandem/core/location.h"

namespace tandem {

struct DeviceMemory {
  int64_t live_bytes = 0;  // in use now
  int64_t peak_bytes = 0;  // highest live_bytes since the start, or since reset_peak_memory
};
/// Of the device's allocator, from which tensors and plans take their memory (not what libraries take for
/// themselves, nor what waits to be used again). On the CPU blocks of more than 256 KiB alone, within 1 MiB a
/// thread. Error: a CUDA device that is not there.
DeviceMemory device_memory(Device device, Location where = Location::here());
/// The peak begins again at what is in use now (PyTorch's cuda.reset_peak_memory_stats).
void reset_peak_memory(Device device, Location where = Location::here());

}  // namespace tandem
