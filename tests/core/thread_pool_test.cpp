#include "tandem/core/thread_pool.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/core/error.h"
#include "tests/catch.h"

using namespace tandem;
using core::parallel;

namespace {

struct ThreadsGuard {
  explicit ThreadsGuard(int n) { set_num_threads(n); }
  ~ThreadsGuard() { set_num_threads(before); }
  int before = num_threads();
};

using Range = std::pair<int64_t, int64_t>;

std::vector<Range> ranges_of(int64_t n, int64_t grain) {
  std::mutex mutex;
  std::vector<Range> ranges;
  parallel(n, grain, [&](int64_t begin, int64_t end) {
    std::lock_guard<std::mutex> lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

}  // namespace

TEST_CASE("ranges cover everything once, in balanced contiguous pieces", "[thread_pool]") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadsGuard guard(threads);
    for (const int64_t n : {0, 1, 2, 7, 64, 1000, 1001}) {
      for (const int64_t grain : {-1, 0, 1, 3, 500, 5000}) {
        CAPTURE(threads, n, grain);
        const std::vector<Range> ranges = ranges_of(n, grain);
        int64_t at = 0, least = n, most = 0;
        for (const auto& [begin, end] : ranges) {
          REQUIRE(begin == at);
          at = end;
          least = std::min(least, end - begin);
          most = std::max(most, end - begin);
        }
        CHECK(at == n);
        CHECK(static_cast<int>(ranges.size()) <= threads);
        CHECK(most - least <= 1);
        if (ranges.size() > 1) CHECK(least >= grain);
      }
    }
  }
  ThreadsGuard guard(4);
  CHECK(ranges_of(1000, 1).size() == 4);
  CHECK(ranges_of(INT64_MAX, 1).back().second == INT64_MAX);
}

TEST_CASE("threads really take part", "[thread_pool]") {
  ThreadsGuard guard(3);
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  for (int attempt = 0; attempt < 20 && !met; ++attempt) {
    parallel(3, 1, [&](int64_t, int64_t) {
      ++inside;
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
      while (std::chrono::steady_clock::now() < end && !met) {
        if (inside == 3) met = true;
        std::this_thread::yield();
      }
      --inside;
    });
  }
  CHECK(met);
}

TEST_CASE("an inner region runs serially", "[thread_pool]") {
  ThreadsGuard guard(4);
  std::atomic<int> inner_calls{0}, sum{0};
  parallel(4, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const std::thread::id outer = std::this_thread::get_id();
      parallel(100, 1, [&](int64_t b, int64_t e) {
        if (std::this_thread::get_id() == outer && b == 0 && e == 100) ++inner_calls;
        sum += static_cast<int>(e - b);
      });
    }
  });
  CHECK(inner_calls == 4);
  CHECK(sum == 400);
}

TEST_CASE("regions of several threads take turns", "[thread_pool]") {
  ThreadsGuard guard(3);
  std::atomic<int> inside{0}, most{0};
  std::vector<int64_t> totals(4);
  std::vector<std::thread> callers;
  for (size_t c = 0; c < totals.size(); ++c) {
    callers.emplace_back([&, c] {
      for (int round = 0; round < 300; ++round) {
        std::vector<int64_t> values(100);
        parallel(100, 10, [&](int64_t begin, int64_t end) {
          const int now = ++inside;
          int seen = most.load();
          while (now > seen && !most.compare_exchange_weak(seen, now)) {
          }
          for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] = i;
          --inside;
        });
        for (const int64_t v : values) totals[c] += v;
      }
    });
  }
  for (std::thread& t : callers) t.join();
  for (const int64_t total : totals) CHECK(total == 300 * 4950);
  CHECK(most <= 3);
}

TEST_CASE("an exception reaches the caller and the pool goes on", "[thread_pool]") {
  ThreadsGuard guard(4);
  for (int thrower = 0; thrower < 4; ++thrower) {
    std::atomic<int> done{0};
    const auto body = [&](int64_t begin, int64_t) {
      if (begin == thrower) throw std::out_of_range("piece " + std::to_string(begin));
      ++done;
    };
    CHECK_THROWS_WITH(parallel(4, 1, body), "piece " + std::to_string(thrower));
    CHECK(done == 3);
  }
  CHECK_THROWS_AS(parallel(4, 1, [](int64_t, int64_t) { throw 1; }), int);
  CHECK_THROWS_AS(parallel(1, 1, [](int64_t, int64_t) { throw 1; }), int);
  CHECK(ranges_of(4, 1).size() == 4);
}

TEST_CASE("the number of threads", "[thread_pool]") {
  const int before = num_threads();
  CHECK(before >= 1);
  for (const int bad : {0, -1, 257})
    CHECK_THROWS_WITH(set_num_threads(bad),
                      Contains(std::to_string(bad) + " is out of range; expected 1 to 256"));
  for (const int n : {5, 1, 3, 16, 2}) {
    ThreadsGuard guard(n);
    CHECK(num_threads() == n);
    CHECK(static_cast<int>(ranges_of(1000, 1).size()) == n);
  }
  CHECK(num_threads() == before);
  ThreadsGuard guard(2);
  std::atomic<int> refused{0};
  parallel(2, 1, [&](int64_t, int64_t) {
    try {
      set_num_threads(3);
    } catch (const Error&) {
      ++refused;
    }
  });
  CHECK(refused == 2);
}

TEST_CASE("many short regions", "[thread_pool]") {
  ThreadsGuard guard(4);
  std::vector<int64_t> values(64);
  for (int round = 0; round < 5000; ++round)
    parallel(64, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
    });
  for (int64_t i = 0; i < 64; ++i) REQUIRE(values[static_cast<size_t>(i)] == 5000 * i);
}

TEST_CASE("idle workers sleep", "[thread_pool]") {
  ThreadsGuard guard(2);
  const auto processor_ms = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
  };
  ranges_of(2, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const double before = processor_ms();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(processor_ms() - before < 20);
}
