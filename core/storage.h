// A piece of memory that tensors view. Shared by them through Ref; header and data are one block of the
// allocator. Counting is safe on any thread; contents are the callers' concern.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "tandem/core/device.h"
#include "tandem/core/location.h"
#include "tandem/core/ref.h"
#include "tandem/core/relaxed.h"

namespace tandem::core {

struct Storage {
  RefCount refs;
  uint32_t version = 0;  // moves at every in-place change
  Location changed_at;   // of the latest in-place change
  void* data = nullptr;
  int64_t nbytes = 0;
  Device device;
  Relaxed<bool> slot = false;  // some trace binds this memory: arguments that alias it are noticed
  Relaxed<bool> exposed =
      false;  // its address was handed out: whoever has it writes without a version's knowing
  void (*release)(void* context) =
      nullptr;  // memory of the user's (from_blob): called when the last tensor is gone
  void* release_context = nullptr;
};

/// Owned, uninitialised memory.
Ref<Storage> make_storage(int64_t nbytes, Device device = cpu);
/// One for each number of bytes, in order, where `out` has none; what it has, of that size and held by nobody
/// else, becomes as if it was made now. If one throws, those before it are made.
void make_storages(std::span<const int64_t> nbytes, Device device, Ref<Storage>* out);
/// A copy on the same device.
Ref<Storage> copy_storage(const Storage& s);
/// Copies the first `nbytes`; both on one device.
void copy_bytes(Storage& to, const Storage& from, int64_t nbytes);
/// Fills the first `nbytes` from the host's memory.
void copy_in(Storage& to, const void* from, int64_t nbytes);
/// The contents where the host can read them: the storage itself, or a copy of a device's.
Ref<Storage> on_host(const Ref<Storage>& s);
/// Memory that somebody else owns; `release(context)` is called at the end if given.
Ref<Storage> borrow_storage(void* data, int64_t nbytes, void (*release)(void*) = nullptr,
                            void* context = nullptr);
void destroy(Storage* s) noexcept;

/// Copies between devices and pinned memory of the host (cuda/pinned.h) that may still be to come.
extern constinit std::atomic<int64_t> host_copies;
void wait_for_copies(const void* data);
/// Before the host reads or writes memory: waits for copies that are queued to or from the block it lies in.
inline void settle_host(const void* data) {
  if (host_copies.load(std::memory_order_relaxed) != 0) [[unlikely]]
    wait_for_copies(data);
}

}  // namespace tandem::core
