#include "tandem/core/cuda/runtime.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "tandem/core/storage.h"

namespace tandem::cuda {

namespace {

constexpr int kMostDevices = 16;
constexpr int64_t kSmall = int64_t{1} << 20;  // sizes up to here are multiples of 512 bytes, others of 2 MiB

int64_t rounded(int64_t nbytes) {
  const int64_t step = nbytes <= kSmall ? 512 : int64_t{2} << 20;
  return (nbytes + step - 1) / step * step;
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
  static std::unique_ptr<Runtime>* const runtimes = new std::unique_ptr<Runtime>[kMostDevices];
  static auto* const made = new std::atomic<Runtime*>[kMostDevices] {};
  if (device.index < kMostDevices)
    if (Runtime* r = made[device.index].load(std::memory_order_acquire)) [[likely]]
      return *r;
  const std::string said = std::string(who) + ": device " + to_string(device) + " is not there: ";
  if (const std::string why = why_not_available(); !why.empty()) fail(said + why, where);
  if (device.index >= device_count())
    fail(said + "the CUDA driver sees " + std::to_string(device_count()), where);
  static std::mutex* const making = new std::mutex;
  const std::lock_guard lock(*making);
  if (!made[device.index].load(std::memory_order_acquire)) {
    runtimes[device.index].reset(new Runtime(*driver(), device.index));
    made[device.index].store(runtimes[device.index].get(), std::memory_order_release);
  }
  return *made[device.index].load(std::memory_order_acquire);
}

Runtime::Runtime(const Driver& api, int index) : api_(api), index_(index) {
  int device = 0, major = 0, minor = 0;
  check(api_.device_get(&device, index), "cuDeviceGet");
  check(api_.device_attribute(&major, kMajor, device), "cuDeviceGetAttribute");
  check(api_.device_attribute(&minor, kMinor, device), "cuDeviceGetAttribute");
  check(api_.device_attribute(&multiprocessors_, kMultiprocessors, device), "cuDeviceGetAttribute");
  capability_ = 10 * major + minor;
  check(api_.context_retain(&context_, device), "cuDevicePrimaryCtxRetain");
  set_current();
  check(api_.stream_create(&stream_, kStreamNonBlocking), "cuStreamCreate");
  constexpr size_t kBytes = kErrorWords * sizeof(int64_t);
  check(api_.allocate(&error_words_, kBytes), "cuMemAlloc");
  check(api_.fill_bytes(error_words_, 0, kBytes, stream_), "cuMemsetD8Async");
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

Pointer Runtime::take_cached(int64_t wanted) {
  // A block that is a quarter too large is still good: fragments cost more.
  const auto it = cached_.lower_bound(wanted);
  if (it == cached_.end() || it->first > wanted + wanted / 4) return 0;
  const Pointer block = it->second;
  stats_.cached_bytes -= it->first;
  cached_.erase(it);
  return block;
}

Pointer Runtime::allocate(int64_t nbytes) {
  if (nbytes == 0) return 0;
  if (nbytes < 0 || nbytes > (int64_t{1} << 50))
    fail("make_storage: " + std::to_string(nbytes) + " bytes cannot be had");
  use();
  const int64_t wanted = rounded(nbytes);
  const std::lock_guard lock(mutex_);
  Pointer block = take_cached(wanted);
  if (!block) {
    Result result = api_.allocate(&block, static_cast<size_t>(wanted));
    ++stats_.system_calls;
    if (result == Result::out_of_memory && !cached_.empty()) {
      for (const auto& [bytes, unused] : cached_) {
        blocks_.erase(unused);
        api_.release(unused);
      }
      cached_.clear();
      stats_.cached_bytes = 0;
      result = api_.allocate(&block, static_cast<size_t>(wanted));
    }
    if (result == Result::out_of_memory) {
      size_t free = 0, total = 0;
      api_.memory_info(&free, &total);
      throw OutOfMemory("out of memory on cuda:" + std::to_string(index_) + ": " + std::to_string(nbytes) +
                        " bytes asked for, " + std::to_string(stats_.live_bytes) + " in use, " +
                        std::to_string(free) + " of " + std::to_string(total) + " free");
    }
    check(result, "cuMemAlloc");
    blocks_[block] = wanted;
  }
  stats_.live_bytes += blocks_[block];
  stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.live_bytes);
  return block;
}

void Runtime::give_back(Pointer block) noexcept {
  if (!block) return;
  const std::lock_guard lock(mutex_);
  const int64_t bytes = blocks_[block];
  stats_.live_bytes -= bytes;
  stats_.cached_bytes += bytes;
  cached_.emplace(bytes, block);
}

void Runtime::empty_cache() noexcept {
  const std::lock_guard lock(mutex_);
  if (current_ != index_ && api_.context_set(context_) == Result::success) current_ = index_;
  for (const auto& [bytes, block] : cached_) {
    blocks_.erase(block);
    api_.release(block);
  }
  cached_.clear();
  stats_.cached_bytes = 0;
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

Pointer Runtime::error_word(std::string what, Location where) {
  {
    const std::lock_guard lock(mutex_);
    if (expected_.size() < kErrorWords) {
      expected_.push_back({std::move(what), where});
      return error_words_ + (expected_.size() - 1) * sizeof(int64_t);
    }
  }
  synchronize();
  return error_word(std::move(what), where);
}

void Runtime::check_errors() {
  std::vector<Expected> expected;
  std::vector<int64_t> words;
  {
    const std::lock_guard lock(mutex_);
    if (expected_.empty()) return;
    words.resize(expected_.size());
    const size_t bytes = words.size() * sizeof(int64_t);
    check(api_.copy_to_host(words.data(), error_words_, bytes, stream_), "cuMemcpyDtoHAsync");
    check(api_.fill_bytes(error_words_, 0, bytes, stream_), "cuMemsetD8Async");
    check(api_.stream_synchronize(stream_), "cuStreamSynchronize");
    expected = std::exchange(expected_, {});
  }
  for (size_t i = 0; i < words.size(); ++i)
    if (words[i] != 0) fail(expected[i].what, expected[i].where);
}

void synchronize(Device device) { Runtime::of(device, "synchronize").synchronize(); }
MemoryStats memory_stats(Device device) { return Runtime::of(device, "memory_stats").memory_stats(); }
void empty_cache(Device device) { Runtime::of(device, "empty_cache").empty_cache(); }

}  // namespace tandem::cuda

namespace tandem::core {

namespace {
void release_block(void* storage) {
  const auto* s = static_cast<const Storage*>(storage);
  cuda::Runtime::of(s->device).give_back(reinterpret_cast<cuda::Pointer>(s->data));
}
}  // namespace

void fill_device_storage(Storage& s) {
  s.data = reinterpret_cast<void*>(cuda::Runtime::of(s.device, "make_storage").allocate(s.nbytes));
  s.release = release_block;
  s.release_context = &s;
}

}  // namespace tandem::core
