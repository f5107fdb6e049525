// The C functions of the CUDA driver, NVRTC and cuBLASLt that Tandem calls, by declarations of its own: they
// are found at run time (libraries.h), so that one binary serves machines with and without them. Types have
// the vendor's sizes and layouts, constants its values. Tables of pointers, filled once, then immutable; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cuda {

/// A CUresult, by its value.
enum class Result : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  not_initialized = 3,
  no_device = 100,
  invalid_device = 101,
  invalid_image = 200,
  no_binary_for_gpu = 209,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_out_of_resources = 701,
  launch_failed = 719,
  unknown = 999,
};

using Pointer = unsigned long long;  // an address on the device
using Context = struct ContextOfDriver*;
using StreamHandle = struct StreamOfDriver*;
using EventHandle = struct EventOfDriver*;
using Module = struct ModuleOfDriver*;
using Function = struct FunctionOfDriver*;
using Graph = struct GraphOfDriver*;
using GraphNode = struct GraphNodeOfDriver*;
using GraphExec = struct GraphExecOfDriver*;

/// CUDA_KERNEL_NODE_PARAMS_v2
struct KernelNode {
  Function function;
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void** parameters;
  void** extra;
  void* kernel;  // a CUkernel instead of `function`
  Context context;
};

/// CUdevice_attribute
inline constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kSharedPerBlock = 8;
inline constexpr int kSharedPerBlockOptIn = 97;
/// CUfunction_attribute
inline constexpr int kMostDynamicShared = 8;
inline constexpr unsigned kStreamNonBlocking = 1, kEventWithoutTiming = 2;
inline constexpr int kCaptureThreadLocal = 1, kCaptureRelaxed = 2;

struct Driver {
#define TANDEM_CUDA(result, name, symbol, parameters) result(*name) parameters = nullptr;
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA
};

struct Nvrtc {
  using Program = struct ProgramOfNvrtc*;
#define TANDEM_CUDA(result, name, symbol, parameters) result(*name) parameters = nullptr;
#include "tandem/core/cuda/nvrtc.def"
#undef TANDEM_CUDA
};

struct CublasLt {
  using Handle = struct HandleOfCublasLt*;
  using Description = struct DescriptionOfCublasLt*;
  using Layout = struct LayoutOfCublasLt*;
  using Preference = struct PreferenceOfCublasLt*;
  struct Algorithm {
    uint64_t data[8];
  };
  struct HeuristicResult {
    Algorithm algorithm;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
  };
  /// cublasComputeType_t, cudaDataType_t, attributes
  static constexpr int kCompute32F = 68, kCompute64F = 70, kComputeFastTf32 = 77;
  static constexpr int kReal32F = 0, kReal64F = 1, kReal16F = 2, kReal16BF = 14;
  static constexpr int kTransposeA = 3, kTransposeB = 4, kEpilogue = 7, kBiasPointer = 8;
  static constexpr int kNoTranspose = 0, kTranspose = 1;
  static constexpr int kEpilogueBias = 4;
  static constexpr int kOrder = 1, kBatchCount = 5, kBatchStride = 6;
  static constexpr int kRowMajor = 1;
  static constexpr int kMaxWorkspace = 1, kReductionMask = 3, kMinAlignmentA = 5;  // B, C and D follow
  /// cublasLtReductionScheme_t, bits of that mask: the type in which parts of a sum are kept
  static constexpr uint32_t kReduceInPlace = 1, kReduceCompute = 2, kReduceOutput = 4;
#define TANDEM_CUDA(result, name, symbol, parameters) result(*name) parameters = nullptr;
#include "tandem/core/cuda/cublaslt.def"
#undef TANDEM_CUDA
};

}  // namespace tandem::cuda
