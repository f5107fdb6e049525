// A region is cut into one contiguous piece per thread; piece t belongs to thread t, so that neighbouring
// regions over the same memory find it in the same core's cache. Each worker has a word: odd says that a
// piece waits, even that there is none. The caller writes the job, then the words; whoever swaps a word from
// odd to even has taken that piece. Normally the worker does; if it has not started when the caller is done
// with its own piece (asleep, or no processor free), the caller takes it, so that a late worker delays
// nobody. A worker reads the job only after taking a piece, and a region ends only after every piece, so the
// job is never read while it changes. Workers and pool live until the process ends and are never joined: exit
// needs no cooperation. fork() is not handled: a child has no workers (its caller takes every piece), and
// must not be forked inside a region.
#include "tandem/core/thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/core/env.h"
#include "tandem/core/error.h"

namespace tandem {

namespace core {
namespace {

constexpr int kMaxThreads = 256;
constexpr std::chrono::microseconds kSpin{100};

constinit thread_local bool in_region_ = false;
constinit thread_local bool on_one_thread_ = false;
constinit thread_local uint64_t shared_regions_ = 0;
constinit std::atomic<int> wanted_threads_{0};  // 0: not asked yet

void pause_processor() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

/// Waits until `done(word)`: spins for `spin`, then sleeps. Whoever changes the word looks at `asleep` after
/// that.
template <class Done>
uint32_t wait_word(std::atomic<uint32_t>& word, std::atomic<uint32_t>& asleep, std::chrono::nanoseconds spin,
                   Done done) {
  uint32_t seen = word.load(std::memory_order_acquire);
  if (done(seen)) return seen;
  if (spin.count() > 0) {
    const auto end = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < 16; ++i) {
        pause_processor();
        seen = word.load(std::memory_order_acquire);
        if (done(seen)) return seen;
      }
    } while (std::chrono::steady_clock::now() < end);
  }
  asleep.store(1, std::memory_order_seq_cst);
  while (!done(seen = word.load(std::memory_order_seq_cst))) futex_wait(word, seen);
  asleep.store(0, std::memory_order_relaxed);
  return seen;
}

struct alignas(64) Worker {
  std::atomic<uint32_t> word{0};
  std::atomic<uint32_t> asleep{0};
};

struct Job {
  int64_t n = 0;
  int pieces = 0;
  void (*body)(void*, int64_t, int64_t) = nullptr;
  void* context = nullptr;

  int64_t begin(int piece) const { return n / pieces * piece + std::min<int64_t>(piece, n % pieces); }
};

class Pool {
 public:
  void run(int64_t n, int pieces, void (*body)(void*, int64_t, int64_t), void* context) {
    std::lock_guard<std::mutex> turn(turn_);
    pieces = std::min(pieces, start_workers(pieces - 1) + 1);
    job_ = {n, pieces, body, context};
    error_ = nullptr;
    failed_.store(false, std::memory_order_relaxed);
    pending_.store(static_cast<uint32_t>(pieces), std::memory_order_relaxed);
    for (int t = 1; t < pieces; ++t) {
      Worker& w = *workers_[t - 1];
      w.word.store(w.word.load(std::memory_order_relaxed) + 1, std::memory_order_seq_cst);
      if (w.asleep.load(std::memory_order_seq_cst) != 0) futex_wake(w.word);
    }
    in_region_ = true;
    run_piece(0);
    for (int t = pieces - 1; t > 0; --t) {
      Worker& w = *workers_[t - 1];
      const uint32_t word = w.word.load(std::memory_order_relaxed);
      if (word % 2 == 1 && take(w, word)) run_piece(t);
    }
    in_region_ = false;
    wait_word(pending_, caller_asleep_, spin(), [](uint32_t pending) { return pending == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void set_threads(int n) {
    std::lock_guard<std::mutex> turn(turn_);
    wanted_threads_.store(n, std::memory_order_relaxed);
  }

 private:
  static bool take(Worker& w, uint32_t word) {
    return w.word.compare_exchange_strong(word, word + 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  }

  /// Spinning helps only while every thread has a processor of its own.
  std::chrono::nanoseconds spin() const {
    return static_cast<int>(workers_.size()) < processors_ ? kSpin : std::chrono::microseconds{0};
  }

  /// Starts workers until there are `count`; returns how many there are, fewer if the system refuses.
  int start_workers(int count) {
    while (static_cast<int>(workers_.size()) < count) {
      const int index = static_cast<int>(workers_.size());
      auto worker = std::make_unique<Worker>();
      const std::chrono::nanoseconds worker_spin =
          index + 2 <= processors_ ? kSpin : std::chrono::microseconds{0};
      try {
        workers_.reserve(workers_.size() + 1);
        std::thread([this, w = worker.get(), index, worker_spin] {
          work(*w, index + 1, worker_spin);
        }).detach();
      } catch (const std::system_error&) {
        break;
      }
      workers_.push_back(std::move(worker));
    }
    return static_cast<int>(workers_.size());
  }

  [[noreturn]] void work(Worker& w, int piece, std::chrono::nanoseconds worker_spin) {
    in_region_ = true;
    for (;;) {
      const uint32_t word =
          wait_word(w.word, w.asleep, worker_spin, [](uint32_t seen) { return seen % 2 == 1; });
      if (take(w, word)) run_piece(piece);
    }
  }

  void run_piece(int piece) {
    try {
      job_.body(job_.context, job_.begin(piece), job_.begin(piece + 1));
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    }
    if (pending_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
        caller_asleep_.load(std::memory_order_seq_cst) != 0)
      futex_wake(pending_);
  }

  std::mutex turn_;  // held by the thread whose region runs; guards all below that is not atomic
  const int processors_ = processors();
  std::vector<std::unique_ptr<Worker>> workers_;
  Job job_;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<uint32_t> pending_{0};
  std::atomic<uint32_t> caller_asleep_{0};

 public:
  static int processors() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::clamp(CPU_COUNT(&set), 1, kMaxThreads);
    return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kMaxThreads);
  }
};

Pool& pool() {
  static Pool* const kPool = new Pool;
  return *kPool;
}

}  // namespace

void parallel_ranges(int64_t n, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  if (n <= 0) return;
  const int64_t most = n / std::max<int64_t>(grain, 1);
  const int pieces = in_region_ || most <= 1 ? 1 : static_cast<int>(std::min<int64_t>(most, threads_here()));
  if (pieces == 1) return body(context, 0, n);
  ++shared_regions_;
  pool().run(n, pieces, body, context);
}

int threads_here() { return on_one_thread_ ? 1 : num_threads(); }

OnOneThread::OnOneThread(bool so) : before_(on_one_thread_) { on_one_thread_ |= so; }
OnOneThread::~OnOneThread() { on_one_thread_ = before_; }

uint64_t shared_regions() { return shared_regions_; }

}  // namespace core

int num_threads() {
  int n = core::wanted_threads_.load(std::memory_order_relaxed);
  if (n == 0) {
    const int configured = core::environment().num_threads;
    const int first = configured > 0 ? configured : core::Pool::processors();
    // A set_num_threads of another thread in between wins.
    if (core::wanted_threads_.compare_exchange_strong(n, first, std::memory_order_relaxed)) n = first;
  }
  return n;
}

void set_num_threads(int n, Location where) {
  if (n < 1 || n > core::kMaxThreads)
    fail("set_num_threads: " + std::to_string(n) + " is out of range; expected 1 to " +
             std::to_string(core::kMaxThreads),
         where);
  if (core::in_region_) fail("set_num_threads: not possible inside a parallel region", where);
  core::pool().set_threads(n);
}

}  // namespace tandem
