// Kernels that are wrong, each in one way that a real device would not tell: the simulated GPU names the
// kernel and its fault, and works on.
#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Kernels;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;

namespace {

/// Sums 256 numbers; BEFORE, BARRIER and SLOT are what the tests spoil.
std::string sum_kernel(const std::string& before, const std::string& barrier, const std::string& slot = "0") {
  return R"(
    extern "C" __global__ void td_sum(const float* x, float* y) {
      __shared__ float part[256];
      )" +
         before + R"(
      part[threadIdx.x] = x[threadIdx.x];
      )" +
         barrier + R"(
      for (int half = 128; half > 0; half >>= 1) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
      }
      if (threadIdx.x == 0) y[)" +
         slot + R"(] = part[0];
    })";
}

Result run_sum(const std::string& text) {
  const Kernels kernels(text);
  const Memory<float> x(std::vector<float>(256, 0.5f)), y(1);
  const Result result = kernels.launch("td_sum", 1, 256, x.pointer(), y.pointer());
  if (result == Result::success) CHECK(y.get()[0] == 128);
  return result;
}

std::string message() { return sim().sim_gpu_message(); }

}  // namespace

TEST_CASE("the kernel that the others spoil is right") {
  const Device device;
  CHECK(run_sum(sum_kernel("", "__syncthreads();")) == Result::success);
}

TEST_CASE("a removed barrier makes the result depend on the order of the threads") {
  const Device device;
  CHECK(run_sum(sum_kernel("", "")) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_sum") && Contains("depends on the order of the threads"));
  CHECK(run_sum(sum_kernel("", "__syncthreads();")) == Result::success);
}

TEST_CASE("a thread that leaves before a barrier") {
  const Device device;
  CHECK(run_sum(sum_kernel("if (threadIdx.x == 77) return;", "__syncthreads();")) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_sum") && Contains("divergent __syncthreads") &&
                            Contains("255 waiting") && Contains("1 exited"));
  CHECK(run_sum(sum_kernel("", "__syncthreads();")) == Result::success);
}

TEST_CASE("threads at different barriers") {
  const Device device;
  CHECK(run_sum(sum_kernel("if (threadIdx.x < 128) {\n__syncthreads();\n} else {\n__syncthreads();\n}",
                           "__syncthreads();")) == Result::launch_failed);
  CHECK_THAT(message(), Contains("divergent __syncthreads") && Contains("128 waiting at line"));
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("a store one past the end") {
  const Device device;
  CHECK(run_sum(sum_kernel("", "__syncthreads();", "1")) == Result::launch_failed);
  CHECK_THAT(message(),
             Contains("td_sum") && Contains("written past the end of memory of device 0 of 4 bytes"));
  CHECK(run_sum(sum_kernel("", "__syncthreads();", "-1")) == Result::launch_failed);
  CHECK_THAT(message(), Contains("written before the begin"));
}

TEST_CASE("a wild address") {
  const Device device;
  CHECK(run_sum(sum_kernel("if (threadIdx.x == 9) *(float*)64 = 1;", "__syncthreads();")) ==
        Result::illegal_address);
  CHECK_THAT(message(), Contains("td_sum") && Contains("illegal address"));
  CHECK(run_sum(sum_kernel("", "__syncthreads();")) == Result::success);
}
#endif

TEST_CASE("shared memory that nobody wrote") {
  const Device device;
  CHECK(run_sum(sum_kernel("__shared__ float more[2];",
                           "if (threadIdx.x == 3) part[3] += more[1]; __syncthreads();")) ==
        Result::launch_failed);
  CHECK_THAT(message(), Contains("td_sum") && Contains("depends on the order"));
}

TEST_CASE("an index past the end of a shared array") {
  const Device device;
  CHECK(run_sum(sum_kernel("part[threadIdx.x + 1] = 0;", "__syncthreads();")) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_sum") && Contains("out of the bounds of an array at line 4"));
}

TEST_CASE("a misaligned vector") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_copy(const float* x, float* y) {
      const float4 v = *(const float4*)(x + threadIdx.x);
      y[threadIdx.x] = v.x;
    })");
  const Memory<float> x(std::vector<float>(8)), y(2);
  CHECK(kernels.launch("td_copy", 1, 2, x.pointer(), y.pointer()) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_copy") && Contains("misaligned") && Contains("line 3"));
  CHECK(kernels.launch("td_copy", 1, 1, x.pointer(), y.pointer()) == Result::success);
}

TEST_CASE("an index that overflows 32 bits") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_far(float* y, int rows, int columns) {
      if (rows * columns > 0) y[0] = 1;
    })");
  const Memory<float> y(1);
  CHECK(kernels.launch("td_far", 1, 1, y.pointer(), 536871, 4000) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_far") && Contains("overflow of a signed product at line 3"));
}

TEST_CASE("shuffles from lanes that are not there") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_exited(int* y) {
      if (threadIdx.x == 5) return;
      y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 5);
    }
    extern "C" __global__ void td_short(int* y) { y[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1, 16); }
    extern "C" __global__ void td_mask(int* y) { y[threadIdx.x] = __shfl_sync(0xffffu, 1, 0); }
    extern "C" __global__ void td_waits(int* y) {
      if (threadIdx.x == 0) __syncwarp(); else __syncthreads();
      y[0] = 1;
    })");
  const Memory<int> y(32);
  CHECK(kernels.launch("td_exited", 1, 32, y.pointer()) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_exited") && Contains("from lane 5") && Contains("exited"));
  CHECK(kernels.launch("td_short", 1, 20, y.pointer()) == Result::launch_failed);
  CHECK_THAT(message(), Contains("td_short") && Contains("does not exist"));
  CHECK(kernels.launch("td_mask", 1, 32, y.pointer()) == Result::launch_failed);
  CHECK_THAT(message(), Contains("lacks the lane that calls"));
  CHECK(kernels.launch("td_waits", 1, 32, y.pointer()) == Result::launch_failed);
  CHECK_THAT(message(),
             Contains("deadlock") && Contains("31 waiting at line") && Contains("1 in a warp function"));
}

TEST_CASE("blocks that depend on each other's order") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_last(int* y) { *y = blockIdx.x; })");
  const Memory<int> y(1);
  CHECK(kernels.launch("td_last", 3, 1, y.pointer()) == Result::launch_failed);
  sim().sim_gpu_set_orders(1);
  CHECK(kernels.launch("td_last", 3, 1, y.pointer()) == Result::success);
  CHECK(y.get()[0] == 2);
}

TEST_CASE("without orders launches are counted, and nothing runs") {
  const Device device;
  const Kernels kernels(R"(extern "C" __global__ void td_store(int* y) { *y = 7; })");
  const Memory<int> y(std::vector<int>{3});
  sim().sim_gpu_set_orders(0);
  const long launches = sim().sim_gpu_count("launches"), calls = sim().sim_gpu_calls();
  CHECK(kernels.launch("td_store", 1, 1, y.pointer()) == Result::success);
  CHECK(sim().sim_gpu_count("launches") == launches + 1);
  CHECK(sim().sim_gpu_calls() > calls);
  CHECK(y.get()[0] == 3);
  sim().sim_gpu_set_orders(3);
  CHECK(kernels.launch("td_store", 1, 1, y.pointer()) == Result::success);
  CHECK(y.get()[0] == 7);
}
