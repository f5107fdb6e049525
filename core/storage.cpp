#include "tandem/core/storage.h"

#include <cstring>

#include "tandem/core/cuda/runtime.h"
#include "tandem/core/error.h"
#include "tandem/core/storage_block.h"

namespace tandem::core {

namespace {
void release_nothing(void*) {}
}  // namespace

Ref<Storage> new_device_storage(int64_t nbytes, Device device) {
  Storage* s = new (pop_block(kStorageHeader)) Storage;
  s->refs.set(1);
  s->nbytes = nbytes;
  s->device = device;
  try {
    fill_device_storage(*s);
  } catch (...) {
    push_block(s, kStorageHeader);
    throw;
  }
  return Ref<Storage>::adopt(s);
}

Ref<Storage> make_storage(int64_t nbytes, Device device) { return new_storage(nbytes, device); }

void make_storages(std::span<const int64_t> nbytes, Device device, Ref<Storage>* out) {
  for (const int64_t n : nbytes) {
    if (*out)
      renew_storage(**out);
    else
      *out = new_storage(n, device);
    ++out;
  }
}

Ref<Storage> copy_storage(const Storage& s) {
  Ref<Storage> copy = make_storage(s.nbytes, s.device);
  copy_bytes(*copy, s, s.nbytes);
  return copy;
}

void copy_bytes(Storage& to, const Storage& from, int64_t nbytes) {
  if (nbytes == 0) return;
  if (from.device.type == DeviceType::cpu) {
    settle_host(from.data), settle_host(to.data);
    std::memcpy(to.data, from.data, static_cast<size_t>(nbytes));
    return;
  }
  cuda::Runtime::of(from.device)
      .copy(reinterpret_cast<cuda::Pointer>(to.data), reinterpret_cast<cuda::Pointer>(from.data), nbytes);
}

void copy_in(Storage& to, const void* from, int64_t nbytes) {
  if (nbytes == 0) return;
  if (to.device.type == DeviceType::cpu) {
    settle_host(to.data);
    std::memcpy(to.data, from, static_cast<size_t>(nbytes));
    return;
  }
  cuda::Runtime::of(to.device).copy_in(reinterpret_cast<cuda::Pointer>(to.data), from, nbytes);
}

Ref<Storage> on_host(const Ref<Storage>& s) {
  if (s->device.type == DeviceType::cpu) {
    settle_host(s->data);
    return s;
  }
  Ref<Storage> copy = make_storage(s->nbytes);
  cuda::Runtime::of(s->device).copy_out(copy->data, reinterpret_cast<cuda::Pointer>(s->data), s->nbytes);
  return copy;
}

Ref<Storage> borrow_storage(void* data, int64_t nbytes, void (*release)(void*), void* context) {
  if (nbytes < 0) fail("from_blob: negative size " + std::to_string(nbytes));
  Storage* s = new (pop_block(kStorageHeader)) Storage;
  s->refs.set(1);
  s->data = data;
  s->nbytes = nbytes;
  s->exposed = true;
  // A borrowed storage is known by having a release function.
  s->release = release != nullptr ? release : release_nothing;
  s->release_context = context;
  return Ref<Storage>::adopt(s);
}

void destroy(Storage* s) noexcept { drop_storage(s); }

}  // namespace tandem::core
