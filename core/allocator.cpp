// Cold half of the allocator: what the free lists (free_lists.h) do not have or cannot take.
// Small blocks (up to 256 KiB) have a bound per class; larger ones share a bound in bytes, an eighth of the
// machine's memory but at most 1 GiB a thread. A large block that finds no room pushes out those of other
// sizes, so a program that changes its shapes gets its memory back.
#include "tandem/core/allocator.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "tandem/core/dims.h"
#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/free_lists.h"

namespace tandem::core {

constinit thread_local ThreadCache cache_;
constinit std::atomic<bool> poison_{false};

namespace {

constexpr int64_t kClassBudget = int64_t{8} << 20;  // bytes a small class may hold
constexpr int64_t kClassBlocks = 4096;              // and blocks
constexpr int64_t kImplBlocks = 16384;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kUncounted = int64_t{1} << 20;  // bytes that a thread keeps to itself before it counts them

constinit std::atomic<bool> count_small_{false};
constinit std::atomic<int64_t> live_{0};
constinit std::atomic<int64_t> peak_{0};

void read_poison_setting() {
  static std::once_flag once;
  std::call_once(once, [] { poison_.store(environment().poison, std::memory_order_relaxed); });
}

/// Memory and swap space of the machine.
int64_t machine_bytes() {
  static const int64_t bytes = [] {
    struct sysinfo info {};
    if (sysinfo(&info) != 0) return int64_t{1} << 40;
    return static_cast<int64_t>((uint64_t{info.totalram} + info.totalswap) * info.mem_unit);
  }();
  return bytes;
}

int64_t large_budget() { return std::clamp(machine_bytes() / 8, int64_t{64} << 20, int64_t{1} << 30); }

int64_t small_capacity(int c) { return std::min(kClassBlocks, kClassBudget / class_bytes(c)); }

// A thread adds up its own blocks first: two atomic operations a block would cost more than the block.
void settle_live() noexcept {
  const int64_t now = live_.fetch_add(cache_.live, std::memory_order_relaxed) + cache_.live;
  cache_.live = 0;
  int64_t peak = peak_.load(std::memory_order_relaxed);
  while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

bool is_counted(int64_t nbytes) noexcept {
  return nbytes > kSmallBytes || count_small_.load(std::memory_order_relaxed);
}

void count_live(int64_t nbytes) noexcept {
  cache_.live += nbytes;
  if (count_small_.load(std::memory_order_relaxed) || cache_.live >= kUncounted ||
      cache_.live <= -kUncounted || cache_.state != ThreadCache::State::open)
    settle_live();
}

void* try_system(int64_t nbytes) {
  ++cache_.system_calls;
  const bool huge = nbytes >= 2 * kHugePage;
  void* block = nullptr;
  if (posix_memalign(&block, static_cast<size_t>(huge ? kHugePage : kBlockUnit),
                     static_cast<size_t>(nbytes)) != 0)
    return nullptr;
  if (huge) madvise(block, static_cast<size_t>(nbytes), MADV_HUGEPAGE);  // a wish; refusal does no harm
  return block;
}

void* from_system(int64_t nbytes) {
  // The system may promise more than the machine has, and then end the process that uses it.
  if (nbytes <= machine_bytes()) {
    if (void* block = try_system(nbytes)) return block;
    empty_cache();
    if (void* block = try_system(nbytes)) return block;
  }
  throw OutOfMemory("allocate: no memory for " + std::to_string(nbytes) + " bytes");
}

void release_list(int c) noexcept {
  FreeList& list = cache_.lists[c];
  while (FreeBlock* block = list.head) {
    list.head = block->next;
    if (c < kSmallClasses)
      ++list.room;
    else
      cache_.large_room += class_bytes(c);
    std::free(block);
  }
}

void close_cache() noexcept {
  cache_.state = ThreadCache::State::closed;
  settle_live();
  empty_cache();
  for (FreeList& list : cache_.lists) list.room = 0;
  cache_.impl_room = 0;
  cache_.large_room = 0;
}

struct Guard {
  Guard() {}
  ~Guard() { close_cache(); }
};

}  // namespace

bool open_cache() {
  if (cache_.state == ThreadCache::State::fresh) {
    read_poison_setting();
    thread_local Guard guard;
    cache_.state = ThreadCache::State::open;
    const bool keep = !count_small_.load(std::memory_order_relaxed);  // what is kept is not seen again
    for (int c = 0; c < kSmallClasses; ++c) cache_.lists[c].room = keep ? small_capacity(c) : 0;
    cache_.impl_room = kImplBlocks;
    cache_.large_room = large_budget();
  }
  return cache_.state == ThreadCache::State::open;
}

void fill_poison(void* block, int64_t nbytes) noexcept {
  std::memset(block, 0xFF, static_cast<size_t>(nbytes));
}

void* allocate_slow(int64_t nbytes) {
  if (nbytes < 0) fail("allocate: negative size " + std::to_string(nbytes));
  if (nbytes == 0) nbytes = 1;
  open_cache();
  void* block = nullptr;
  if (kBypassCaches) {
    block = from_system(nbytes);
  } else if (nbytes > kMaxClassBytes) {
    block = from_system(checked_add(nbytes, kBlockUnit, "allocate: size") / kBlockUnit * kBlockUnit);
  } else {
    const int c = size_class(static_cast<uint64_t>(nbytes - 1) / kBlockUnit);
    FreeList& list = cache_.lists[c];
    if (list.head != nullptr) {
      block = list.head;
      list.head = list.head->next;
      if (c < kSmallClasses)
        ++list.room;
      else
        cache_.large_room += class_bytes(c);
    } else {
      block = from_system(class_bytes(c));
    }
  }
  if (is_counted(nbytes)) count_live(nbytes);
  if (poison_.load(std::memory_order_relaxed)) fill_poison(block, nbytes);
  return block;
}

void deallocate_slow(void* memory, int64_t nbytes) noexcept {
  if (memory == nullptr) return;
  nbytes = std::max<int64_t>(nbytes, 1);
  if (is_counted(nbytes)) count_live(-nbytes);
  if (kBypassCaches || nbytes > kMaxClassBytes || !open_cache()) return std::free(memory);

  const int c = size_class(static_cast<uint64_t>(nbytes - 1) / kBlockUnit);
  FreeList& list = cache_.lists[c];
  if (c < kSmallClasses) {
    if (list.room <= 0) return std::free(memory);
    --list.room;
  } else {
    const int64_t size = class_bytes(c);
    for (int other = kClassCount - 1; other >= kSmallClasses && cache_.large_room < size; --other)
      if (other != c) release_list(other);
    if (cache_.large_room < size) return std::free(memory);
    cache_.large_room -= size;
  }
  FreeBlock* block = static_cast<FreeBlock*>(memory);
  block->next = list.head;
  list.head = block;
}

void* allocate(int64_t nbytes) { return pop_block(nbytes); }
void deallocate(void* block, int64_t nbytes) noexcept {
  if (block != nullptr) push_block(block, nbytes);
}

AllocatorStats allocator_stats() {
  settle_live();
  AllocatorStats stats;
  stats.live_bytes = live_.load(std::memory_order_relaxed);
  stats.peak_bytes = peak_.load(std::memory_order_relaxed);
  for (int c = 0; c < kClassCount; ++c)
    for (const FreeBlock* block = cache_.lists[c].head; block != nullptr; block = block->next)
      stats.cached_bytes += class_bytes(c);
  stats.system_calls = cache_.system_calls;
  return stats;
}

void count_small_blocks() {
  open_cache();
  count_small_.store(true, std::memory_order_relaxed);
  for (int c = 0; c < kSmallClasses; ++c) {
    release_list(c);
    cache_.lists[c].room = 0;
  }
}

void reset_peak_bytes() noexcept {
  settle_live();
  peak_.store(live_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void empty_cache() noexcept {
  for (int c = 0; c < kClassCount; ++c) release_list(c);
  release_impls();
}

bool set_poison(bool on) {
  read_poison_setting();
  return poison_.exchange(on, std::memory_order_relaxed);
}

}  // namespace tandem::core
