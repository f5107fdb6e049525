// What a call costs the host, in calls into the driver; what moves between the runs of a CUDA graph; and the
// lines that errors name when one executable serves many.
#include <atomic>
#include <thread>

#include "tandem/core/cuda/runtime.h"
#include "tandem/core/env.h"
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

/// Calls into the driver that `f` makes, but for those that make memory NaN under TANDEM_POISON; 0 on a card,
/// and where each block is an allocation.
template <class F>
long calls_of(F&& f) {
  const Simulator& sim = simulator();
  if (!sim.there || tandem::core::environment().cuda_exact) return f(), 0;
  const long before = sim.sim_gpu_calls() - sim.sim_gpu_count("fills");
  f();
  return sim.sim_gpu_calls() - sim.sim_gpu_count("fills") - before;
}

}  // namespace

TEST_CASE("cuda host: an eager op is one call into the driver", "[cuda]") {
  need_device();
  const Tensor a = td::rand({4}).to(kCuda), b = td::rand({4}).to(kCuda), w = td::rand({4}).to(kCuda);
  w.requires_grad_();
  for (int i = 0; i < 2; ++i) td::add(a, b), td::mul(w, b), td::cat({a, b}, 0);
  CHECK(calls_of([&] { td::add(a, b); }) <= 1);
  CHECK(calls_of([&] { td::mul(w, b); }) <= 1);
  CHECK(calls_of([&] { td::cat({a, b}, 0); }) <= 2);  // a launch an operand
}

TEST_CASE("cuda host: a traced call is one launch, and a patch a kernel that uses what moved", "[cuda]") {
  need_device();
  td::manual_seed(2);
  const Tensor w = td::rand({8, 8}).to(kCuda), b = td::rand({8}).to(kCuda);
  const auto body = [&](const Tensor& x, double by) { return td::relu(td::linear(x, w, b)) * by; };
  double by = 1;
  auto f = td::trace([&](const Tensor& x) { return body(x, by); });
  const Tensor x = td::rand({4, 8}).to(kCuda);
  for (int i = 0; i < 3; ++i) f(x);
  CHECK(calls_of([&] { f(x); }) <= 1);
  by = 2;
  CHECK(calls_of([&] { f(x); }) <= 2);
  CHECK(bits_of(f(x)) == bits_of(body(x, by)));
  // Inputs and results that are elsewhere on every call, all alive.
  std::vector<Tensor> in, out;
  for (int i = 0; i < 30; ++i) in.push_back(td::rand({4, 8}).to(kCuda));
  in.clear();  // so that the driver is asked for no memory below
  long most = 0;
  for (int i = 0; i < 10; ++i) {
    by = i;
    in.push_back(td::rand({4, 8}).to(kCuda));
    const long calls = calls_of([&] { out.push_back(f(in.back())); });
    if (i >= 4) most = std::max(most, calls);
  }
  CHECK(most <= 3);  // the copy's node, the last kernel's, the launch
  for (int i = 0; i < 10; ++i)
    CHECK(bits_of(out[static_cast<size_t>(i)]) == bits_of(body(in[static_cast<size_t>(i)], i)));
  CHECK(f.report().recorded == 1);
}

TEST_CASE("cuda host: products of tensors that keep moving, in all their places", "[cuda]") {
  need_device();
  td::manual_seed(4);
  // Operands, bias and result of a product all move; one operand is a strided view.
  auto f = td::trace([](const Tensor& x, const Tensor& w, const Tensor& b) { return td::linear(x, w, b); });
  auto g = td::trace([](const Tensor& x, const Tensor& y) { return td::matmul(x, y); });
  std::vector<Tensor> alive;
  for (int i = 0; i < 8; ++i) {
    const Tensor x = td::rand({3, 5}).to(kCuda), w = td::rand({6, 5}).to(kCuda), b = td::rand({6}).to(kCuda);
    const Tensor wide = td::rand({2, 9, 5}).to(kCuda), part = wide.slice(1, 2, 7);
    const Tensor y = f(x, w, b), z = g(part, w.slice(0, 0, 5).transpose(0, 1));
    alive.insert(alive.end(), {x, w, b, wide, y, z});
    CHECK(bits_of(y) == bits_of(td::linear(x, w, b)));
    CHECK(bits_of(z) == bits_of(td::matmul(part, w.slice(0, 0, 5).transpose(0, 1))));
  }
  for (size_t i = 4; i < alive.size(); i += 6)
    CHECK(bits_of(alive[i]) == bits_of(td::linear(alive[i - 4], alive[i - 3], alive[i - 2])));
}

TEST_CASE("cuda host: what a product writes in place is where it was, however it moves", "[cuda]") {
  need_device();
  td::manual_seed(5);
  const Tensor a = td::rand({4, 4}).to(kCuda);
  auto f = td::trace([&](Tensor x) {
    x.copy_(td::matmul(a, x));
    return x.sum();
  });
  std::vector<Tensor> alive;
  for (int i = 0; i < 6; ++i) {
    const Tensor x = td::rand({4, 4}).to(kCuda), expected = td::matmul(a, x);
    f(x);
    CHECK(bits_of(x) == bits_of(expected));
    alive.push_back(x);
  }
}

TEST_CASE("cuda host: graphs share one arena, and a larger one moves the others", "[cuda]") {
  need_device();
  const auto body = [](const Tensor& x) {
    const Tensor s = td::softmax(td::matmul(x, x), 1);
    return td::matmul(s, s) + td::matmul(x, s);
  };
  auto f = td::trace(body);
  const Tensor small = td::rand({4, 4}).to(kCuda), large = td::rand({64, 64}).to(kCuda);
  for (int i = 0; i < 3; ++i) {
    CHECK(bits_of(f(small)) == bits_of(body(small)));
    CHECK(bits_of(f(large)) == bits_of(body(large)));
    td::cuda::empty_cache();
  }
}

TEST_CASE("cuda host: an arena that a larger one replaces goes, whether its graphs run again or not",
          "[cuda]") {
  need_device();
  const auto body = [](const Tensor& x) {
    const Tensor s = td::softmax(td::matmul(x, x), 1);
    return td::matmul(s, s) + td::matmul(x, s);
  };
  const Tensor small = td::rand({16, 16}).to(kCuda), large = td::rand({64, 64}).to(kCuda);
  body(small), body(large);
  const int64_t before = td::cuda::memory_stats().live_bytes;
  const auto live_after = [&](const Tensor& first, const Tensor& second) {
    auto f = td::trace(body), g = td::trace(body);
    for (int i = 0; i < 3; ++i) f(first);
    for (int i = 0; i < 3; ++i) g(second);
    return td::cuda::memory_stats().live_bytes;
  };
  CHECK(live_after(small, large) == live_after(large, small));
  CHECK(td::cuda::memory_stats().live_bytes == before);  // and with its last graph
}

TEST_CASE("cuda host: an eager op's error has the line of its own call", "[cuda]") {
  need_device();
  const Tensor table = td::rand({4}).to(kCuda);
  const Tensor good = td::tensor({1, 2}, {.dtype = td::int64}).to(kCuda);
  const Tensor bad = td::tensor({1, 7}, {.dtype = td::int64}).to(kCuda);
  table.index_select(0, good);
  td::cuda::synchronize();
  const int line = __LINE__ + 1;
  table.index_select(0, bad);
  CHECK_THROWS_WITH(td::cuda::synchronize(), Contains("host_cost_test.cpp:" + std::to_string(line)));
}

TEST_CASE("cuda host: a graph tells an index out of range every time, and works after it", "[cuda]") {
  need_device();
  const Tensor table = td::rand({4, 2}).to(kCuda);
  auto f = td::trace([&](const Tensor& index) { return table.index_select(0, index) * 2; });
  const auto at = [](int64_t i) { return td::tensor({int64_t{1}, i}, {.dtype = td::int64}).to(kCuda); };
  for (int i = 0; i < 3; ++i) {
    const Tensor y = f(at(3));
    CHECK(bits_of(y) == bits_of(table.index_select(0, at(3)) * 2));
    f(at(9));
    CHECK_THROWS_WITH(td::cuda::synchronize(), Contains("index_select") && Contains("out of range"));
    td::cuda::synchronize();
  }
}

TEST_CASE("cuda runtime: more error words than a region holds", "[cuda]") {
  need_device();
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  const auto text = std::make_shared<const std::string>("the last one");
  const auto quiet = std::make_shared<const std::string>("another");
  std::vector<td::cuda::Pointer> kept;
  for (int i = 0; i < 1500; ++i) kept.push_back(device.keep_error_word(i == 1499 ? text : quiet, {}));
  *reinterpret_cast<int64_t*>(kept.back()) = 1;  // as a kernel does: the words are the host's memory, too
  device.expect_errors(kept);
  device.expect_errors(kept);
  CHECK_THROWS_WITH(device.synchronize(), Contains("the last one"));
  device.synchronize();
  const td::cuda::Pointer word = device.error_word(text, {});
  CHECK(std::find(kept.begin(), kept.end(), word) == kept.end());
  for (const td::cuda::Pointer k : kept) device.release_error_word(k);
  device.synchronize();
}

TEST_CASE("cuda runtime: fresh memory is NaN under TANDEM_POISON, used before or not", "[cuda]") {
  need_device();
  if (!tandem::core::environment().poison) return;
  for (int i = 0; i < 2; ++i) {
    const Tensor x = td::empty({300}, {.device = kCuda});
    for (const float v : x.to_vector<float>()) REQUIRE(v != v);
    x.zero_();
  }
}

TEST_CASE("cuda runtime: blocks are used again within their size class", "[cuda]") {
  need_device();
  if (tandem::core::environment().cuda_exact) return;
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  device.empty_cache();
  for (const int64_t bytes :
       {int64_t{1}, int64_t{512}, int64_t{513}, int64_t{1} << 20, (int64_t{1} << 20) + 1, int64_t{2} << 20,
        (int64_t{2} << 20) + 1, int64_t{9} << 20, int64_t{33} << 20}) {
    CAPTURE(bytes);
    const auto before = device.memory_stats();
    const td::cuda::Pointer a = device.allocate(bytes);
    const int64_t block = device.memory_stats().live_bytes - before.live_bytes;
    CHECK(block >= bytes);
    CHECK(block <= std::max(bytes + 512, std::max(bytes + (int64_t{2} << 20) - 1, bytes + bytes / 8)));
    device.give_back(a, bytes);
    CHECK(device.memory_stats().cached_bytes >= block);
    const td::cuda::Pointer again = device.allocate(block);  // the largest of the class
    CHECK(again == a);
    device.give_back(again, block);
    CHECK(device.memory_stats().live_bytes == before.live_bytes);
  }
  CHECK(device.allocate(0) == 0);
  device.empty_cache();
  CHECK(device.memory_stats().cached_bytes == 0);
}

TEST_CASE("cuda runtime: two threads, eager and traced, share the device", "[cuda]") {
  need_device();
  td::manual_seed(8);
  const Tensor w = td::rand({8, 8}).to(kCuda);
  const auto body = [&](const Tensor& x) { return td::softmax(td::matmul(td::relu(x), w), 1) + x; };
  auto shared = td::trace(body);
  std::vector<Tensor> in, expected;
  for (int i = 0; i < 8; ++i)
    in.push_back(td::rand({i % 3 + 2, 8}).to(kCuda)), expected.push_back(body(in.back()));
  std::atomic<int> wrong{0};
  const auto work = [&](size_t first) {
    auto own = td::trace(body);
    for (size_t turn = 0; turn < 24; ++turn) {
      const size_t i = (turn * 3 + first) % in.size();
      const std::vector<char> wanted = bits_of(expected[i]);
      wrong += bits_of(body(in[i])) != wanted;
      wrong += bits_of(own(in[i])) != wanted;
      wrong += bits_of(shared(in[i])) != wanted;
    }
  };
  std::thread a(work, 0), b(work, 1);
  a.join();
  b.join();
  CHECK(wrong == 0);
}

TEST_CASE("cuda products: operands anywhere in memory", "[cuda]") {
  need_device();
  td::manual_seed(9);
  const Tensor x = td::rand({9, 5}), w = td::rand({7, 5});
  const Tensor on = x.to(kCuda), weight = w.to(kCuda);
  auto f = td::trace([](const Tensor& a, const Tensor& b) { return td::linear(a, b); });
  for (int64_t first = 0; first < 5; ++first) {  // rows of 20 bytes: 4, 8 and 16 bytes aligned
    const Tensor part = on.slice(0, first, first + 4), other = weight.slice(0, first % 3, first % 3 + 4);
    const Tensor host = td::linear(x.slice(0, first, first + 4), w.slice(0, first % 3, first % 3 + 4));
    const std::vector<float> wanted = host.to_vector<float>(),
                             found = td::linear(part, other).to_vector<float>();
    for (size_t i = 0; i < wanted.size(); ++i) CHECK(found[i] == Approx(wanted[i]));
    CHECK(bits_of(f(part, other)) == bits_of(td::linear(part, other)));
  }
}
