// Making and dropping a storage whose header and data are one block, inlined where a tensor is made. Internal
// to core/. Layout: 64 bytes of header, then the data, so that data starts on a cache line of its own.
#pragma once

#include <new>

#include "tandem/core/free_lists.h"
#include "tandem/core/storage.h"

namespace tandem::core {

inline constexpr int64_t kStorageHeader = 64;
static_assert(sizeof(Storage) <= kStorageHeader);

/// The header alone, its data on the device.
Ref<Storage> new_device_storage(int64_t nbytes, Device device);
/// Gives it its data and its release (core/cuda/runtime.cpp).
void fill_device_storage(Storage& s);

/// `nbytes` is refused by the allocator if negative.
inline Ref<Storage> new_storage(int64_t nbytes, Device device) {
  if (device.type != DeviceType::cpu) [[unlikely]]
    return new_device_storage(nbytes, device);
  int64_t total = nbytes;
  if (nbytes >= 0 && __builtin_add_overflow(nbytes, kStorageHeader, &total)) [[unlikely]]
    total = nbytes;
  char* block = static_cast<char*>(pop_block(total));
  Storage* s = new (block) Storage;
  s->refs.set(1);
  s->data = block + kStorageHeader;
  s->nbytes = nbytes;
  return Ref<Storage>::adopt(s);
}

/// Memory of the allocator's whose values nobody wants, as if it was made now.
inline void renew_storage(Storage& s) noexcept {
  s.version = 0;
  s.changed_at = {};
  s.exposed = false;
  if (poison_.load(std::memory_order_relaxed) && s.device.type == DeviceType::cpu) [[unlikely]]
    fill_poison(s.data, s.nbytes);
}

inline void drop_storage(Storage* s) noexcept {
  if (s->release != nullptr) [[unlikely]] {
    s->release(s->release_context);
    push_block(s, kStorageHeader);
    return;
  }
  push_block(s, s->nbytes + kStorageHeader);
}

}  // namespace tandem::core
