// Memory, copies, errors and what is said where a device is missing.
#include "tandem/core/cuda/runtime.h"

#include "tandem/core/env.h"
#include "tandem/core/memory.h"

#include "tests/cuda/on_device.h"

using namespace tandem::test;
using tandem::Error;
using tandem::Tensor;

namespace {
Tensor range(int64_t n) { return tandem::arange(0, double(n)); }
}  // namespace

TEST_CASE("cuda runtime: values go to the device and come back", "[cuda]") {
  need_device();
  const Tensor x = range(5);
  const Tensor y = x.to(kCuda);
  CHECK(y.device() == kCuda);
  CHECK(y.to_vector<float>() == x.to_vector<float>());
  CHECK(y.to(kCuda).impl() == y.impl());
  CHECK(y.to(tandem::cpu).device() == tandem::cpu);
  CHECK(y[3].item<float>() == 3);
  CHECK(tandem::empty({0}, {.device = kCuda}).to(tandem::cpu).numel() == 0);
  CHECK(tandem::full({2}, 3.0, {.device = kCuda}).to_vector<float>() == std::vector<float>{3, 3});
  CHECK(tandem::tensor({1, 2}, {.device = kCuda}).device() == kCuda);
  CHECK(x.view({5, 1}).expand({5, 2}).to(kCuda).to_vector<float>().size() == 10);
}

TEST_CASE("cuda runtime: gradients cross devices", "[cuda]") {
  need_device();
  const Tensor x = range(4).requires_grad_();
  const Tensor y = x.to(kCuda) * 3.f;
  y.to(tandem::cpu).sum().backward();
  CHECK(x.grad().device() == tandem::cpu);
  CHECK(x.grad().to_vector<float>() == std::vector<float>(4, 3.f));
}

TEST_CASE("cuda runtime: operands on two devices are an error with both and the line", "[cuda]") {
  need_device();
  const Tensor x = range(4), y = x.to(kCuda);
  try {
    x + y;
    FAIL("no error");
  } catch (const Error& e) {
    CHECK_THAT(e.what(), Contains("cpu") && Contains("cuda:0") && Contains("runtime_test.cpp"));
  }
}

TEST_CASE("cuda runtime: freed memory is used again and counted", "[cuda]") {
  need_device();
  if (tandem::core::environment().cuda_exact) return;
  tandem::cuda::empty_cache();
  const auto before = tandem::cuda::memory_stats();
  void* first = nullptr;
  {
    const Tensor a = tandem::empty({1000}, {.device = kCuda});
    first = a.impl()->data;
    CHECK(tandem::cuda::memory_stats().live_bytes >= before.live_bytes + 4000);
  }
  CHECK(tandem::cuda::memory_stats().live_bytes == before.live_bytes);
  CHECK(tandem::cuda::memory_stats().cached_bytes > before.cached_bytes);
  const Tensor b = tandem::empty({1000}, {.device = kCuda});
  CHECK(b.impl()->data == first);
  CHECK(tandem::cuda::memory_stats().system_calls == before.system_calls + 1);
}

TEST_CASE("cuda runtime: the peak of memory can begin again", "[cuda]") {
  need_device();
  const int64_t live = tandem::device_memory(kCuda).live_bytes;
  { const Tensor large = tandem::empty({1 << 20}, {.device = kCuda}); }
  CHECK(tandem::device_memory(kCuda).live_bytes == live);
  CHECK(tandem::device_memory(kCuda).peak_bytes >= live + (4 << 20));
  tandem::reset_peak_memory(kCuda);
  CHECK(tandem::device_memory(kCuda).peak_bytes == live);
}

TEST_CASE("cuda runtime: an index out of range is told at the next read, with its op and line", "[cuda]") {
  need_device();
  const Tensor table = range(4).to(kCuda);
  const Tensor index = tandem::tensor({1, 7}, {.dtype = tandem::int64}).to(kCuda);
  const int line = __LINE__ + 1;
  const Tensor picked = table.index_select(0, index);
  try {
    picked.to_vector<float>();
    FAIL("no error");
  } catch (const Error& e) {
    CHECK_THAT(e.what(), Contains("index_select") && Contains("out of range") &&
                             Contains("runtime_test.cpp:" + std::to_string(line)));
  }
  CHECK(table.to_vector<float>()[1] == 1);  // told once; the device goes on
}

TEST_CASE("cuda runtime: a device that is not there is told in one sentence", "[cuda]") {
  need_device();
  CHECK_THROWS_WITH(tandem::empty({2}, {.device = tandem::Device{tandem::DeviceType::cuda, 99}}),
                    Contains("empty: device cuda:99 is not there"));
}

TEST_CASE("cuda runtime: what ran before an index out of range is not run again", "[cuda]") {
  need_device();
  const Tensor w = tandem::zeros({3}, {.device = kCuda}), x = tandem::ones({3}, {.device = kCuda});
  const Tensor index = tandem::tensor<int64_t>({1}).to(kCuda);
  auto f = tandem::trace([&](const Tensor& a) {
    w.add_(a);
    return a.index_select(0, index);
  });
  f(x), f(x);
  CHECK(w.to_vector<float>()[0] == 2);
  index.copy_(tandem::tensor<int64_t>({7}).to(kCuda));
  {
    auto waiting = tandem::profile("");  // each launch is waited for, so that the error comes from the run
    CHECK_THROWS_WITH(f(x), Contains("index_select") && Contains("out of range"));
    waiting.finish();
  }
  CHECK(w.to_vector<float>()[0] <= 3);
}

TEST_CASE("cuda runtime: another user of CUDA may change the thread's context", "[cuda]") {
  need_device();
  const tandem::cuda::Driver& api = tandem::cuda::Runtime::of(kCuda).api();
  const auto forget = [&] { REQUIRE(api.context_set(nullptr) == tandem::cuda::Result::success); };
  auto f = tandem::trace([](const Tensor& x) { return x * 2.f + 1.f; });
  Tensor x = range(700).to(kCuda);
  for (int i = 0; i < 3; ++i) {
    forget();
    x = x + 1.f;
    forget();
    x = f(x);
    forget();
    CHECK(x.to(tandem::cpu).numel() == 700);
    forget();
    x = x.to(tandem::cpu).to(kCuda);
    forget();
    tandem::cuda::empty_cache();
    forget();
    tandem::cuda::synchronize();
  }
  CHECK(x[0].item<float>() == 21);
}
