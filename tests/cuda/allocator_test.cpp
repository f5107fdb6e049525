// When the device's memory is full: what is cached goes back to it and the request is made again; else an
// error with figures.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

#include "tandem/core/cuda/runtime.h"
#include "tandem/core/env.h"
#include "tandem/jit/executable.h"
#include "tandem/jit/graph.h"
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace std::chrono_literals;
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

namespace {

/// A plan that needs memory of its own, and what it runs on.
struct Products {
  std::shared_ptr<const td::jit::Executable> plan;
  Tensor in, out;
  explicit Products(int64_t n) {
    td::jit::Graph g;
    td::jit::GraphEmitter e(g, false);
    const td::ops::Value x{g.add_input({td::float32, kCuda, false, {n, n}}, {n, 1})};
    g.outputs.push_back(e.matmul(e.matmul(x, x), x).id);
    plan = td::jit::Executable::make(g, {.device = kCuda});
    in = td::ones({n, n}, {.device = kCuda});
    out = td::zeros({n, n}, {.device = kCuda});
  }
  void run() const {
    void* const from[] = {in.impl()->data};
    void* const to[] = {out.impl()->data};
    plan->run(from, nullptr, to);
  }
};

/// Called by cuMemAlloc.
std::function<void()> on_allocation;
decltype(td::cuda::Driver::allocate) real_allocate = nullptr;

}  // namespace

TEST_CASE("cuda memory: a replay that needs some while another thread makes the first stream", "[cuda]") {
  need_device();
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  if (!td::core::environment().poison || device.several()) return;
  const auto shared = std::make_shared<Products>(300);  // if the threads wait for each other, they stay
  td::cuda::empty_cache();
  auto& driver = const_cast<td::cuda::Driver&>(device.api());
  real_allocate = driver.allocate;
  std::promise<void> inside;
  on_allocation = [&device, &inside] {
    inside.set_value();
    for (int i = 0; i < 40 && !device.several(); ++i) std::this_thread::sleep_for(5ms);
    std::this_thread::sleep_for(50ms);  // the other thread begins to replay
  };
  driver.allocate = [](td::cuda::Pointer* block, size_t nbytes) {
    if (on_allocation) std::exchange(on_allocation, nullptr)();
    return real_allocate(block, nbytes);
  };
  std::promise<void> first_done, second_done;
  std::thread first([shared, &first_done] {
    shared->run();
    first_done.set_value();
  });
  inside.get_future().wait();
  std::thread second([shared, &second_done] {
    const td::cuda::Stream stream;
    shared->run();
    second_done.set_value();
  });
  if (first_done.get_future().wait_for(20s) == std::future_status::timeout) {
    std::fputs("the threads wait for each other\n", stderr);
    std::abort();
  }
  second_done.get_future().wait();
  first.join();
  second.join();
  driver.allocate = real_allocate;
  CHECK(shared->out.to_vector<float>()[7] == 90000);
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
