// The simulated GPU's own functions (tests/sim_gpu/control.h), found in the driver that is loaded. On a card
// there are none.
#pragma once

#include <dlfcn.h>

#include "tandem/core/cuda/cuda.h"
#include "tests/sim_gpu/control.h"

namespace tandem::test {

struct Simulator {
#define TANDEM_MEMBER(result, name, parameters) result(*name) parameters = nullptr;
  SIM_GPU_CONTROLS(TANDEM_MEMBER)
#undef TANDEM_MEMBER
  bool there = false;
};

/// `there` is false if the driver is a card's.
inline const Simulator& simulator() {
  static const Simulator found = [] {
    Simulator s;
    if (!cuda::is_available()) return s;
    void* driver =
        dlsym(RTLD_DEFAULT, "sim_gpu_calls") ? RTLD_DEFAULT : dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (!driver) return s;
#define TANDEM_MEMBER(result, name, parameters) \
  s.name = reinterpret_cast<decltype(s.name)>(dlsym(driver, #name));
    SIM_GPU_CONTROLS(TANDEM_MEMBER)
#undef TANDEM_MEMBER
    s.there = s.sim_gpu_calls != nullptr;
    return s;
  }();
  return found;
}

}  // namespace tandem::test
