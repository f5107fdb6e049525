#include "tandem/core/storage.h"

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

Ref<Storage> borrow_storage(void* data, int64_t nbytes, void (*release)(void*), void* context) {
  if (nbytes < 0) fail("from_blob: negative size " + std::to_string(nbytes));
  Storage* s = new (pop_block(kStorageHeader)) Storage;
  s->refs.set(1);
  s->data = data;
  s->nbytes = nbytes;
  // A borrowed storage is known by having a release function.
  s->release = release != nullptr ? release : release_nothing;
  s->release_context = context;
  return Ref<Storage>::adopt(s);
}

void destroy(Storage* s) noexcept { drop_storage(s); }

}  // namespace tandem::core
