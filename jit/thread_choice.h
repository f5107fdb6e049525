// Whether a plan's runs go to the thread pool or stay on their thread. Both give the same bits, so time
// decides: what two processors pay for sharing memory depends on which two the system gives, and may be more
// than what a small plan gains. Any thread; where several run a plan at once, they may time a few runs more.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

namespace tandem::jit {

class ThreadChoice {
 public:
  struct Turn {
    bool alone;  // on its thread alone
    bool timed;  // `took` wants to know
  };
  /// `threads`: all that there are; another number begins a trial.
  Turn next(int threads) {
    if (threads_.load(std::memory_order_relaxed) != threads) [[unlikely]]
      begin(threads);
    const int64_t step = step_.load(std::memory_order_relaxed);
    step_.store(step + 1, std::memory_order_relaxed);
    if (step < 0) [[likely]]
      return {alone_.load(std::memory_order_relaxed), false};
    return {step >= kEach, true};
  }
  /// What was decided last.
  bool alone() const { return alone_.load(std::memory_order_relaxed); }
  /// A timed turn is over, without an error. `shared`: whether the pool had anything of it.
  void took(Turn turn, int64_t ns, bool shared);

  static constexpr int64_t kEach = 4;                 // runs either way, of which the shortest counts
  static constexpr int64_t kPause = 1000;             // runs on all threads until the next trial
  static constexpr int64_t kPauseAlone = 200;         // on one, which a busy moment may have led to
  static constexpr int64_t kLongPause = 16 * kPause;  // where threads are worth twice their time
  static constexpr int64_t kLong = 300'000;           // ns on all threads: longer runs are not tried on one

 private:
  void begin(int threads);
  void settle(bool alone, int64_t pause);

  std::atomic<int64_t> step_{0};  // below 0: runs until a trial, in which it counts
  std::atomic<int> threads_{0};
  std::atomic<bool> alone_{false};
  std::atomic<int64_t> on_all_{kNever}, on_one_{kNever};  // ns
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
};

}  // namespace tandem::jit
