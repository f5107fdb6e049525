// Finding the CUDA driver, NVRTC, cuBLASLt and cuDNN at run time. Searched once, in this order: the folders
// of TANDEM_CUDA_PATH (and their lib64 and lib), the loader's own path, $CUDA_HOME/lib64,
// /usr/local/cuda/lib64, and nvidia/*/lib of the active Python environment; in each of them newer versions
// first, but for those of a CUDA that the driver does not know yet. What is missing, too old or too new is a
// normal state, told in one sentence; cuDNN is looked for when somebody first asks, the program does without
// it. Tables are immutable once found and live to the process's end; any thread.
#pragma once

#include <string>

#include "tandem/core/cuda/api.h"

namespace tandem::cuda {

struct Cudnn;  // cudnn_api.h

/// What was found; null: `why_no_*` says what was looked for, and where.
const Driver* driver();
const Nvrtc* nvrtc();
const CublasLt* cublaslt();
const Cudnn* cudnn();

/// Empty if the library is there.
const std::string& why_no_driver();
const std::string& why_no_nvrtc();
const std::string& why_no_cublaslt();
const std::string& why_no_cudnn();

/// Which NVRTC it is: its version, and the size and time of its file. For cache keys.
const std::string& nvrtc_identity();

}  // namespace tandem::cuda
