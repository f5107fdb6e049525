// What the simulated GPU offers beside the vendor's functions: failures on demand, counters, switches. The
// functions live in the simulated driver (libcuda.so.1); tests take them with dlsym (simulator.h), the other
// libraries likewise. Any thread; one lock inside the driver holds for all of them.
//
// Environment, read when the driver is loaded: SIM_GPU_DEVICES (1), SIM_GPU_ORDERS (3; 1 runs each kernel
// once, 0 not at all: launches and patches of graphs are then counted and nothing else, for measuring a
// host), SIM_GPU_LAZY (0; 1: work on a stream waits until somebody waits for it; 2: copies from pageable
// memory, too, which the driver may but need not read at once), SIM_GPU_FAIL (0; n: the n-th call that can
// fail does), SIM_GPU_BYTES (memory of a device), SIM_GPU_CAPABILITY (90 for 9.0), SIM_GPU_DRIVER_VERSION
// (13000 for 13.0). NVRTC and cuBLASLt are of the release that their files are named after: 13.0, or 12.4 if
// copied to libnvrtc.so.12 and libcublasLt.so.12; cuDNN says that it is of SIM_GPU_CUDNN_CUDA (13000), and
// with SIM_GPU_CUDNN_BROKEN=1 makes no handle. SIM_GPU_SLOW_PRODUCTS (0; us): how much longer the first of
// cuBLASLt's algorithms takes than the others. SIM_GPU_ACCESSES=1: kernels count what they load from and
// store to their device's memory, instruction by instruction, as the compiler leaves them (their cache on
// disk must be one of its own: they are compiled otherwise). SIM_GPU_LIBRARIES=0: what cuBLASLt and cuDNN
// queue does nothing.
#pragma once

#include <cstddef>

#define SIM_GPU_EXPORT __attribute__((visibility("default")))

// (result, name, parameters)
#define SIM_GPU_CONTROLS(F)                                                                                  \
  /* The n-th call from now on that can fail gives an error and does nothing; 0: none. */                    \
  F(void, sim_gpu_fail_call, (long n))                                                                       \
  /* Calls so far that could have failed. */                                                                 \
  F(long, sim_gpu_calls, ())                                                                                 \
  /* The function that was made to fail last; "" for none. */                                                \
  F(const char*, sim_gpu_failed_call, ())                                                                    \
  /* launches (graph_kernels of them in graphs), graph_launches, graph_nodes, allocations, live_allocations, \
     live_bytes, host_allocations, copies, copied_bytes, fills, compiles, products, convolutions,            \
     attentions, modules, streams, events, graphs, global_loads, global_stores, global_loaded_bytes,         \
     global_stored_bytes; -1 for another */                                                                  \
  F(long, sim_gpu_count, (const char* what))                                                                 \
  /* What was last told on standard error: the kernel and its fault. */                                      \
  F(const char*, sim_gpu_message, ())                                                                        \
  F(void, sim_gpu_set_orders, (int orders))                                                                  \
  F(void, sim_gpu_set_lazy, (int lazy))                                                                      \
  /* What cuBLASLt finds algorithms for: 2: every product, as at first; 1: those of memory at multiples of   \
     16 bytes; 0: none; -1: none, and it calls that an invalid value. */                                     \
  F(void, sim_gpu_set_products, (int products))                                                              \
  F(int, sim_gpu_products, ())                                                                               \
  /* What other libraries may queue while a stream is captured: 2: all, as at first; 1: in relaxed captures; \
     0: nothing. */                                                                                          \
  F(void, sim_gpu_set_captures, (int captures))                                                              \
  /* Which engines the simulated cuDNN has, by the bits of their numbers; all at first. */                   \
  F(void, sim_gpu_set_engines, (unsigned long engines))                                                      \
  F(unsigned long, sim_gpu_engines, ())                                                                      \
  /* For the simulated NVRTC, cuBLASLt and cuDNN: whether this call is to fail; counting; work on a          \
     stream, of which `data` (`bytes`) is copied, captured like a launch; `run` gives false on a fault. */   \
  F(int, sim_gpu_take_failure, (const char* function))                                                       \
  F(void, sim_gpu_add, (const char* what, long by))                                                          \
  F(int, sim_gpu_enqueue,                                                                                    \
    (void* stream, const char* name, int (*run)(const void* data), const void* data, size_t bytes))          \
  /* Whether there is such a stream (any more). */                                                           \
  F(int, sim_gpu_is_stream, (const void* stream))                                                            \
  /* Whether [address, address + bytes) lies inside one live allocation of a device. */                      \
  F(int, sim_gpu_holds, (const void* address, size_t bytes))

namespace sim_gpu {
#define SIM_GPU_DECLARE(result, name, parameters) extern "C" SIM_GPU_EXPORT result name parameters;
SIM_GPU_CONTROLS(SIM_GPU_DECLARE)
#undef SIM_GPU_DECLARE
}  // namespace sim_gpu
