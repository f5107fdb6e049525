// Tensors come from a thread-local list of impls that stay constructed while they wait there, so that making
// one writes only the fields that the last owner may have changed. A tensor's history is dropped in a loop: a
// node that dies may drop its saved tensors, and these the nodes behind them; inner ones queue up, so that a
// tape of any length needs no more stack than one node.
#include "tandem/core/tensor_impl.h"

#include <cstdlib>
#include <new>

#include "tandem/core/allocator.h"
#include "tandem/core/impl_block.h"
#include "tandem/core/storage_block.h"

namespace tandem::core {

namespace {

bool ignore_slot(TensorImpl*, bool) noexcept { return false; }

[[gnu::noinline]] void push_impl_slow(TensorImpl* t) noexcept {
  if (!kBypassCaches && open_cache() && cache_.impl_room > 0) {
    t->frame = cache_.impls;
    cache_.impls = t;
    --cache_.impl_room;
    return;
  }
  t->~TensorImpl();
  deallocate(t, sizeof(TensorImpl));
}

/// `t` holds no storage, history or leaf state any more.
inline void push_impl(TensorImpl* t) noexcept {
  if (kBypassCaches || cache_.impl_room <= 0) [[unlikely]]
    return push_impl_slow(t);
  t->frame = cache_.impls;
  cache_.impls = t;
  --cache_.impl_room;
}

[[gnu::noinline]] void drop_history(TensorImpl* t) noexcept {
  t->frame = cache_.dying;
  cache_.dying = t;
  if (cache_.dropping) return;
  cache_.dropping = true;
  while (TensorImpl* next = cache_.dying) {
    cache_.dying = next_impl(next);
    next->grad_fn.reset();
    next->view.reset();
    next->leaf.reset();
    push_impl(next);
  }
  cache_.dropping = false;
}

}  // namespace

TensorImpl* impl_from_system() {
  open_cache();
  return new (allocate(sizeof(TensorImpl))) TensorImpl;
}

constinit std::atomic<SlotEvent> slot_event = ignore_slot;

void release_impls() noexcept {
  while (TensorImpl* t = cache_.impls) {
    cache_.impls = next_impl(t);
    ++cache_.impl_room;
    t->~TensorImpl();
    std::free(t);
  }
}

TensorImpl* new_impl() {
  TensorImpl* t = pop_impl();
  t->sizes.resize(0);
  t->strides.resize(0);
  return t;
}

// Where the running call lends the tensor, the call's own reference and the caller's are the only two: nobody
// else can change the count, and nothing needs to be locked.
bool drop_shared(TensorImpl* t) noexcept {
  if (const void* frame = cache_.frame; frame && t->frame == frame && t->refs.get() == 2) {
    t->refs.set(1);
    return false;
  }
  return t->refs.drop();
}

void destroy(TensorImpl* t) noexcept {
  if (t->slot) [[unlikely]]
    if (slot_event.load(std::memory_order_relaxed)(t, true)) return;
  if (Storage* s = t->storage.release())
    if (s->refs.drop()) drop_storage(s);
  if (t->grad_fn || t->leaf || t->view) [[unlikely]]
    return drop_history(t);
  push_impl(t);
}

void set_layout(TensorImpl& t, const Dims& sizes, const Dims& strides) {
  t.sizes = sizes;
  t.strides = strides;
  t.numel = numel(sizes);
  t.set(kContiguous, is_contiguous(sizes, strides));
  t.home = 0;
  slot_changed(t);
}

void set_contiguous_layout(TensorImpl& t, const Dims& sizes) {
  if (&sizes == &t.sizes) return set_contiguous_layout(t, Dims(sizes));
  lay_out(t, sizes.data(), sizes.rank());
  t.numel = numel(sizes);
  t.set(kContiguous, true);
  t.home = 0;
  slot_changed(t);
}

void set_storage(TensorImpl& t, Ref<Storage> storage, int64_t offset) {
  t.storage = std::move(storage);
  t.offset = offset;
  // As numbers: beside an axis of 0 another may be so long that an offset leaves all memory.
  const uint64_t bytes = static_cast<uint64_t>(offset) * static_cast<uint64_t>(itemsize(t.dtype));
  t.data =
      t.storage ? reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(t.storage->data) + bytes) : nullptr;
  t.home = 0;
  slot_changed(t);
}

Ref<TensorImpl> make_tensor(const Dims& sizes, DType dtype, Device device) {
  int64_t count = 1;
  bool unusual = false;
  for (const int64_t size : sizes) unusual |= size <= 0 || __builtin_mul_overflow(count, size, &count);
  int64_t nbytes = 0;
  unusual |= __builtin_mul_overflow(count, itemsize(dtype), &nbytes);
  if (unusual) [[unlikely]] {
    count = checked_numel(sizes);
    nbytes = checked_mul(count, itemsize(dtype), "size in bytes");
  }
  Ref<Storage> storage = new_storage(nbytes, device);
  TensorImpl* t = pop_impl();
  t->refs.set(1);
  t->dtype = dtype;
  t->device = device;
  t->data = storage->data;
  t->numel = count;
  t->storage = std::move(storage);
  lay_out(*t, sizes.data(), sizes.rank());
  return Ref<TensorImpl>::adopt(t);
}

}  // namespace tandem::core
