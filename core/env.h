// The one place that reads environment variables (the README's table lists the same names). Read once, at
// first use.
#pragma once

#include <string>

namespace tandem::core {

struct Environment {
  std::string log;                 // TANDEM_LOG=jit:debug,trace:info
  std::string cache_dir;           // TANDEM_CACHE_DIR: kernels on disk; "off" for none
  std::string compiler;            // TANDEM_CXX: host compiler of the CPU JIT; "none" for the evaluator only
  std::string dump;                // TANDEM_DUMP=graph,passes,kernels,plan[:folder]
  int num_threads = 0;             // TANDEM_NUM_THREADS; 0: all processors of this process
  bool jit = true;                 // TANDEM_JIT=0: chunk evaluator only
  bool winograd = true;            // TANDEM_WINOGRAD=0: convolutions of 3 x 3 as sums of products
  bool poison = false;             // TANDEM_POISON=1: fill fresh memory with NaN (on in debug builds)
  std::string cuda_path;           // TANDEM_CUDA_PATH: folders of the CUDA libraries, before all others
  std::string cuda_home;           // CUDA_HOME
  std::string python_environment;  // VIRTUAL_ENV or CONDA_PREFIX: its nvidia wheels are looked into
  bool cuda_exact = false;         // TANDEM_CUDA_EXACT=1: each block an allocation of its own, not kept
  bool cuda_tune = false;          // TANDEM_CUDA_TUNE=1: cuBLASLt's algorithms by time, kept on disk
  bool sync = false;               // TANDEM_SYNC=1: wait for every launch, so that errors name their op
};
/// The process's settings. A malformed value is reported once on stderr and ignored.
const Environment& environment();
/// True if TANDEM_DUMP names `what`.
bool dumps(const char* what);
/// If it does, writes `text` where it says: on stderr under a line with `what`, or as a new file
/// "<process>-<count>.<what>.txt" of its folder, which is made if it is missing. What cannot be written is
/// reported once on stderr. Any thread.
void dump(const char* what, const std::string& text);

}  // namespace tandem::core
