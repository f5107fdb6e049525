// A device that is not there, for planning by the vendor's own cuDNN. For the test that includes it; one
// thread.
#pragma once

#include <cstdio>
#include <string>

#include "tandem/core/cuda/libraries.h"
#include "tandem/core/error.h"
#include "tandem/jit/cudnn_graph.h"

namespace tandem::test {

using cuda::Cudnn;
using jit::CudnnDescriptor;
using jit::CudnnTarget;

/// The device in the library's own words.
inline const std::string kH100 =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
    R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
    R"("supportCoopLaunch":1,"totalGlobalMem":85899345920,"smClockRateKHz":1980000,)"
    R"("memClockRateKHz":2619000,"memoryBusWidth":5120,"l2CacheSize":52428800,"cudaDeviceId":0,"deviceVer":900,"driverVer":13000,)"
    R"("deviceName":"NVIDIA H100 80GB HBM3"})";

inline bool skipped(const std::string& why) {
  std::fprintf(stderr, "skipped: %s\n", why.c_str());
  return true;
}

/// The library and the device; false, said, where they are not to be had.
inline bool find(CudnnTarget* target, CudnnDescriptor* device) {
  const Cudnn* const api = cuda::cudnn();
  if (!api) return !skipped(cuda::why_no_cudnn());
  try {
    *device = CudnnDescriptor(*api, Cudnn::Kind::device);
    device->set(Cudnn::Attribute::device_text, Cudnn::Type::characters,
                static_cast<int64_t>(kH100.size()) + 1, kH100.c_str());
    device->finalize();
  } catch (const Error& e) {
    return !skipped("cuDNN " + std::to_string(api->version()) +
                    " takes no description of a device: " + e.what());
  }
  *target = {api, nullptr, device};
  return true;
}

}  // namespace tandem::test
