#include "tandem/core/cuda/runtime.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

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

constinit thread_local int Runtime::current_ = -1;
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
  capability_ = 10 * major + minor;
  check(api_.context_retain(&context_, device), "cuDevicePrimaryCtxRetain");
  set_current();
  check(api_.stream_create(&stream_, kStreamNonBlocking), "cuStreamCreate");
  add_error_words();
}

void Runtime::set_current() const {
  check(api_.context_set(context_), "cuCtxSetCurrent");
  current_ = index_;
}

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
    use();
    const Result result = api_.fill_bytes(block, 0xFF, static_cast<size_t>(nbytes), stream_);
    if (result != Result::success) {
      give_back(block, nbytes);
      check(result, "cuMemsetD8Async");
    }
  }
  return block;
}

void Runtime::count_live(int64_t bytes) {
  stats_.live_bytes += bytes;
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.live_bytes);
}

Pointer Runtime::cached_block(int64_t nbytes) {
  const SizeClass wanted = size_class(nbytes);
  const std::lock_guard lock(mutex_);
  FreeBlocks& list = classes_[wanted.index];
  Pointer block = 0;
  if (!list.blocks.empty()) [[likely]] {
    block = list.blocks.back();
    list.blocks.pop_back();
    stats_.cached_bytes -= wanted.bytes;
  } else {
    block = new_block(nbytes, wanted.bytes, &list);
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
  if (list) ++list->there;
  return block;
}

void Runtime::give_back(Pointer block, int64_t nbytes) noexcept {
  if (!block) return;
  if (exact_) [[unlikely]] {
    const std::lock_guard lock(mutex_);
    stats_.live_bytes -= nbytes;
    if (current_ != index_ && api_.context_set(context_) == Result::success) current_ = index_;
    api_.stream_synchronize(stream_);  // work that was queued may still use it
    api_.release(block);
    return;
  }
  const SizeClass known = size_class(nbytes);
  const std::lock_guard lock(mutex_);
  stats_.live_bytes -= known.bytes;
  stats_.cached_bytes += known.bytes;
  classes_[known.index].blocks.push_back(block);
}

void Runtime::release_cached() noexcept {
  for (FreeBlocks& list : classes_) {
    for (const Pointer block : list.blocks) api_.release(block);
    list.there -= list.blocks.size();
    list.blocks.clear();
  }
  stats_.cached_bytes = 0;
}

void Runtime::empty_cache() noexcept {
  const std::lock_guard lock(mutex_);
  if (current_ != index_ && api_.context_set(context_) == Result::success) current_ = index_;
  release_cached();
}

void Runtime::graph_arena(int64_t nbytes, std::shared_ptr<Block>& mine) {
  if (mine && mine->bytes() >= nbytes && mine.get() == current_arena_.load(std::memory_order_relaxed))
      [[likely]]
    return;
  // Blocks are dropped outside the lock, which they take.
  std::shared_ptr<Block> now, fresh;
  for (;;) {
    now.reset();
    {
      const std::lock_guard lock(mutex_);
      now = arena_.lock();
      if ((!now || now->bytes() < nbytes) && fresh) {
        arena_ = fresh;
        current_arena_.store(fresh.get(), std::memory_order_relaxed);
        now.swap(fresh);
      }
    }
    if (now && now->bytes() >= nbytes) break;
    fresh = std::make_shared<Block>(*this, nbytes);
  }
  mine = std::move(now);
}

MemoryStats Runtime::memory_stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Runtime::copy_in(Pointer to, const void* from, int64_t nbytes) {
  if (nbytes == 0) return;
  use();
  check(api_.copy_to_device(to, from, static_cast<size_t>(nbytes), stream_), "cuMemcpyHtoDAsync");
}

void Runtime::copy_out(void* to, Pointer from, int64_t nbytes) {
  use();
  if (nbytes > 0)
    check(api_.copy_to_host(to, from, static_cast<size_t>(nbytes), stream_), "cuMemcpyDtoHAsync");
  synchronize();
}

void Runtime::copy(Pointer to, Pointer from, int64_t nbytes) {
  if (nbytes == 0) return;
  use();
  check(api_.copy_on_device(to, from, static_cast<size_t>(nbytes), stream_), "cuMemcpyDtoDAsync");
}

void Runtime::synchronize() {
  use();
  check(api_.stream_synchronize(stream_), "cuStreamSynchronize");
  check_errors();
}

void Runtime::add_error_words() {
  use();
  constexpr size_t kBytes = kErrorWords * sizeof(int64_t);
  unused_errors_.reserve(error_words_.size() + kErrorWords);
  expected_.reserve(error_words_.size() + kErrorWords);
  error_words_.reserve(error_words_.size() + kErrorWords);
  error_regions_.reserve(error_regions_.size() + 1);
  Pointer region = 0;
  check(api_.allocate(&region, kBytes), "cuMemAlloc");
  if (const Result result = api_.fill_bytes(region, 0, kBytes, stream_); result != Result::success) {
    api_.release(region);
    check(result, "cuMemsetD8Async");
  }
  error_regions_.push_back(region);
  for (size_t i = kErrorWords; i-- > 0;) unused_errors_.push_back(error_words_.size() + i);
  error_words_.resize(error_words_.size() + kErrorWords);
}

size_t Runtime::error_index(Pointer word) const {
  for (size_t r = 0; r < error_regions_.size(); ++r)
    if (word - error_regions_[r] < kErrorWords * sizeof(int64_t))
      return r * kErrorWords + (word - error_regions_[r]) / sizeof(int64_t);
  internal_error("an address that is no error word");
}

bool Runtime::take_error_word(ErrorText what, Location where, size_t* index) {
  if (unused_errors_.empty()) return false;
  *index = unused_errors_.back();
  unused_errors_.pop_back();
  error_words_[*index] = {std::move(what), where, false, false};
  return true;
}

Pointer Runtime::error_word(ErrorText what, Location where) {
  Pointer address = 0;
  const auto take = [&] {
    const std::lock_guard lock(mutex_);
    size_t index = 0;
    if (!take_error_word(what, where, &index)) return false;
    error_words_[index].expected = true;
    expected_.push_back(index);
    address = error_address(index);
    return true;
  };
  if (!take()) [[unlikely]] {
    synchronize();
    while (!take()) {
      const std::lock_guard lock(mutex_);
      add_error_words();
    }
  }
  return address;
}

Pointer Runtime::keep_error_word(ErrorText what, Location where) {
  const std::lock_guard lock(mutex_);
  size_t index = 0;
  while (!take_error_word(what, where, &index)) add_error_words();
  error_words_[index].kept = true;
  return error_address(index);
}

void Runtime::expect_errors(std::span<const Pointer> kept) {
  const std::lock_guard lock(mutex_);
  for (const Pointer word : kept) {
    const size_t index = error_index(word);
    if (std::exchange(error_words_[index].expected, true)) continue;
    expected_.push_back(index);
  }
}

void Runtime::release_error_word(Pointer kept) noexcept {
  const std::lock_guard lock(mutex_);
  const size_t index = error_index(kept);
  error_words_[index].kept = false;
  if (!error_words_[index].expected) unused_errors_.push_back(index);  // else once it was looked at
}

void Runtime::check_errors() {
  ErrorWord first;
  {
    const auto nobody_launches = launching();
    const std::lock_guard lock(mutex_);
    if (expected_.empty()) return;
    std::vector<int64_t> words(error_words_.size());
    std::vector<size_t> used(error_regions_.size());  // words of each, from the first
    for (const size_t index : expected_)
      used[index / kErrorWords] = std::max(used[index / kErrorWords], index % kErrorWords + 1);
    for (size_t r = 0; r < used.size(); ++r) {
      if (used[r] == 0) continue;
      const size_t bytes = used[r] * sizeof(int64_t);
      check(api_.copy_to_host(words.data() + r * kErrorWords, error_regions_[r], bytes, stream_),
            "cuMemcpyDtoHAsync");
      check(api_.fill_bytes(error_regions_[r], 0, bytes, stream_), "cuMemsetD8Async");
    }
    check(api_.stream_synchronize(stream_), "cuStreamSynchronize");
    for (const size_t index : expected_) {
      ErrorWord& word = error_words_[index];
      if (words[index] != 0 && !first.what) first = word;
      word.expected = false;
      if (!word.kept) unused_errors_.push_back(index);
    }
    expected_.clear();
  }
  if (first.what) fail(*first.what, first.where);
}

void synchronize(Device device) { Runtime::of(device, "synchronize").synchronize(); }
MemoryStats memory_stats(Device device) { return Runtime::of(device, "memory_stats").memory_stats(); }
void empty_cache(Device device) { Runtime::of(device, "empty_cache").empty_cache(); }

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
