// The CUDA printer: one `__global__` function per kernel of the IR, every kernel covered, in the reduction
// trees of kernel.h, so that results are the chunk evaluator's bit for bit (but for float64 functions such as
// exp, which are CUDA's, and for which NaN a NaN is: a card computes positive ones without a payload). Pure
// functions, any thread.
//
// The printed function has one parameter, a structure of 8-byte words by value, in this order:
//   buffers[k.buffers]          device addresses
//   dims[kept + reduced]        sizes
//   strides[...]                as KernelArgs::strides
//   numbers[k.numbers]
//   count                       elements (pointwise), rows or columns: the range of the kept dimensions from
//   0 error                       address of an int64: 1 + the load that met an index out of range
// It gives its results whatever the grid; blocks have the shape that launch_shape says.
//
// A function for several calls (a horizontal group) has a structure of `calls` such structures, followed by
// one word a call: the blocks of the calls up to and with it, where there is no call more than a grid has.
// Its grid has the blocks of all its calls. A function that splits rows or columns over the grid has two
// words more, addresses: of counters (32 bits), 0 before and after the launch, one for each row or group of
// columns side by side; and of memory, at an address for 16 bytes, for what the parts of the rows or columns
// give. A function for a chain has a structure of its kernels' structures.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tandem/jit/kernel.h"

namespace tandem::jit {

enum class CudaForm : uint8_t { one, several, split, many };
/// Text that defines `extern "C" __global__ void <symbol>`, without the prelude. `several` and `many`: for up
/// to cuda_calls calls.
std::string print_cuda(const Kernel& k, const std::string& symbol, CudaForm form = CudaForm::one);
/// The prelude that printed kernels need, once per program. No includes.
const std::string& cuda_prelude();
/// NVRTC's options for a device of compute capability `capability` (90 for 9.0): results depend on them.
std::vector<std::string> cuda_options(int capability);

/// Words of the printed function's parameter: at most kMaxCudaWords (older devices take 4 KiB).
inline constexpr int kMaxCudaWords = 500;
/// The same for `many` calls: devices since 7.0 take 32,764 bytes, if compiler and driver are of CUDA 12.1.
inline constexpr int kManyCudaWords = 4000;
int cuda_words(const Kernel& k);
/// The calls that one launch has room for.
int cuda_calls(const Kernel& k, CudaForm form = CudaForm::several);

struct LaunchShape {
  unsigned grid = 0, block = 0, shared_bytes = 0;  // grid 0: nothing to launch
};
/// Dynamic shared memory that a function can have without asking for more.
inline constexpr int64_t kCudaUnasked = 48 * 1024;
/// Dynamic shared memory of the kernel's launches at most, on a device whose blocks can have `shared` bytes.
int64_t most_shared(const Kernel& k, int64_t shared);
/// A function of structure and sizes alone, and of the device's `shared`. `dims`: kept sizes, then reduced
/// sizes.
LaunchShape launch_shape(const Kernel& k, const int64_t* dims, int64_t count, int64_t shared = kCudaUnasked);

/// A kernel in a chain of small ones, which one thread block runs one after the other. `dims`: kept sizes,
/// then reduced sizes.
struct ChainKernel {
  const Kernel* kernel;
  const int64_t* dims;
  int64_t count;
};
/// Whether a thread block has words and shared memory for all of them, and each can run in one.
bool cuda_takes_chain(std::span<const ChainKernel> chain);
LaunchShape chain_shape(std::span<const ChainKernel> chain);
/// The function of such a chain, without the prelude.
std::string print_cuda_chain(std::span<const Kernel* const> kernels, const std::string& symbol);

/// Whether a kernel that reduces across its rows has blocks of them for a card, and rows for a thread block:
/// print_cuda is for no other.
bool cuda_takes_across(const Kernel& k, int64_t rows, int64_t columns);

/// Whether a kernel's rows or columns can be split over the grid.
bool cuda_splits(const Kernel& k);
/// How that is done with few long ones; a function of structure and sizes alone, for kernels that
/// cuda_splits.
struct SplitShape {
  LaunchShape launch;               // grid 0: not split
  int64_t counters = 0, bytes = 0;  // words of 32 bits; of memory
};
SplitShape split_shape(const Kernel& k, const int64_t* dims, int64_t count);

}  // namespace tandem::jit
