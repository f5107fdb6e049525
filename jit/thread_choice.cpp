#include "tandem/jit/thread_choice.h"

#include <algorithm>

namespace tandem::jit {

void ThreadChoice::took(Turn turn, int64_t ns, bool shared) {
  std::atomic<int64_t>& best = turn.alone ? on_one_ : on_all_;
  best.store(std::min(best.load(std::memory_order_relaxed), ns), std::memory_order_relaxed);
  const int64_t all = on_all_.load(std::memory_order_relaxed), step = step_.load(std::memory_order_relaxed);
  if (!turn.alone) {
    if (!shared)
      settle(false, kPause);
    else if (step == kEach && all > kLong)
      settle(false, kLongPause);
  } else if (ns / 2 > all) {
    settle(false, kLongPause);
  } else if (step >= 2 * kEach) {
    // Where several threads ran it, one may have settled while the others' trials went on.
    const bool alone = all != kNever && on_one_.load(std::memory_order_relaxed) < all - all / 20;
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
