// The thread-local free lists behind allocate(), inlined where a tensor is made: pop and push are a few
// instructions, without lock, atomic or malloc. For core/, and where eager and tracer make one on every call.
// A block that was freed on another thread simply enters that thread's list. The lists are plain data, so
// they need no destructor; a guard made on the first miss returns the blocks at the end of the thread, after
// which everything goes to the system directly.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define TANDEM_BYPASS_CACHES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TANDEM_BYPASS_CACHES 1
#endif
#endif

namespace tandem::core {

struct TensorImpl;

#ifdef TANDEM_BYPASS_CACHES
inline constexpr bool kBypassCaches = true;  // the address sanitizer has to see every free
#else
inline constexpr bool kBypassCaches = false;
#endif

// Size classes: multiples of 64 bytes up to 512, then four to each power of two, up to 1 GiB.
inline constexpr int64_t kBlockUnit = 64;
inline constexpr int kClassCount = 92;
inline constexpr int64_t kMaxClassBytes = int64_t{1} << 30;
// Blocks up to here are popped inline, bounded per class, and not counted in the live bytes.
inline constexpr int64_t kSmallBytes = int64_t{256} << 10;

/// The class of blocks of (units_less_one + 1) * 64 bytes.
constexpr int size_class(uint64_t units_less_one) {
  if (units_less_one < 4) return static_cast<int>(units_less_one);
  const int top = std::bit_width(units_less_one) - 1;
  return top * 4 + static_cast<int>(units_less_one >> (top - 2)) - 8;
}
constexpr int64_t class_bytes(int c) {
  if (c < 4) return (c + 1) * kBlockUnit;
  return static_cast<int64_t>(c % 4 + 5) << (c / 4 - 1) << 6;
}
inline constexpr int kSmallClasses = size_class(kSmallBytes / kBlockUnit - 1) + 1;
static_assert(class_bytes(kSmallClasses - 1) == kSmallBytes);
static_assert(class_bytes(kClassCount - 1) == kMaxClassBytes &&
              size_class(kMaxClassBytes / kBlockUnit - 1) + 1 == kClassCount);

struct FreeBlock {
  FreeBlock* next;
};
struct FreeList {
  FreeBlock* head = nullptr;
  int64_t room = 0;  // blocks that may still enter; none until the guard lives, and after its end
};
struct ThreadCache {
  enum class State : uint8_t { fresh, open, closed };
  FreeList lists[kClassCount];
  TensorImpl* impls = nullptr;  // linked through `frame`
  int64_t impl_room = 0;
  TensorImpl* dying = nullptr;  // tensors whose history is still to be dropped, linked through `frame`
  int64_t large_room = 0;       // bytes that may still enter the lists above kSmallBytes
  int64_t live = 0;             // bytes handed out less those taken back, since they were last added up
  int64_t system_calls = 0;
  const void* frame = nullptr;  // the traced call that this thread runs
  State state = State::fresh;
  bool dropping = false;  // a loop over `dying` runs on this thread
};
extern constinit thread_local ThreadCache cache_;
extern std::atomic<bool> poison_;

/// Makes the guard of this thread and opens its lists; false at the end of a thread.
bool open_cache();
void* allocate_slow(int64_t nbytes);
void deallocate_slow(void* block, int64_t nbytes) noexcept;
void fill_poison(void* block, int64_t nbytes) noexcept;
/// Gives the impls of this thread's list back (tensor_impl.cpp).
void release_impls() noexcept;

inline void* pop_block(int64_t nbytes) {
  const uint64_t units = (static_cast<uint64_t>(nbytes) - 1) / kBlockUnit;
  if (!kBypassCaches && units < kSmallBytes / kBlockUnit) [[likely]] {
    FreeList& list = cache_.lists[size_class(units)];
    if (FreeBlock* block = list.head) [[likely]] {
      list.head = block->next;
      ++list.room;
      if (poison_.load(std::memory_order_relaxed)) [[unlikely]]
        fill_poison(block, nbytes);
      return block;
    }
  }
  return allocate_slow(nbytes);
}

inline void push_block(void* memory, int64_t nbytes) noexcept {
  const uint64_t units = (static_cast<uint64_t>(nbytes) - 1) / kBlockUnit;
  if (!kBypassCaches && units < kSmallBytes / kBlockUnit) [[likely]] {
    FreeList& list = cache_.lists[size_class(units)];
    if (list.room > 0) [[likely]] {
      FreeBlock* block = static_cast<FreeBlock*>(memory);
      block->next = list.head;
      list.head = block;
      --list.room;
      return;
    }
  }
  deallocate_slow(memory, nbytes);
}

}  // namespace tandem::core
