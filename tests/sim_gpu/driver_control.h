// How the simulated NVRTC, cuBLASLt and cuDNN reach the simulated driver, which need not be loaded. Any
// thread.
#pragma once

#include <dlfcn.h>

#include "tests/sim_gpu/control.h"

namespace sim_gpu {

/// A control function of the simulated driver; null if that is not loaded.
template <class F>
F* control(const char* name) {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  if (driver == nullptr) return nullptr;
  F* function = reinterpret_cast<F*>(dlsym(driver, name));
  dlclose(driver);
  return function;
}
#define SIM_GPU_CONTROL(name) ::sim_gpu::control<decltype(name)>(#name)

/// Counts a call that can fail; true if this one shall.
inline bool made_to_fail(const char* function) {
  auto* const take = SIM_GPU_CONTROL(sim_gpu_take_failure);
  return take != nullptr && take(function) != 0;
}

}  // namespace sim_gpu
