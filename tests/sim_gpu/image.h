// The "cubin" and the "PTX" of the simulated GPU: a head and the bytes of a shared object. Plain data.
#pragma once

#include <cstdint>

namespace sim_gpu {

struct ImageHead {
  static constexpr uint64_t kMagic = 0x554d4953'42554300;
  uint64_t magic = kMagic;
  uint64_t bytes = 0;    // of the object that follows
  int architecture = 0;  // 90 for sm_90
  int ptx = 0;           // 1: for every device of at least this architecture
};

}  // namespace sim_gpu
