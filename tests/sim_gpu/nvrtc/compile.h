// Compiling a prepared kernel file with the host compiler, as a child process. Several threads at once; what
// all kernels share is compiled once and kept beside the library.
#pragma once

#include <string>
#include <vector>

namespace sim_gpu {

struct Compiled {
  bool ok = false;
  std::string object;  // bytes of the shared object
  std::string log;     // what the compiler said
};

/// `text` is CUDA; `name` stands for it in messages; `macros` are -D options; `architecture` 90 for sm_90.
Compiled compile_kernels(const std::string& text, const std::string& name,
                         const std::vector<std::string>& macros, int architecture);

}  // namespace sim_gpu
