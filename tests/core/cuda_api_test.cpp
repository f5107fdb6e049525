// Our declarations of the vendor's functions against the vendor's headers, where those are installed: every
// parameter and result has the same size, every constant the same value. Checked by the compiler; the test
// says whether it could be.
#include "tandem/core/cuda/api.h"

#include "tests/catch.h"

#if __has_include(<cuda.h>) && __has_include(<nvrtc.h>) && __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <cuda.h>
#include <nvrtc.h>

#include "tests/core/same_shape.h"
#define TANDEM_TEST_VENDOR 1

namespace {

namespace cuda = tandem::cuda;

using tandem::test::SameShape;

#define TANDEM_CUDA(result, name, symbol, parameters) \
  static_assert(SameShape<decltype(cuda::Driver::name), decltype(&::symbol)>::value, #symbol);
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA
#define TANDEM_CUDA(result, name, symbol, parameters) \
  static_assert(SameShape<decltype(cuda::Nvrtc::name), decltype(&::symbol)>::value, #symbol);
#include "tandem/core/cuda/nvrtc.def"
#undef TANDEM_CUDA
#define TANDEM_CUDA(result, name, symbol, parameters) \
  static_assert(SameShape<decltype(cuda::CublasLt::name), decltype(&::symbol)>::value, #symbol);
#include "tandem/core/cuda/cublaslt.def"
#undef TANDEM_CUDA

static_assert(sizeof(cuda::KernelNode) == sizeof(CUDA_KERNEL_NODE_PARAMS_v2));
static_assert(offsetof(cuda::KernelNode, parameters) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, kernelParams));
static_assert(sizeof(cuda::CublasLt::Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(cuda::CublasLt::HeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t));

#define SAME(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
SAME(cuda::Result::success, CUDA_SUCCESS);
SAME(cuda::Result::invalid_value, CUDA_ERROR_INVALID_VALUE);
SAME(cuda::Result::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(cuda::Result::not_initialized, CUDA_ERROR_NOT_INITIALIZED);
SAME(cuda::Result::no_device, CUDA_ERROR_NO_DEVICE);
SAME(cuda::Result::invalid_device, CUDA_ERROR_INVALID_DEVICE);
SAME(cuda::Result::invalid_image, CUDA_ERROR_INVALID_IMAGE);
SAME(cuda::Result::no_binary_for_gpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
SAME(cuda::Result::not_found, CUDA_ERROR_NOT_FOUND);
SAME(cuda::Result::not_ready, CUDA_ERROR_NOT_READY);
SAME(cuda::Result::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(cuda::Result::launch_out_of_resources, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
SAME(cuda::Result::launch_failed, CUDA_ERROR_LAUNCH_FAILED);
SAME(cuda::Result::unknown, CUDA_ERROR_UNKNOWN);
SAME(cuda::kMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(cuda::kMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(cuda::kMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(cuda::kSharedPerBlock, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
SAME(cuda::kSharedPerBlockOptIn, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(cuda::kMostDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(cuda::kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
SAME(cuda::kEventWithoutTiming, CU_EVENT_DISABLE_TIMING);
SAME(cuda::kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME(cuda::kCaptureRelaxed, CU_STREAM_CAPTURE_MODE_RELAXED);
SAME(cuda::CublasLt::kCompute32F, CUBLAS_COMPUTE_32F);
SAME(cuda::CublasLt::kCompute64F, CUBLAS_COMPUTE_64F);
SAME(cuda::CublasLt::kComputeFastTf32, CUBLAS_COMPUTE_32F_FAST_TF32);
SAME(cuda::CublasLt::kReal32F, CUDA_R_32F);
SAME(cuda::CublasLt::kReal64F, CUDA_R_64F);
SAME(cuda::CublasLt::kReal16F, CUDA_R_16F);
SAME(cuda::CublasLt::kReal16BF, CUDA_R_16BF);
SAME(cuda::CublasLt::kTransposeA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(cuda::CublasLt::kTransposeB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(cuda::CublasLt::kEpilogue, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(cuda::CublasLt::kBiasPointer, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(cuda::CublasLt::kNoTranspose, CUBLAS_OP_N);
SAME(cuda::CublasLt::kTranspose, CUBLAS_OP_T);
SAME(cuda::CublasLt::kEpilogueBias, CUBLASLT_EPILOGUE_BIAS);
SAME(cuda::CublasLt::kOrder, CUBLASLT_MATRIX_LAYOUT_ORDER);
SAME(cuda::CublasLt::kBatchCount, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT);
SAME(cuda::CublasLt::kBatchStride, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET);
SAME(cuda::CublasLt::kRowMajor, CUBLASLT_ORDER_ROW);
SAME(cuda::CublasLt::kMaxWorkspace, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(cuda::CublasLt::kReductionMask, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(cuda::CublasLt::kReduceInPlace, CUBLASLT_REDUCTION_SCHEME_INPLACE);
SAME(cuda::CublasLt::kReduceCompute, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
SAME(cuda::CublasLt::kReduceOutput, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
SAME(cuda::CublasLt::kMinAlignmentA, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(cuda::CublasLt::kMinAlignmentA + 3, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
#undef SAME

}  // namespace
#endif

TEST_CASE("cuda declarations: the vendor's headers agree, where there are any", "[cuda]") {
#ifdef TANDEM_TEST_VENDOR
  SUCCEED("compared when this was compiled");
#else
  WARN("no CUDA headers here: our declarations were not compared with the vendor's");
#endif
}
