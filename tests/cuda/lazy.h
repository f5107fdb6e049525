// The simulated device runs work as late as it may, for a scope: only when somebody waits for it. A missing
// wait shows. On a card nothing changes.
#pragma once

#include "tests/cuda/simulator.h"

namespace tandem::test {

class Lazy {
 public:
  Lazy() {
    if (simulator().there) simulator().sim_gpu_set_lazy(1);
  }
  ~Lazy() {
    if (simulator().there) simulator().sim_gpu_set_lazy(0);
  }
  Lazy(const Lazy&) = delete;
  Lazy& operator=(const Lazy&) = delete;
};

}  // namespace tandem::test
