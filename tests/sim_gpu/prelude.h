// What stands in front of every kernel that the simulated NVRTC compiles: CUDA's keywords and functions for a
// host compiler. No includes, so that kernels meet no names but CUDA's. Embedded as text (nvrtc/), followed
// by
// `#line 1` and the kernel. Each kernel file has variables of its own; only one block runs at a time.

#include "tandem/tests/sim_gpu/prelude_module.inc"

#define SIM_GPU 1  // no assembler of a device's
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __builtin_assume(x) ((void)0)
#define __shared__ static __attribute__((section("sim_shared")))
// `extern __shared__ T name[];` is turned into `SIM_DYNAMIC(T name[]);` before compilation.
#define SIM_DYNAMIC(...) extern __VA_ARGS__ __asm__("sim_dynamic")

extern "C" {
extern char __start_sim_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_sim_shared[] __attribute__((weak, visibility("hidden")));
__attribute__((visibility("hidden"), aligned(256), used)) char sim_dynamic[sim_dynamic_most + 256];
__attribute__((visibility("hidden"), used)) unsigned sim_dynamic_bytes;
__attribute__((visibility("hidden"), used)) const sim_runtime* sim_now;
__attribute__((visibility("hidden"), used)) sim_index threadIdx, blockIdx;
}

#define SIM_FN static inline __attribute__((always_inline, unused, no_sanitize("undefined")))

// The order matters.
// clang-format off
#include "tandem/tests/sim_gpu/prelude_vectors.inc"
#include "tandem/tests/sim_gpu/prelude_math.inc"
#include "tandem/tests/sim_gpu/prelude_warp.inc"
#include "tandem/tests/sim_gpu/prelude_checks.inc"
// clang-format on
