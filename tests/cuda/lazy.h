// The simulated device runs work as late as it may, for a scope: only when somebody waits for it. A missing
// wait shows. On a card nothing changes.
#pragma once

#include "tests/cuda/simulator.h"

namespace tandem::test {

class Lazy {
 public:
  /// 2: copies from pageable memory are late, too.
  explicit Lazy(int lazy = 1) {
    if (simulator().there) simulator().sim_gpu_set_lazy(lazy);
  }
  ~Lazy() {
    if (simulator().there) simulator().sim_gpu_set_lazy(0);
  }
  Lazy(const Lazy&) = delete;
  Lazy& operator=(const Lazy&) = delete;
};

}  // namespace tandem::test
