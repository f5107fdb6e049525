#include "tandem/core/cuda/pinned.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <map>
#include <mutex>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/core/storage.h"

namespace tandem::core {
constinit std::atomic<int64_t> host_copies{0};
}

namespace tandem::cuda {

namespace {

constexpr int64_t kLeastBytes = 512;

int64_t class_bytes(int64_t nbytes) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(nbytes, kLeastBytes))));
}

/// A copy that may still be to come.
struct Copy {
  StreamState* stream;
  EventHandle event;
  bool writes;  // the host's side
  Runtime::Past past;
};

struct PinnedBlock {
  int64_t bytes = 0;
  Runtime* device = nullptr;  // that made it
  bool in_use = true;
  std::vector<Copy> copies;
};

struct Pinned {
  std::mutex mutex;                                      // guards all of it
  std::map<const char*, PinnedBlock> blocks;             // by address
  std::vector<std::pair<Runtime*, EventHandle>> events;  // that no copy uses
  PinnedStats stats;

  PinnedBlock* find(const void* data) {
    const char* const at = static_cast<const char*>(data);
    auto after = blocks.upper_bound(at);
    if (after == blocks.begin()) return nullptr;
    const char* const base = (--after)->first;
    return at < base + after->second.bytes ? &after->second : nullptr;
  }

  void drop(PinnedBlock& b, std::vector<Copy>::iterator copy) noexcept {
    try {
      events.emplace_back(copy->stream->device, copy->event);
    } catch (...) {
      copy->stream->device->api().event_destroy(copy->event);
    }
    b.copies.erase(copy);
    core::host_copies.fetch_sub(1, std::memory_order_relaxed);
  }

  /// Forgets copies that are done, but those whose errors are to be told; true if none is left.
  bool settled(PinnedBlock& b, bool writes_too) {
    for (size_t i = 0; i < b.copies.size();) {
      const auto copy = b.copies.begin() + static_cast<std::ptrdiff_t>(i);
      copy->stream->device->use();
      if ((copy->writes && !writes_too) ||
          copy->stream->device->api().event_query(copy->event) == Result::not_ready)
        ++i;
      else
        drop(b, copy);
    }
    return b.copies.empty();
  }

  void release_cached(bool wait) noexcept {
    for (auto it = blocks.begin(); it != blocks.end();) {
      PinnedBlock& b = it->second;
      bool free = !b.in_use;
      if (free) try {
          if (wait)
            for (const Copy& copy : b.copies) copy.stream->device->api().event_synchronize(copy.event);
          free = settled(b, true);
          if (free) b.device->use();
        } catch (...) {
          free = false;
        }
      if (!free) {
        ++it;
        continue;
      }
      b.device->api().release_host(const_cast<char*>(it->first));
      stats.cached_bytes -= b.bytes;
      it = blocks.erase(it);
    }
  }

  EventHandle event(Runtime& device) {
    const auto known =
        std::find_if(events.begin(), events.end(), [&](const auto& e) { return e.first == &device; });
    if (known != events.end()) {
      const EventHandle out = known->second;
      events.erase(known);
      return out;
    }
    EventHandle out = nullptr;
    device.check(device.api().event_create(&out, kEventWithoutTiming), "cuEventCreate");
    return out;
  }
};

Pinned& pinned() {
  static auto* const p = new Pinned;
  return *p;
}

void give_back(void* data) {
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  PinnedBlock& b = *p.find(data);
  b.in_use = false;
  p.stats.live_bytes -= b.bytes;
  p.stats.cached_bytes += b.bytes;
}

/// The smallest sufficient class's block that nobody uses and no copy.
void* take(Pinned& p, int64_t bytes) {
  for (auto& [data, b] : p.blocks)
    if (!b.in_use && b.bytes == bytes && (!streams_wait || p.settled(b, true))) {
      b.in_use = true;
      p.stats.cached_bytes -= bytes;
      p.stats.live_bytes += bytes;
      return const_cast<char*>(data);
    }
  return nullptr;
}

void* allocate(Runtime& device, int64_t nbytes) {
  const int64_t bytes = class_bytes(nbytes);
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  if (void* known = take(p, bytes)) return known;
  device.use();
  void* made = nullptr;
  Result result = device.api().allocate_host(&made, static_cast<size_t>(bytes));
  if (result == Result::out_of_memory && p.stats.cached_bytes > 0) {
    p.release_cached(true);
    device.use();
    result = device.api().allocate_host(&made, static_cast<size_t>(bytes));
  }
  if (result == Result::out_of_memory)
    throw OutOfMemory("no pinned memory for " + std::to_string(nbytes) + " bytes, " +
                      std::to_string(p.stats.live_bytes) + " in use");
  device.check(result, "cuMemAllocHost");
  try {
    p.blocks[static_cast<char*>(made)] = {bytes, &device, true, {}};
  } catch (...) {
    device.api().release_host(made);
    throw;
  }
  p.stats.live_bytes += bytes;
  return made;
}

/// Around a copy: `queue` gives it to the stream.
template <class F>
void queue_copy(Runtime& device, const void* host, bool writes, F&& queue) {
  Pinned& p = pinned();
  const auto order = device.launching();  // taken before our lock
  const std::lock_guard lock(p.mutex);
  PinnedBlock* const b = p.find(host);
  TANDEM_INTERNAL(b, "a copy that is not waited for, of memory that is not pinned");
  p.settled(*b, false);
  device.use();  // behind it: copies of other devices were asked about
  for (const Copy& copy : b->copies)
    if (writes || copy.writes)
      device.check(device.api().stream_wait(device.stream(), copy.event, 0), "cuStreamWaitEvent");
  b->copies.reserve(b->copies.size() + 1);
  const EventHandle event = p.event(device);
  Runtime::Past past;
  try {
    queue();
    if (writes) past = device.past();
  } catch (...) {
    device.api().stream_synchronize(device.stream());  // the copy, if it was queued
    device.api().event_destroy(event);
    throw;
  }
  // Counted before the event is there: if that fails, nobody knows when the copy is done but the stream.
  if (const Result result = device.api().event_record(event, device.stream()); result != Result::success) {
    device.api().stream_synchronize(device.stream());
    device.api().event_destroy(event);
    device.check(result, "cuEventRecord");
  }
  b->copies.push_back({&device.current(), event, writes, std::move(past)});
  core::host_copies.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

core::Ref<core::Storage> make_pinned_storage(int64_t nbytes, Device device, const char* who, Location where) {
  void* const data = allocate(Runtime::of(device, who, where), nbytes);
  return core::borrow_storage(data, nbytes, give_back, data);
}

bool is_pinned(const void* data) {
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  const PinnedBlock* const b = p.find(data);
  return b && b->in_use;
}

void queue_copy_in(Runtime& device, Pointer to, const void* from, int64_t nbytes) {
  queue_copy(device, from, false, [&] { device.queue_copy_in(to, from, nbytes); });
}

void queue_copy_out(Runtime& device, void* to, Pointer from, int64_t nbytes) {
  queue_copy(device, to, true, [&] { device.queue_copy_out(to, from, nbytes); });
}

PinnedStats pinned_stats() {
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  return p.stats;
}

void empty_pinned_cache() noexcept {
  Pinned& p = pinned();
  const std::lock_guard lock(p.mutex);
  p.release_cached(false);
}

}  // namespace tandem::cuda

namespace tandem::core {

void wait_for_copies(const void* data) {
  using namespace tandem::cuda;
  std::vector<Copy> wrote;
  {
    Pinned& p = pinned();
    const std::lock_guard lock(p.mutex);
    PinnedBlock* const b = p.find(data);
    if (!b || !streams_wait) return;
    while (!b->copies.empty()) {
      const Copy copy = b->copies.front();
      Runtime& device = *copy.stream->device;
      device.use();
      device.check(device.api().event_synchronize(copy.event), "cuEventSynchronize");
      if (copy.writes) wrote.push_back(copy);
      p.drop(*b, b->copies.begin());
    }
  }
  // The values may have come of an index out of range.
  for (const Copy& copy : wrote) copy.stream->device->finished(copy.past);
}

}  // namespace tandem::core
