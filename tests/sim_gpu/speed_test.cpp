// What the simulation costs: bounds with room, for machines that do other things as well.
#include <chrono>
#include <cstdio>

#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Kernels;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;

namespace {

template <class F>
double best_ns(F f) {
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
    best = std::min(best, took.count());
  }
  return best;
}

}  // namespace

TEST_CASE("a switch of fibers, a thread that never waits, a launch") {
  const Device device;
  sim().sim_gpu_set_orders(1);
  const Kernels kernels(R"(
    extern "C" __global__ void td_wait(int* y, int n) {
      for (int i = 0; i < n; ++i) __syncthreads();
      if (threadIdx.x == 0) y[blockIdx.x] = n;
    }
    extern "C" __global__ void td_shuffle(int* y, int n) {
      int s = threadIdx.x;
      for (int i = 0; i < n; ++i) s = __shfl_xor_sync(0xffffffffu, s, 1);
      if (threadIdx.x == 0) y[blockIdx.x] = s;
    }
    extern "C" __global__ void td_plain(int* y) { if (threadIdx.x == 0) y[blockIdx.x] = 1; })");
  const Memory<int> y(1024);
  const auto run = [&](const char* name, unsigned grid, unsigned block, auto... n) {
    return best_ns([&] { REQUIRE(kernels.launch(name, grid, block, y.pointer(), n...) == Result::success); });
  };
  const double wait = run("td_wait", 4, 256, 100) / (4.0 * 256 * 100);
  const double shuffle = run("td_shuffle", 4, 256, 100) / (4.0 * 256 * 100);
  const double plain = run("td_plain", 1024, 256) / (1024.0 * 256);
  const double launch = run("td_plain", 1, 1);
  std::printf(
      "a barrier %.1f ns a thread, a shuffle %.1f ns, a thread without either %.1f ns, a launch %.0f ns\n",
      wait, shuffle, plain, launch);
  CHECK(wait < 400);
  CHECK(shuffle < 400);
  CHECK(plain < 200);
}
