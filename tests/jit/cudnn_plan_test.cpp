// Plans of the vendor's own cuDNN, where it is installed, for an H100 that is described and not there: that
// the library takes our descriptions of convolutions, and that it has an engine for each that we take.
// Nothing is executed. Elsewhere the test says that it was skipped.
#include "tandem/jit/cudnn_plan.h"

#include <algorithm>
#include <cstdio>

#include "tandem/core/cuda/libraries.h"
#include "tandem/core/error.h"
#include "tests/catch.h"
#include "tests/jit/cudnn_shapes.h"

using tandem::Dims;
using tandem::DType;
using tandem::cuda::Cudnn;
using namespace tandem::jit;
using namespace tandem::test;

namespace {

/// The device in the library's own words.
const std::string kH100 =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"warpSize":32,"maxSharedMemoryPerBlock":49152,)"
    R"("maxSharedMemoryPerBlockOptin":232448,"reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,)"
    R"("maxCtasPerSM":32,"maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"pciDeviceId":0,"isTccDriver":0,)"
    R"("supportCoopLaunch":1,"totalGlobalMem":85899345920,"smClockRateKHz":1980000,)"
    R"("memClockRateKHz":2619000,"memoryBusWidth":5120,"l2CacheSize":52428800,"cudaDeviceId":0,"deviceVer":900,"driverVer":13000,)"
    R"("deviceName":"NVIDIA H100 80GB HBM3"})";

bool skipped(const std::string& why) {
  std::fprintf(stderr, "skipped: %s\n", why.c_str());
  return true;
}

/// The library and the device; false, said, where they are not to be had.
bool find(CudnnTarget* target, CudnnDescriptor* device) {
  const Cudnn* const api = tandem::cuda::cudnn();
  if (!api) return !skipped(tandem::cuda::why_no_cudnn());
  try {
    *device = CudnnDescriptor(*api, Cudnn::Kind::device);
    device->set(Cudnn::Attribute::device_text, Cudnn::Type::characters,
                static_cast<int64_t>(kH100.size()) + 1, kH100.c_str());
    device->finalize();
  } catch (const tandem::Error& e) {
    return !skipped("cuDNN " + std::to_string(api->version()) +
                    " takes no description of a device: " + e.what());
  }
  *target = {api, nullptr, device};
  return true;
}

const Case kCases[] = {
    {8, 32, 64, 1, {{28, 3, 1, 1, 1}, {28, 3, 1, 1, 1}}},
    {64, 1, 32, 1, {{28, 3, 0, 1, 1}, {28, 3, 0, 1, 1}}},
    {4, 64, 64, 64, {{14, 3, 1, 1, 1}, {14, 3, 1, 1, 1}}},
    {2, 12, 18, 3, {{15, 3, 2, 2, 2}, {9, 2, 0, 1, 1}}},
    {4, 32, 64, 1, {{1, 1, 0, 1, 1}, {100, 5, 2, 2, 1}}},
    {4, 32, 64, 1, {{100, 5, 2, 2, 1}}},
    {1, 8, 16, 1, {{9, 3, 1, 1, 1}, {9, 3, 1, 1, 1}, {9, 3, 1, 1, 1}}},
};

bool has(const CudnnPlan& plan, int note) {
  return std::count(plan.notes().begin(), plan.notes().end(), note) != 0;
}

}  // namespace

TEST_CASE("cudnn plans: the library has an engine that we take for every direction, type and layout",
          "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  for (const CudnnDirection direction :
       {CudnnDirection::forward, CudnnDirection::input, CudnnDirection::weight})
    for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16})
      for (const Memory memory : {Memory::rows, Memory::channels_last})
        for (const int64_t alignment : {int64_t{16}, tandem::itemsize(dtype)})
          for (const Case& c : kCases) {
            if (dtype == DType::bfloat16 && alignment < 16) continue;  // as float16
            CudnnShape s = shape_of(c, direction, dtype, memory);
            for (const bool tf32 : {false, true}) {
              if (tf32 && dtype != DType::float32) continue;
              s.tf32 = tf32;
              CAPTURE(to_string(s), alignment);
              std::string why;
              const auto plan = CudnnPlan::make(target, s, alignment, &why);
              CAPTURE(why);
              CHECK(plan);
              if (!plan) continue;
              CHECK(plan->workspace_bytes() >= 0);
              CHECK(plan->workspace_bytes() <= kCudnnWorkspace);
              using Note = Cudnn::Note;
              for (const int note : {Note::nondeterministic, Note::reduced_precision_reduction,
                                     Note::down_convert_inputs, Note::fft, Note::winograd})
                CHECK_FALSE(has(*plan, note));
              if (dtype == DType::float32 && !tf32) CHECK_FALSE(has(*plan, Note::tensor_core));
            }
          }
}

TEST_CASE("cudnn plans: a large convolution of halves uses tensor cores", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  for (const CudnnDirection direction :
       {CudnnDirection::forward, CudnnDirection::input, CudnnDirection::weight}) {
    std::string why;
    const auto plan = CudnnPlan::make(
        target, shape_of(kCases[0], direction, DType::bfloat16, Memory::channels_last), 16, &why);
    CAPTURE(why);
    REQUIRE(plan);
    CHECK(has(*plan, Cudnn::Note::tensor_core));
  }
}

TEST_CASE("cudnn plans: sizes that do not fit are refused in the library's words", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  CudnnShape s = shape_of(kCases[0], CudnnDirection::forward, DType::float32);
  s.y[3] += 1;
  std::string why;
  CHECK_THROWS_WITH(CudnnPlan::make(target, s, 16, &why),
                    Contains("cudnnBackendFinalize: CUDNN_STATUS_BAD_PARAM"));
}
