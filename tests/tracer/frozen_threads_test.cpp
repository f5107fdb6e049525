// Frozen replay and threads: captured tensors that die, reports and states meanwhile, and memory that is
// refused.
#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/tracer/frozen_programs.h"
#include "tests/tracer/scarce_memory.h"

using namespace programs;

TEST_CASE("threads: captured tensors may die while frozen calls run", "[frozen][threads]") {
  // Nearly all of the other thread's time is spent inside of calls.
  constexpr int64_t n = 1 << 16;
  for (int round = 0; round < 20; ++round) {
    auto w = std::make_unique<td::Tensor>(td::full({n}, 2.f)),
         v = std::make_unique<td::Tensor>(td::ones({n}));
    auto step = td::trace([&](const td::Tensor& x) { return std::pair(td::exp(x * *w) + *v, *v); });
    auto frozen = frozen_after_two(step, td::zeros({n}));
    std::atomic<int> wrong = 0, calls = 0;
    std::atomic<bool> gone = false;
    std::thread other([&] {
      const td::Tensor x = td::zeros({n});
      while (!gone) {
        const std::string error = error_of([&] {
          const auto [sum, same] = frozen(x);
          const float *a = sum.template data<float>(), *b = same.template data<float>();
          for (const int64_t i : {int64_t{0}, n / 2, n - 1}) wrong += a[i] != 2 || b[i] != 1;
          ++calls;
        });
        if (error.empty()) continue;
        wrong += !has(error, "is gone");
        gone = true;
      }
    });
    while (calls < 1 + round % 5) std::this_thread::yield();
    for (const td::NamedTensor& of : frozen.state()) wrong += of.tensor.numel() != n;
    CHECK(frozen.report().calls > 0);
    v.reset();
    const td::Tensor reused = td::full({n}, 100.f);  // would take its memory
    w.reset();
    other.join();
    CHECK(wrong == 0);
    CHECK(frozen.state().empty());
    CHECK(has(error_of([&] { frozen(td::zeros({n})); }), "is gone"));
  }
}

TEST_CASE("threads: the state of a frozen function is taken while its tensors die", "[frozen][threads]") {
  for (int round = 0; round < 60; ++round) {
    auto w = std::make_unique<td::Tensor>(range(16));
    auto step = td::trace([&](const td::Tensor& x) { return x * *w; });
    const td::FrozenFunction frozen = frozen_after_two(step, range(16));
    std::atomic<int> at = 0;
    std::thread other([&] {
      ++at;
      while (at < 2) {
      }
      w.reset();
    });
    while (at < 1) {
    }
    ++at;
    std::vector<td::NamedTensor> last;
    for (int i = 0; i < 1000; ++i) {
      std::vector<td::NamedTensor> now = frozen.state();
      if (now.empty()) break;
      last = std::move(now);
    }
    other.join();
    for (const td::NamedTensor& n : last) CHECK(n.tensor.to_vector<float>() == range(16).to_vector<float>());
  }
}

TEST_CASE("threads: reports may be asked while frozen calls run", "[frozen][threads]") {
  auto step = td::trace([](const td::Tensor& x) { return x * 2; }, {.replay = td::Replay::frozen});
  step(range(3));
  step(range(3));
  std::thread other([&] {
    for (int i = 0; i < 500; ++i) step(range(3));
  });
  int64_t seen = 0;
  while (seen < 500) {
    const int64_t now = step.report().frozen_calls;
    CHECK(now >= seen);
    seen = now;
  }
  other.join();
}

TEST_CASE("threads: frozen calls draw random numbers of their own", "[frozen][threads]") {
  td::manual_seed(5);
  auto step = td::trace([](const td::Tensor& x) { return x + td::rand({4}); });
  auto frozen = frozen_after_two(step, td::zeros({4}));
  const uint64_t before = td::default_generator().offset();
  std::vector<Values> drawn[2];
  std::thread other([&] {
    for (int i = 0; i < 2000; ++i) drawn[1].push_back(td::rand({4}).to_vector<float>());
  });
  for (int i = 0; i < 2000; ++i) drawn[0].push_back(frozen(td::zeros({4})).to_vector<float>());
  other.join();
  CHECK(td::default_generator().offset() == before + 4000);
  std::vector<Values> all = drawn[0];
  all.insert(all.end(), drawn[1].begin(), drawn[1].end());
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
}

#ifdef TANDEM_TEST_SCARCE_MEMORY
TEST_CASE("threads: a frozen call without memory for its plan changes nothing", "[frozen][threads]") {
  // A plan's private memory is kept by thread: the new thread has none yet.
  const td::Tensor seen = td::zeros({1}), row = td::full({8, 4096}, 0.01f), sum = td::ones({4096, 1});
  auto step = td::trace([&](const td::Tensor& x) {
    seen.add_(1);
    return td::matmul(td::tanh(td::matmul(x, row)), sum) + td::rand({4096, 1});
  });
  const td::Tensor x = td::ones({4096, 8});
  auto frozen = frozen_after_two(step, x);
  const uint64_t offset = td::default_generator().offset();
  const uint32_t version = seen.impl()->storage->version;
  std::string error;
  std::thread other([&] {
    const tandem::test::ScarceMemory scarce(8 << 20);
    error = error_of([&] { frozen(x); });
  });
  other.join();
  CHECK(has(error, "memory"));
  CHECK(td::default_generator().offset() == offset);
  CHECK(seen.impl()->storage->version == version);
  CHECK(seen.item<float>() == 2);
  frozen(x);
  CHECK(seen.item<float>() == 3);
}
#endif
