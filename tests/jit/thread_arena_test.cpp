// The block that a thread keeps for its plans: which runs use it, and when it goes.
#include "tandem/jit/thread_arena.h"

#include "tests/catch.h"

using tandem::core::allocator_stats;
using tandem::jit::ThreadArena;

namespace {

/// Bytes handed out, within the allocator's exactness.
int64_t live() { return allocator_stats().live_bytes; }
constexpr int64_t kMiB = int64_t{1} << 20;

char* run(int64_t bytes) {
  const ThreadArena arena(bytes);
  arena.memory()[bytes - 1] = 1;
  return arena.memory();
}

/// Leaves the thread without a block.
void drop() {
  run(2 * ThreadArena::kLarge);
  for (int i = 0; i < ThreadArena::kSmallRuns; ++i) run(1);
}

}  // namespace

TEST_CASE("a large arena stays while runs need it", "[jit]") {
  constexpr int64_t kBytes = 2 * ThreadArena::kLarge;
  drop();
  const int64_t before = live();
  char* const memory = run(kBytes);
  CHECK(live() >= before + kBytes - kMiB);
  for (int i = 0; i < 3; ++i) CHECK(run(kBytes) == memory);
  // Smaller ones work in it, and a run that needs most of it begins the count again.
  for (int i = 0; i + 1 < ThreadArena::kSmallRuns; ++i) CHECK(run(kMiB) == memory);
  CHECK(run(kBytes / 2 + 1) == memory);
  for (int i = 0; i + 1 < ThreadArena::kSmallRuns; ++i) CHECK(run(kMiB) == memory);
  CHECK(live() >= before + kBytes - kMiB);
  run(kMiB);
  CHECK(live() < before + kMiB);
}

TEST_CASE("a run inside a run has memory of its own", "[jit]") {
  constexpr int64_t kBytes = ThreadArena::kLarge + kMiB;
  drop();
  const int64_t before = live();
  {
    const ThreadArena outer(kBytes);
    const ThreadArena inner(kBytes);
    CHECK(inner.memory() != outer.memory());
    CHECK(live() >= before + 2 * kBytes - kMiB);
  }
  CHECK(live() < before + kBytes + kMiB);
  drop();
  CHECK(live() < before + kMiB);
}
