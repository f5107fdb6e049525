// Convolutions and attention on a CUDA device by cuDNN, where it is there and takes them: plans by shape, of
// which the last kCudnnKept are kept, and their execution on a stream. Which call is done by the library, and
// by which of its engines, is a function of the shape, the strides, the dtype and whether the operands are
// 16-byte aligned, alone; one that is not taken is not asked for again while that is kept. What is not taken
// is for kernels of our own. Any thread.
#pragma once

#include <memory>
#include <string>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cudnn_attention.h"
#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::jit {

/// Answers that are kept on a device, those that nobody asked for longest are forgotten first. Plans live on
/// in the executables that hold them.
inline constexpr size_t kCudnnKept = 512;

/// The same convolution of contiguous operands, with two axes at least, as the library knows them best.
CudnnShape cudnn_shape(const ops::ConvolutionShape& shape, bool biased = false);

/// False, and the reason, for what cuDNN is not asked for: there is no library; another dtype than float32,
/// float16 and bfloat16; nothing to compute; strides of 0; memory of 2^31 elements and more; a y that is
/// smaller than x would make it, as output_padding allows.
bool cudnn_can(const CudnnShape& shape, std::string* why = nullptr);
/// The same for attention, of halves alone.
bool cudnn_can(const CudnnAttention& shape, std::string* why = nullptr);

#ifdef TANDEM_TEST_SWITCHES
extern bool cudnn_off;  // for tests of our own kernels; set before executables are made
/// How many answers are kept.
size_t cudnn_kept(cuda::Runtime& device);
#endif

/// A convolution as cuDNN does it.
struct CudnnConvolution;

/// Finds or makes it; null, and the reason, if a kernel of our own shall do it. May compile and load: not
/// while a stream is captured.
std::shared_ptr<const CudnnConvolution> cudnn_convolution(cuda::Runtime& device, const CudnnShape& shape,
                                                          std::string* why = nullptr);
std::shared_ptr<const CudnnPlan> cudnn_attention(cuda::Runtime& device, const CudnnAttention& shape,
                                                 std::string* why = nullptr);

/// Bytes of workspace that it needs, at a multiple of 256.
int64_t workspace_bytes(const CudnnConvolution& convolution);
/// Queues it, or, on a stream that is captured, adds it to the graph. The operand that is the result is
/// overwritten; neither it nor the workspace overlaps another. `bias` is 0 for none. Throws Error with what
/// the library says.
void run_convolution(cuda::Runtime& device, const CudnnConvolution& convolution, cuda::Pointer x,
                     cuda::Pointer w, cuda::Pointer y, cuda::Pointer bias, cuda::Pointer workspace,
                     cuda::StreamHandle stream);
/// The same for any plan.
void run_plan(cuda::Runtime& device, const CudnnPlan& plan, std::span<const CudnnPlan::Operand> operands,
              cuda::Pointer workspace, cuda::StreamHandle stream);
/// Before the stream is destroyed: the library's handle has the default one if it has this.
void leave_stream(cuda::Runtime& device, cuda::StreamHandle stream) noexcept;

/// What stands for the score of what is not seen: -infinity, or the lowest number for releases that want it.
float cudnn_lowest();

}  // namespace tandem::jit
