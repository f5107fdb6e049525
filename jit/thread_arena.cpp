#include "tandem/jit/thread_arena.h"

#include <algorithm>

namespace tandem::jit {

constinit thread_local ThreadArena::Kept ThreadArena::kept_;

void ThreadArena::count_run(int64_t bytes) noexcept {
  kept_.small_runs = bytes > kept_.bytes / 2 ? 0 : kept_.small_runs + 1;
  if (kept_.small_runs == kSmallRuns) give_back();
}

void ThreadArena::take(int64_t bytes) {
  if (kept_.taken) {
    memory_ = core::allocate(bytes);
    return;
  }
  static thread_local Guard guard;
  (void)guard;
  // Doubled while it is small, so that sizes that grow step by step do not ask each time.
  const int64_t wanted = bytes > kLarge ? bytes : std::min(std::max(bytes, 2 * kept_.bytes), kLarge);
  give_back();
  kept_.memory = memory_ = core::allocate(wanted);
  kept_.bytes = wanted;
  kept_.small_runs = 0;
  kept_.taken = own_ = true;
}

}  // namespace tandem::jit
