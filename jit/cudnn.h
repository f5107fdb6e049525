// Convolutions on a CUDA device by cuDNN, where it is there and takes them: plans by shape, kept to the
// process's end, and their execution on a stream. Which convolution is done by the library, and by which of
// its engines, is a function of the shape, the strides, the dtype and whether the operands are 16-byte
// aligned, alone; one that is not taken once is never asked for again. What is not taken is for a kernel of
// our own. Any thread.
#pragma once

#include <string>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cudnn_plan.h"
#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::jit {

/// The same convolution of contiguous operands, with two axes at least, as the library knows them best.
CudnnShape cudnn_shape(const ops::ConvolutionShape& shape);

/// False, and the reason, for what cuDNN is not asked for: there is no library; another dtype than float32,
/// float16 and bfloat16; nothing to compute; strides of 0; memory of 2^31 elements and more; a y that is
/// smaller than x would make it, as output_padding allows.
bool cudnn_can(const CudnnShape& shape, std::string* why = nullptr);

#ifdef TANDEM_TEST_SWITCHES
extern bool cudnn_off;  // for tests of our own kernels; set before executables are made
#endif

/// A convolution as cuDNN does it; lives to the process's end.
struct CudnnConvolution;

/// Finds or makes it; null, and the reason, if a kernel of our own shall do it. May compile and load: not
/// while a stream is captured.
const CudnnConvolution* cudnn_convolution(cuda::Runtime& device, const CudnnShape& shape,
                                          std::string* why = nullptr);
/// Bytes of workspace that it needs, at a multiple of 256.
int64_t workspace_bytes(const CudnnConvolution& convolution);
/// Queues it, or, on a stream that is captured, adds it to the graph. The operand that is the result is
/// overwritten; neither it nor the workspace overlaps another. Throws Error with what the library says.
void run_convolution(cuda::Runtime& device, const CudnnConvolution& convolution, cuda::Pointer x,
                     cuda::Pointer w, cuda::Pointer y, cuda::Pointer workspace, cuda::StreamHandle stream);

}  // namespace tandem::jit
