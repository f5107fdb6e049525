#include "tandem/core/cuda/runtime.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "tandem/core/cuda/pinned.h"
#include "tandem/core/env.h"
#include "tandem/core/storage.h"

namespace tandem::cuda {

namespace {

// A size class: a step of 512 bytes up to 1 MiB; beyond, an eighth of the power of two below the size, 2 MiB
// at least. So a block is at most an eighth larger than what was asked for, or 2 MiB.
constexpr int64_t kSmall = int64_t{1} << 20, kSmallStep = 512, kLeastStep = int64_t{2} << 20;

struct SizeClass {
  size_t index;
  int64_t bytes;
};
SizeClass size_class(int64_t nbytes) {
  if (nbytes <= kSmall) [[likely]] {
    const int64_t steps = (nbytes + kSmallStep - 1) / kSmallStep;
    return {static_cast<size_t>(steps - 1), steps * kSmallStep};
  }
  const int power = 63 - __builtin_clzll(static_cast<uint64_t>(nbytes - 1));
  const int64_t below = int64_t{1} << power, step = std::max(kLeastStep, below / 8);
  const int64_t bytes = (nbytes + step - 1) / step * step;
  const int64_t at = bytes <= below ? 0 : (bytes - below + step - 1) / step;
  return {static_cast<size_t>(2048 + (power - 20) * 9 + at), bytes};
}

std::string text_of(const Driver& api, Result result) {
  const char *name = nullptr, *text = nullptr;
  api.error_name(result, &name);
  api.error_string(result, &text);
  return (name ? name : "error " + std::to_string(static_cast<int>(result))) + std::string(": ") +
         (text ? text : "unknown");
}

/// Initialised once; empty if the driver works.
const std::string& why_no_devices(int* count) {
  struct State {
    std::string why;
    int count = 0;
  };
  static const State* const state = [] {
    auto* s = new State;
    const Driver* api = driver();
    if (!api) {
      s->why = why_no_driver();
      return s;
    }
    Result result = api->init(0);
    if (result == Result::success) result = api->device_count(&s->count);
    if (result != Result::success)
      s->why = "the CUDA driver says " + text_of(*api, result);
    else if (s->count == 0)
      s->why = "the CUDA driver sees no device";
    return s;
  }();
  *count = std::min(state->count, kMostDevices);
  return state->why;
}

}  // namespace

constinit thread_local std::array<StreamState*, kMostDevices> Runtime::current_{};
constinit std::array<std::atomic<Runtime*>, kMostDevices> Runtime::made_{};

std::string why_not_available() {
  int count = 0;
  if (const std::string& why = why_no_devices(&count); !why.empty()) return why;
  if (!nvrtc()) return why_no_nvrtc();
  return why_no_cublaslt();
}

bool is_available() { return why_not_available().empty(); }

int device_count() {
  int count = 0;
  return is_available() && why_no_devices(&count).empty() ? count : 0;
}

Runtime& Runtime::of(Device device, const char* who, Location where) {
  if (device.index < kMostDevices)
    if (Runtime* r = made_[static_cast<size_t>(device.index)].load(std::memory_order_acquire)) [[likely]]
      return *r;
  const std::string said = std::string(who) + ": device " + to_string(device) + " is not there: ";
  if (const std::string why = why_not_available(); !why.empty()) fail(said + why, where);
  if (device.index >= device_count())
    fail(said + "the CUDA driver sees " + std::to_string(device_count()), where);
  static std::mutex* const making = new std::mutex;
  const std::lock_guard lock(*making);
  std::atomic<Runtime*>& made = made_[static_cast<size_t>(device.index)];
  if (!made.load(std::memory_order_acquire))
    made.store(new Runtime(*driver(), device.index), std::memory_order_release);
  return *made.load(std::memory_order_acquire);
}

Runtime::Runtime(const Driver& api, int index)
    : api_(api), index_(index), exact_(core::environment().cuda_exact), poison_(core::environment().poison) {
  int device = 0, major = 0, minor = 0;
  check(api_.device_get(&device, index), "cuDeviceGet");
  check(api_.device_attribute(&major, kMajor, device), "cuDeviceGetAttribute");
  check(api_.device_attribute(&minor, kMinor, device), "cuDeviceGetAttribute");
  check(api_.device_attribute(&multiprocessors_, kMultiprocessors, device), "cuDeviceGetAttribute");
  check(api_.device_attribute(&shared_bytes_, kSharedPerBlockOptIn, device), "cuDeviceGetAttribute");
  capability_ = 10 * major + minor;
  check(api_.context_retain(&context_, device), "cuDevicePrimaryCtxRetain");
  set_context();
  check(api_.stream_create(&stream_, kStreamNonBlocking), "cuStreamCreate");
  order_.add(stream_);
  add_error_words();
}

void Runtime::set_context() const { check(api_.context_set(context_), "cuCtxSetCurrent"); }

void Runtime::check(Result result, const char* call) const {
  if (result == Result::success) [[likely]]
    return;
  const std::string text =
      std::string(call) + " on cuda:" + std::to_string(index_) + ": " + text_of(api_, result);
  if (result == Result::out_of_memory) throw OutOfMemory(text);
  fail(text);
}

Pointer Runtime::allocate(int64_t nbytes) {
  if (nbytes == 0) return 0;
  if (nbytes < 0 || nbytes > (int64_t{1} << 50))
    fail("make_storage: " + std::to_string(nbytes) + " bytes cannot be had");
  Pointer block = 0;
  if (exact_) [[unlikely]] {
    const std::lock_guard lock(mutex_);
    block = new_block(nbytes, nbytes, nullptr);
    count_live(nbytes);
  } else {
    block = cached_block(nbytes);
  }
  if (poison_) [[unlikely]] {
    try {
      fill(block, 0xFF, nbytes);
    } catch (...) {
      give_back(block, nbytes);
      throw;
    }
  }
  return block;
}

void Runtime::count_live(int64_t bytes) {
  stats_.live_bytes += bytes;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.live_bytes);
}

Runtime::FreeLists& Runtime::free_lists(uint32_t stream) {
  if (stream == 0) [[likely]]
    return classes_;
  if (others_.size() < stream) others_.resize(stream);
  std::unique_ptr<FreeLists>& lists = others_[stream - 1];
  if (!lists) lists = std::make_unique<FreeLists>(kClasses);
  return *lists;
}

Pointer Runtime::cached_block(int64_t nbytes) {
  const SizeClass wanted = size_class(nbytes);
  const uint32_t stream = several() ? current().index : 0;
  const std::lock_guard lock(mutex_);
  FreeBlocks& list = free_lists(stream)[wanted.index];
  Pointer block = 0;
  if (!list.blocks.empty()) [[likely]] {
    block = list.blocks.back();
    list.blocks.pop_back();
    stats_.cached_bytes -= wanted.bytes;
  } else {
    block = new_block(nbytes, wanted.bytes, &classes_[wanted.index]);
  }
  count_live(wanted.bytes);
  return block;
}

Pointer Runtime::new_block(int64_t nbytes, int64_t block_bytes, FreeBlocks* list) {
  use();
  // So that giving it back needs no memory of the host's.
  if (list && list->blocks.capacity() <= list->there)
    list->blocks.reserve(std::max<size_t>(8, 2 * list->there));
  Pointer block = 0;
  Result result = api_.allocate(&block, static_cast<size_t>(block_bytes));
  ++stats_.system_calls;
  if (result == Result::out_of_memory && stats_.cached_bytes > 0) {
    release_cached();
    result = api_.allocate(&block, static_cast<size_t>(block_bytes));
  }
  if (result == Result::out_of_memory) {
    size_t free = 0, total = 0;
    api_.memory_info(&free, &total);
    throw OutOfMemory("out of memory on cuda:" + std::to_string(index_) + ": " + std::to_string(nbytes) +
                      " bytes asked for, " + std::to_string(stats_.live_bytes) + " in use, " +
                      std::to_string(free) + " of " + std::to_string(total) + " free");
  }
  check(result, "cuMemAlloc");
  order_.hold(block, block_bytes);
  if (list) ++list->there;
  return block;
}

void Runtime::give_back(Pointer block, int64_t nbytes) noexcept {
  if (!block) return;
  if (exact_) [[unlikely]] {
    {
      const std::lock_guard lock(mutex_);
      stats_.live_bytes -= nbytes;
    }
    // Work that was queued may still use it.
    if (api_.context_set(context_) == Result::success) {
      if (several())  // not the context: another thread may be capturing
        for (const StreamState* const stream : order_.streams()) api_.stream_synchronize(stream->handle);
      else
        api_.stream_synchronize(stream_);
    }
    order_.drop(block);
    api_.release(block);
    return;
  }
  const SizeClass known = size_class(nbytes);
  const uint32_t home = several() ? order_.home(block, current().index) : 0;
  const std::lock_guard lock(mutex_);
  stats_.live_bytes -= known.bytes;
  if (home == 0) [[likely]] {
    stats_.cached_bytes += known.bytes;
    classes_[known.index].blocks.push_back(block);
    return;
  }
  try {
    free_lists(home)[known.index].blocks.push_back(block);
    stats_.cached_bytes += known.bytes;
  } catch (...) {  // no memory of the host's
    order_.drop(block);
    api_.release(block);
    --classes_[known.index].there;
  }
}

void Runtime::release_cached() noexcept {
  for (size_t s = 0; s <= others_.size(); ++s) {
    FreeLists* const lists = s == 0 ? &classes_ : others_[s - 1].get();
    if (!lists) continue;
    for (size_t i = 0; i < lists->size(); ++i) {
      std::vector<Pointer>& blocks = (*lists)[i].blocks;
      for (const Pointer block : blocks) {
        order_.drop(block);
        api_.release(block);
      }
      classes_[i].there -= blocks.size();
      blocks.clear();
    }
  }
  stats_.cached_bytes = 0;
}

void Runtime::empty_cache() noexcept {
  const std::lock_guard lock(mutex_);
  if (api_.context_set(context_) == Result::success) release_cached();
}

std::shared_ptr<Block> Runtime::graph_arena(int64_t nbytes, std::weak_ptr<Block>& mine) {
  if (std::shared_ptr<Block> known = mine.lock();
      known && known->bytes() >= nbytes && known.get() == current_arena_.load(std::memory_order_relaxed))
      [[likely]]
    return known;
  // Blocks are dropped outside the lock, which they take.
  std::shared_ptr<Block> now, fresh;
  for (;;) {
    now.reset();
    {
      const std::lock_guard lock(mutex_);
      now = arena_;
      if ((!now || now->bytes() < nbytes) && fresh) {
        now = fresh;
        arena_.swap(fresh);
        current_arena_.store(now.get(), std::memory_order_relaxed);
      }
    }
    if (now && now->bytes() >= nbytes) break;
    fresh = std::make_shared<Block>(*this, nbytes);
  }
  mine = now;
  return now;
}

void Runtime::add_arena_user() {
  const std::lock_guard lock(mutex_);
  ++arena_users_;
}

void Runtime::remove_arena_user() noexcept {
  std::shared_ptr<Block> last;  // dropped outside the lock
  const std::lock_guard lock(mutex_);
  if (--arena_users_ > 0) return;
  arena_.swap(last);
  current_arena_.store(nullptr, std::memory_order_relaxed);
}

MemoryStats Runtime::memory_stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Runtime::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak_bytes = stats_.live_bytes;
}

void Runtime::queue_copy_in(Pointer to, const void* from, int64_t nbytes) {
  if (nbytes == 0) return;
  use();
  const Ordered order(*this, [&](auto&& touch) { touch({to, true}); });
  check(api_.copy_to_device(to, from, static_cast<size_t>(nbytes), stream()), "cuMemcpyHtoDAsync");
}

// The driver may read pageable memory when the copy's turn comes. Errors of launches are told elsewhere: who
// brings values in looks at none.
void Runtime::copy_in(Pointer to, const void* from, int64_t nbytes) {
  if (nbytes == 0) return;
  queue_copy_in(to, from, nbytes);
  check(api_.stream_synchronize(stream()), "cuStreamSynchronize");
}

void Runtime::queue_copy_out(void* to, Pointer from, int64_t nbytes) {
  if (nbytes == 0) return;
  use();
  const Ordered order(*this, [&](auto&& touch) { touch({from, false}); });
  check(api_.copy_to_host(to, from, static_cast<size_t>(nbytes), stream()), "cuMemcpyDtoHAsync");
}

void Runtime::copy_out(void* to, Pointer from, int64_t nbytes) {
  queue_copy_out(to, from, nbytes);
  synchronize_current();
}

void Runtime::copy(Pointer to, Pointer from, int64_t nbytes) {
  if (nbytes == 0) return;
  use();
  const Ordered order(*this, [&](auto&& touch) { touch({to, true}), touch({from, false}); });
  check(api_.copy_on_device(to, from, static_cast<size_t>(nbytes), stream()), "cuMemcpyDtoDAsync");
}

void Runtime::fill(Pointer to, unsigned char byte, int64_t nbytes) {
  use();
  const Ordered order(*this, [&](auto&& touch) { touch({to, true}); });
  check(api_.fill_bytes(to, byte, static_cast<size_t>(nbytes), stream()), "cuMemsetD8Async");
}

void Runtime::synchronize() {
  if (several())
    for (StreamState* const stream : order_.streams()) synchronize(*stream);
  else
    synchronize(order_.first());
}

void Runtime::synchronize(StreamState& stream) {
  use();
  Clock before;
  if (several()) {
    const auto nobody_launches = launching();
    before = order_.clock(stream);
  }
  check(api_.stream_synchronize(stream.handle), "cuStreamSynchronize");
  if (!before.empty()) order_.finished(before);
  check_errors();
}

void synchronize(Device device) { Runtime::of(device, "synchronize").synchronize(); }
MemoryStats memory_stats(Device device) { return Runtime::of(device, "memory_stats").memory_stats(); }
void empty_cache(Device device) {
  Runtime::of(device, "empty_cache").empty_cache();
  empty_pinned_cache();
}

}  // namespace tandem::cuda

namespace tandem::core {

namespace {
void release_block(void* storage) {
  const auto* s = static_cast<const Storage*>(storage);
  cuda::Runtime::of(s->device).give_back(reinterpret_cast<cuda::Pointer>(s->data), s->nbytes);
}
}  // namespace

void fill_device_storage(Storage& s) {
  s.data = reinterpret_cast<void*>(cuda::Runtime::of(s.device, "make_storage").allocate(s.nbytes));
  s.release = release_block;
  s.release_context = &s;
}

}  // namespace tandem::core
