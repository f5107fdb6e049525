// The simulated GPU for tests: its libraries opened from the build folder, their tables and switches.
// One per process, never closed; any thread.
#pragma once

#include <dlfcn.h>

#include <stdexcept>
#include <string>

#include "tandem/core/cuda/cudnn_api.h"
#include "tests/sim_gpu/control.h"

namespace sim_gpu {

struct Simulator {
  tandem::cuda::Driver driver;
  tandem::cuda::Nvrtc nvrtc;
  tandem::cuda::CublasLt cublaslt;
  tandem::cuda::Cudnn cudnn;
#define SIM_GPU_MEMBER(result, name, parameters) decltype(&::sim_gpu::name) name = nullptr;
  SIM_GPU_CONTROLS(SIM_GPU_MEMBER)
#undef SIM_GPU_MEMBER
};

/// `folder`: where the libraries lie; TANDEM_SIM_GPU in test_sim_gpu.
inline const Simulator& simulator(const std::string& folder) {
  static const Simulator* const loaded = [&] {
    auto* s = new Simulator;
    const auto open = [&](const char* name) {
      void* library = dlopen((folder + '/' + name).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (library == nullptr) throw std::runtime_error(dlerror());
      return library;
    };
    const auto fill = [](void* library, const char* symbol, auto& function) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
      if (function == nullptr) throw std::runtime_error(std::string("missing: ") + symbol);
    };
    void* library = open("libcuda.so.1");
#define TANDEM_CUDA(result, name, symbol, parameters) fill(library, #symbol, s->driver.name);
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA
#define SIM_GPU_FILL(result, name, parameters) fill(library, #name, s->name);
    SIM_GPU_CONTROLS(SIM_GPU_FILL)
#undef SIM_GPU_FILL
    library = open("libnvrtc.so.13");
#define TANDEM_CUDA(result, name, symbol, parameters) fill(library, #symbol, s->nvrtc.name);
#include "tandem/core/cuda/nvrtc.def"
#undef TANDEM_CUDA
    library = open("libcublasLt.so.13");
#define TANDEM_CUDA(result, name, symbol, parameters) fill(library, #symbol, s->cublaslt.name);
#include "tandem/core/cuda/cublaslt.def"
#undef TANDEM_CUDA
    library = open("libcudnn.so.9");
#define TANDEM_CUDA(result, name, symbol, parameters) fill(library, #symbol, s->cudnn.name);
#include "tandem/core/cuda/cudnn.def"
#undef TANDEM_CUDA
    return s;
  }();
  return *loaded;
}

}  // namespace sim_gpu
