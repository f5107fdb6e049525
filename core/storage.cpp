#include "tandem/core/storage.h"

#include "tandem/core/error.h"
#include "tandem/core/storage_block.h"

namespace tandem::core {

namespace {
void release_nothing(void*) {}
}  // namespace

void fail_no_device(Device device) {
  fail("make_storage: device " + to_string(device) + " is not available; memory can be made on the CPU only");
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
