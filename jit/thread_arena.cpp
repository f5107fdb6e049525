#include "tandem/jit/thread_arena.h"

#include <algorithm>

namespace tandem::jit {
namespace {
constexpr int64_t kKeptArena = int64_t{64} << 20;
}

constinit thread_local ThreadArena::Kept ThreadArena::kept_;

void ThreadArena::take(int64_t bytes) {
  if (kept_.taken || bytes > kKeptArena) {
    memory_ = core::allocate(bytes);
    return;
  }
  static thread_local Guard guard;
  (void)guard;
  // Doubled, so that sizes that grow step by step do not ask each time.
  const int64_t wanted = std::min(std::max(bytes, 2 * kept_.bytes), kKeptArena);
  void* fresh = core::allocate(wanted);
  if (kept_.memory) core::deallocate(kept_.memory, kept_.bytes);
  kept_.memory = memory_ = fresh;
  kept_.bytes = wanted;
  kept_.taken = own_ = true;
}

}  // namespace tandem::jit
