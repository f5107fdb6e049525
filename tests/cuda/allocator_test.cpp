// When the device's memory is full: what is cached goes back to it and the request is made again; else an
// error with figures.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

TEST_CASE("cuda memory: a full device takes the cache back and tries again", "[cuda]") {
  if (!simulator().there) return;  // a card is not full on demand
  td::cuda::empty_cache();
  { const Tensor cached = td::empty({1 << 20}, {.device = kCuda}); }
  REQUIRE(td::cuda::memory_stats().cached_bytes >= 4 << 20);
  simulator().sim_gpu_fail_call(1);  // the next request: of another size, so that the cache does not serve it
  const Tensor t = td::empty({5 << 20}, {.device = kCuda});
  CHECK(std::string(simulator().sim_gpu_failed_call()) == "cuMemAlloc");
  simulator().sim_gpu_fail_call(0);
  CHECK(t.defined());
  CHECK(td::cuda::memory_stats().cached_bytes == 0);
}

TEST_CASE("cuda memory: nothing left is an error with figures", "[cuda]") {
  if (!simulator().there) return;
  td::cuda::empty_cache();
  simulator().sim_gpu_fail_call(1);
  const auto before = td::cuda::memory_stats();
  CHECK_THROWS_AS(td::empty({3 << 20}, {.device = kCuda}), td::OutOfMemory);
  simulator().sim_gpu_fail_call(1);
  CHECK_THROWS_WITH(td::empty({3 << 20}, {.device = kCuda}), Contains("out of memory on cuda:0") &&
                                                                 Contains("12582912 bytes") &&
                                                                 Contains("allocator_test.cpp"));
  simulator().sim_gpu_fail_call(0);
  CHECK(td::cuda::memory_stats().live_bytes == before.live_bytes);
  CHECK(td::empty({3 << 20}, {.device = kCuda}).defined());
}
