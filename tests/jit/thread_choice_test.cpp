// Plans on one thread or on all: what a machine's times, here made up, decide.
#include "tandem/jit/thread_choice.h"

#include <atomic>

#include "tandem/core/thread_pool.h"
#include "tests/catch.h"

using namespace tandem;
using jit::ThreadChoice;

namespace {

/// A machine on which a plan takes so long.
struct Machine {
  int64_t on_all, on_one;  // ns
  bool shared = true;
  int threads = 2;
  ThreadChoice choice = {};
  int64_t time = 0, alone = 0, timed = 0;

  void run(int64_t times) {
    for (; times > 0; --times) {
      const ThreadChoice::Turn turn = choice.next(threads);
      const int64_t took = turn.alone ? on_one : on_all;
      time += took, alone += turn.alone, timed += turn.timed;
      if (turn.timed) choice.took(turn, took, shared && !turn.alone);
    }
  }
};

constexpr int64_t kTrial = 2 * ThreadChoice::kEach;

}  // namespace

TEST_CASE("the shorter way is taken", "[jit]") {
  Machine slow_pool{.on_all = 270'000, .on_one = 200'000};
  slow_pool.run(10 * ThreadChoice::kPause);
  CHECK(slow_pool.choice.alone());
  CHECK(slow_pool.time < 1.01 * 10 * ThreadChoice::kPause * 200'000);
  CHECK(slow_pool.alone > 0.97 * 10 * ThreadChoice::kPause);
  Machine fast_pool{.on_all = 130'000, .on_one = 200'000};
  fast_pool.run(10 * ThreadChoice::kPause);
  CHECK_FALSE(fast_pool.choice.alone());
  CHECK(fast_pool.time < 1.01 * 10 * ThreadChoice::kPause * 130'000);
}

TEST_CASE("a machine that changes is tried again", "[jit]") {
  Machine m{.on_all = 130'000, .on_one = 200'000};
  m.run(500);
  CHECK_FALSE(m.choice.alone());
  m.on_all = 270'000;
  m.run(ThreadChoice::kPause + kTrial);
  CHECK(m.choice.alone());
  m.on_all = 130'000;
  m.run(ThreadChoice::kPauseAlone + kTrial);
  CHECK_FALSE(m.choice.alone());
}

TEST_CASE("another number of threads is tried at once", "[jit]") {
  Machine m{.on_all = 270'000, .on_one = 200'000};
  m.run(kTrial);
  CHECK(m.choice.alone());
  m.on_all = 60'000, m.threads = 8;
  m.run(kTrial);
  CHECK_FALSE(m.choice.alone());
}

TEST_CASE("what is worth its threads is rarely tried on one, what takes long never", "[jit]") {
  Machine many{.on_all = 100'000, .on_one = 3'000'000};
  many.run(ThreadChoice::kLongPause);
  CHECK(many.alone == 1);
  Machine large{.on_all = 2 * ThreadChoice::kLong, .on_one = 5 * ThreadChoice::kLong};
  large.run(3 * ThreadChoice::kLongPause);
  CHECK(large.alone == 0);
}

TEST_CASE("a plan that no other thread has a part of is not tried", "[jit]") {
  Machine small{.on_all = 900, .on_one = 900, .shared = false};
  small.run(3 * ThreadChoice::kPause);
  CHECK(small.alone == 0);
  CHECK(small.timed == 3);
}

TEST_CASE("OnOneThread keeps what its thread calls there", "[core]") {
  const int before = num_threads();
  set_num_threads(2);
  const auto pieces = [] {
    std::atomic<int> n{0};
    core::parallel(64, 1, [&](int64_t, int64_t) { ++n; });
    return n.load();
  };
  const uint64_t shared = core::shared_regions();
  {
    const core::OnOneThread so(true);
    const core::OnOneThread not_so(false);
    CHECK(core::threads_here() == 1);
    CHECK(num_threads() == 2);
    CHECK(pieces() == 1);
  }
  CHECK(core::shared_regions() == shared);
  CHECK(core::threads_here() == 2);
  CHECK(pieces() == 2);
  CHECK(core::shared_regions() == shared + 1);
  set_num_threads(before);
}
