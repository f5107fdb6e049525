// Kernels that are right: the simulated GPU computes what a real one would.
#include <cmath>
#include <numeric>

#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Kernels;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;

namespace {

std::vector<float> ramp(size_t n) {
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(i % 97) * 0.25f - 3.0f;
  return out;
}

}  // namespace

TEST_CASE("an element-wise kernel with a struct of parameters") {
  const Device device;
  const Kernels kernels(R"(
    struct td_args { const float* x; const float* y; float* z; long n; };
    extern "C" __global__ void __launch_bounds__(256) td_add(td_args a) {
      const long i = blockIdx.x * (long)blockDim.x + threadIdx.x;
      if (i < a.n) a.z[i] = fmaf(a.x[i], 2.0f, a.y[i]);
    })");
  const size_t n = 1000;
  const Memory<float> x(ramp(n)), y(ramp(n)), z(n);
  struct {
    float *x, *y, *z;
    long n;
  } arguments{x.pointer(), y.pointer(), z.pointer(), static_cast<long>(n)};
  REQUIRE(kernels.launch("td_add", 4, 256, arguments) == Result::success);
  const auto in = ramp(n), out = z.get();
  for (size_t i = 0; i < n; ++i) REQUIRE(out[i] == in[i] * 2.0f + in[i]);
}

TEST_CASE("fresh memory is NaN, and a thread's position has three dimensions") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_where(unsigned* out) {
      const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
      const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
      const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
      out[block * threads + thread] = blockIdx.z * 1000 + blockIdx.y * 100 + blockIdx.x * 10 + threadIdx.z;
    })");
  const Memory<unsigned> out(2 * 3 * 2 * 4 * 2 * 3 + 1);
  CHECK(out.get()[0] == 0xFFFFFFFFu);
  void* parameters[] = {new unsigned*(out.pointer())};
  REQUIRE(sim().driver.launch(kernels.find("td_where"), 2, 3, 2, 4, 2, 3, 0, nullptr, parameters, nullptr) ==
          Result::success);
  delete static_cast<unsigned**>(parameters[0]);
  const auto values = out.get();
  CHECK(values[0] == 0);
  CHECK(values[24 * 11 + 23] == 1000 + 200 + 10 + 2);
  CHECK(values.back() == 0xFFFFFFFFu);
}

TEST_CASE("a reduction over a block with shared memory and barriers") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_sum(const float* x, float* y, int n) {
      __shared__ float part[256];
      float sum = 0;
      for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[blockIdx.x * n + i];
      part[threadIdx.x] = sum;
      __syncthreads();
      for (int half = 128; half > 0; half >>= 1) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
      }
      if (threadIdx.x == 0) y[blockIdx.x] = part[0];
    })");
  const int rows = 5, n = 1000;
  const auto in = ramp(static_cast<size_t>(rows * n));
  const Memory<float> x(in), y(rows);
  REQUIRE(kernels.launch("td_sum", rows, 256, x.pointer(), y.pointer(), n) == Result::success);
  const auto out = y.get();
  for (int row = 0; row < rows; ++row) {
    const double sum = std::accumulate(in.begin() + row * n, in.begin() + (row + 1) * n, 0.0);
    CHECK(out[static_cast<size_t>(row)] == Approx(sum).epsilon(1e-5));
  }
}

TEST_CASE("dynamic shared memory") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_reverse(float* x) {
      extern __shared__ __align__(16) float all[];
      all[threadIdx.x] = x[threadIdx.x];
      __syncthreads();
      x[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
    })");
  const Memory<float> x(std::vector<float>{0, 1, 2, 3, 4, 5});
  REQUIRE(kernels.launch_on(nullptr, "td_reverse", 1, 6, 24, x.pointer()) == Result::success);
  CHECK(x.get() == std::vector<float>{5, 4, 3, 2, 1, 0});
  CHECK(kernels.launch_on(nullptr, "td_reverse", 1, 6, 20, x.pointer()) == Result::launch_failed);
  CHECK_THAT(sim().sim_gpu_message(), Contains("past the end of the dynamic shared memory"));
}

TEST_CASE("more dynamic shared memory than a function asked for is refused") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_far(float* x) {
      extern __shared__ __align__(16) float all[];
      all[25000] = 7;
      x[0] = all[25000] + sim_dynamic_bytes;
    })");
  const Memory<float> x(std::vector<float>{0});
  const auto launch = [&](unsigned bytes) {
    return kernels.launch_on(nullptr, "td_far", 1, 1, bytes, x.pointer());
  };
  const auto ask = [&](int bytes) {
    return sim().driver.function_set(kernels.find("td_far"), tandem::cuda::kMostDynamicShared, bytes);
  };
  CHECK(launch(100004) == Result::invalid_value);
  CHECK_THAT(sim().sim_gpu_message(), Contains("the function is set to 49152"));
  CHECK(ask(227 * 1024 + 1) == Result::invalid_value);
  REQUIRE(ask(100004) == Result::success);
  CHECK(launch(100008) == Result::invalid_value);
  REQUIRE(launch(100004) == Result::success);
  CHECK(x.get()[0] == 100011);
}

TEST_CASE("warp functions") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_warp(const double* x, double* sum, int* other, unsigned* votes) {
      const int i = threadIdx.x;
      double s = x[i];
      for (int by = 16; by > 0; by >>= 1) s += __shfl_xor_sync(0xffffffffu, s, by);
      sum[i] = s;
      other[i] = __shfl_sync(0xffffffffu, i, 3) + 1000 * __shfl_down_sync(0xffffffffu, i, 1)
               + 1000000 * __shfl_up_sync(0xffffffffu, i, 2, 8);
      votes[i] = __ballot_sync(0xffffffffu, i % 3 == 0);
      if (i % 32 < 16) votes[i] += __any_sync(0xffffu, i == 2);
      __syncwarp();
      if (__all_sync(0xffffffffu, i >= 32)) votes[i] = 7;
    })");
  std::vector<double> in(64);
  std::iota(in.begin(), in.end(), 0.0);
  const Memory<double> x(in), sum(64);
  const Memory<int> other(64);
  const Memory<unsigned> votes(64);
  REQUIRE(kernels.launch("td_warp", 1, 64, x.pointer(), sum.pointer(), other.pointer(), votes.pointer()) ==
          Result::success);
  const auto sums = sum.get();
  const auto others = other.get();
  const auto ballots = votes.get();
  for (int i = 0; i < 64; ++i) {
    const int base = i / 32 * 32, lane = i % 32;
    CHECK(sums[static_cast<size_t>(i)] == (base == 0 ? 496 : 1520));
    const int down = lane == 31 ? i : i + 1, up = lane % 8 < 2 ? i : i - 2;
    CHECK(others[static_cast<size_t>(i)] == base + 3 + 1000 * down + 1000000 * up);
    unsigned expected = 0x49249249u + (lane < 16 ? 1u : 0u);
    if (i >= 32) expected = 7;
    CHECK(ballots[static_cast<size_t>(i)] == expected);
  }
}

TEST_CASE("part of a warp") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_few(int* y) {
      const int i = threadIdx.x;
      if (i >= 8) return;
      int s = i;
      for (int by = 4; by > 0; by >>= 1) s += __shfl_down_sync(0xffu, s, by, 8);
      if (i == 0) y[0] = s;
    })");
  const Memory<int> y(1);
  REQUIRE(kernels.launch("td_few", 1, 20, y.pointer()) == Result::success);
  CHECK(y.get()[0] == 28);
}

TEST_CASE("atomics") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_count(unsigned long long* n, int* most, unsigned* least, int* swaps) {
      const int i = blockIdx.x * blockDim.x + threadIdx.x;
      atomicAdd(n, 2ull);
      atomicMax(most, i);
      atomicMin(least, 5u + i);
      int seen = *swaps;
      for (;;) {
        const int old = atomicCAS(swaps, seen, seen + 1);
        if (old == seen) break;
        seen = old;
      }
    })");
  const Memory<unsigned long long> n(std::vector<unsigned long long>{1});
  const Memory<int> most(std::vector<int>{-1}), swaps(std::vector<int>{0});
  const Memory<unsigned> least(std::vector<unsigned>{100});
  REQUIRE(kernels.launch("td_count", 3, 100, n.pointer(), most.pointer(), least.pointer(), swaps.pointer()) ==
          Result::success);
  CHECK(n.get()[0] == 601);
  CHECK(most.get()[0] == 299);
  CHECK(least.get()[0] == 5);
  CHECK(swaps.get()[0] == 300);
}

TEST_CASE("vectors of 16 bytes, and CUDA's functions without an include") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void td_four(const float4* x, float4* y, double* z) {
      float4 v = __ldg(x + threadIdx.x);
      v.w = __fmaf_rn(v.x, v.y, v.z);
      y[threadIdx.x] = make_float4(v.w, sqrtf(v.y), fmaxf(v.z, 1.0f), __int_as_float(__float_as_int(v.x) ^ 0x80000000));
      z[threadIdx.x] = exp(1.0) + __popc(0xffu) + __clz(1) + __ffs(8) + min(3, 4) + __umulhi(1u << 31, 6u);
    })");
  const Memory<float> x(std::vector<float>{1, 4, 2, 0}), y(4);
  const Memory<double> z(1);
  REQUIRE(kernels.launch("td_four", 1, 1, x.pointer(), y.pointer(), z.pointer()) == Result::success);
  CHECK(y.get() == std::vector<float>{6, 2, 2, -1});
  CHECK(z.get()[0] == Approx(std::exp(1.0) + 8 + 31 + 4 + 3 + 3));
}

TEST_CASE("several kernels in one text, in an extern block or alone; comments are no kernels") {
  const Device device;
  const Kernels kernels(R"(
    // extern "C" __global__ void td_not(float* x) {}
    /* extern "C" __global__ void td_nor(float* x) {} */
    extern "C" __global__ void td_declared(int* x);
    extern "C" {
    __global__ void td_one(int* x) { *x = 1; }
    __global__ void td_two(int* x) { *x = 2; }
    }
    extern "C" __global__ void td_declared(int* x) { *x = 3; }
  )");
  const Memory<int> x(1);
  for (const auto& [name, value] : {std::pair{"td_one", 1}, {"td_two", 2}, {"td_declared", 3}}) {
    REQUIRE(kernels.launch(name, 1, 1, x.pointer()) == Result::success);
    CHECK(x.get()[0] == value);
  }
}

TEST_CASE("a prelude before the mark is compiled once, and lines are those of the text") {
  const Device device;
  const std::string prelude =
      "__device__ inline float td_twice(float x) { return 2 * x; }\n// --- kernels ---\n";
  const Kernels kernels(prelude + R"(extern "C" __global__ void td_k(float* x) { *x = td_twice(*x); })");
  const Memory<float> x(std::vector<float>{4});
  REQUIRE(kernels.launch("td_k", 1, 1, x.pointer()) == Result::success);
  CHECK(x.get()[0] == 8);
  const auto broken =
      sim_gpu::compile(prelude + "\nextern \"C\" __global__ void td_k(float* x) { *x = td_no(*x); }");
  CHECK(broken.code == 6);
  CHECK_THAT(broken.log, Contains("kernel.cu:4:") && Contains("td_no"));
  CHECK(broken.image.empty());
}
