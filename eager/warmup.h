// Compiling ahead for CUDA devices. Any thread.
#pragma once

#include "tandem/core/device.h"
#include "tandem/core/location.h"

namespace tandem::cuda {

/// Compiles the kernels of all ops on contiguous float32 tensors, many in one program, so that their first
/// eager use does not wait for the compiler. Returns how many kernels the device knows them by. An Error if
/// the device is not there.
int warmup(Device device = {DeviceType::cuda, 0}, Location where = Location::here());

}  // namespace tandem::cuda
