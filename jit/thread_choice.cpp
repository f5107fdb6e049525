#include "tandem/jit/thread_choice.h"

#include <algorithm>

namespace tandem::jit {

void ThreadChoice::begin(int threads) {
  threads_.store(threads, std::memory_order_relaxed);
  settle(false, 0);
}

// Where several threads run a plan, one may settle while the others' trials go on: what these find then is of
// no trial.
void ThreadChoice::took(Turn turn, int64_t ns, bool shared) {
  const int64_t step = step_.load(std::memory_order_relaxed);
  if (step <= 0) return;
  std::atomic<int64_t>& best = turn.alone ? on_one_ : on_all_;
  best.store(std::min(best.load(std::memory_order_relaxed), ns), std::memory_order_relaxed);
  const int64_t one = on_one_.load(std::memory_order_relaxed), all = on_all_.load(std::memory_order_relaxed);
  if (!turn.alone) {
    if (!shared)
      settle(false, kPause);
    else if (step >= kEach && all > kLong)
      settle(false, kLongPause);
  } else if (all == kNever || ns / 2 > all) {
    settle(false, kLongPause);
  } else if (step >= 2 * kEach) {
    const bool alone = one < all - all / 20;
    settle(alone, alone ? kPauseAlone : kPause);
  }
}

void ThreadChoice::settle(bool alone, int64_t pause) {
  alone_.store(alone, std::memory_order_relaxed);
  on_all_.store(kNever, std::memory_order_relaxed);
  on_one_.store(kNever, std::memory_order_relaxed);
  step_.store(-pause, std::memory_order_relaxed);
}

}  // namespace tandem::jit
