// Plans of the vendor's own cuDNN, where it is installed, for an H100 that is described and not there: that
// the library takes our descriptions of convolutions, and that it has an engine for each that we take.
// Nothing is executed. Elsewhere the test says that it was skipped.
#include "tandem/jit/cudnn_plan.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tests/catch.h"
#include "tests/jit/cudnn_device.h"
#include "tests/jit/cudnn_shapes.h"

using tandem::Dims;
using tandem::DType;
using tandem::cuda::Cudnn;
using namespace tandem::jit;
using namespace tandem::test;

namespace {

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

TEST_CASE("cudnn plans: halves with a bias have an engine that adds it to what was not rounded", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  for (const DType dtype : {DType::float16, DType::bfloat16})
    for (const Memory memory : {Memory::rows, Memory::channels_last})
      for (const Case& c : kCases) {
        if (c.axes.size() > 2) continue;  // volumes with a bias are compiled first
        CudnnShape s = shape_of(c, CudnnDirection::forward, dtype, memory);
        s.biased = true;
        CAPTURE(to_string(s));
        std::string why;
        const auto plan = CudnnPlan::make(target, s, 16, &why);
        CAPTURE(why);
        CHECK(plan);
      }
}

TEST_CASE("cudnn plans: operands that lie channels last need less workspace than turned ones", "[cuda]") {
  CudnnTarget target;
  CudnnDescriptor device;
  if (!find(&target, &device)) return;
  const Case& c = kCases[0];
  CudnnShape s = shape_of(c, CudnnDirection::forward, DType::bfloat16);
  std::string why;
  const auto rows = CudnnPlan::make(target, s, 16, &why);
  s.x_strides = strides_for(s.x, Memory::channels_last);
  const auto lying = CudnnPlan::make(target, s, 16, &why);
  CAPTURE(why);
  REQUIRE((rows && lying));
  CHECK(has(*lying, Cudnn::Note::tensor_core));
  CHECK(lying->workspace_bytes() + tandem::numel(s.x) * 2 <= rows->workspace_bytes() + 256);
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
