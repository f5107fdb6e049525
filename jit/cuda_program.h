// Functions on a CUDA device, from their text: memory, then the disk cache, then NVRTC. Found functions live
// to the process's end. Any thread; sources that are asked for at the same time may be compiled twice.
// Failures are errors: there is nothing to fall back to.
#pragma once

#include <string>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

/// Whether a launch has room for CudaForm::many.
bool takes_many_calls(const cuda::Runtime& device);

/// One of a kernel's functions.
struct CudaKernel {
  const Kernel* kernel;
  const std::string* text;  // to_string of it
  CudaForm form = CudaForm::one;
  std::vector<const Kernel*> behind = {};  // of its chain
  std::string texts_behind = {};           // to_string of these
};
/// The chain of an entry that is one (Entry::chain).
CudaKernel chain_of(const Plan& plan, const Entry& e);
/// Their functions, in order. Those that are new are compiled together.
std::vector<cuda::Function> cuda_kernels(cuda::Runtime& device, const std::vector<CudaKernel>& kernels);

/// What NVRTC compiles for: machine code of an architecture that it knows, or, for a newer card, the PTX of
/// the newest one it knows, which the driver compiles when it loads it.
struct CudaTarget {
  int architecture = 0;  // 90 for 9.0
  bool ptx = false;
  std::vector<std::string> options() const;
};
/// An Error if the device is older than all that NVRTC knows.
CudaTarget cuda_target(int capability);

/// The function `symbol` that `source` (without prelude) defines. `whose` names it where it does not compile,
/// if that can be the program's own mistake.
cuda::Function cuda_function(cuda::Runtime& device, const std::string& symbol, const std::string& source,
                             const std::string& whose = {});

/// Such functions, in order; those that are new are compiled together.
struct CudaText {
  std::string symbol, source;
};
std::vector<cuda::Function> cuda_functions(cuda::Runtime& device, const std::vector<CudaText>& texts);

struct CudaCompileStats {
  int64_t compiles = 0, disk_hits = 0;
  double compile_ms = 0;
};
CudaCompileStats cuda_compile_stats();

}  // namespace tandem::jit
