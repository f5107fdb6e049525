// Taking a TensorImpl from the thread's free list, inlined where many are made: core/ and the tracer. Any
// thread.
#pragma once

#include "tandem/core/free_lists.h"
#include "tandem/core/tensor_impl.h"

namespace tandem::core {

TensorImpl* impl_from_system();

/// The one behind `t` in a list.
inline TensorImpl* next_impl(const TensorImpl* t) {
  void* next = t->frame;
  return static_cast<TensorImpl*>(next);
}

/// An impl of the list, null if there is none. What pop_impl sets besides is left over.
inline TensorImpl* try_pop_impl() {
  TensorImpl* t = cache_.impls;
  if (kBypassCaches || t == nullptr) [[unlikely]]
    return nullptr;
  cache_.impls = next_impl(t);
  ++cache_.impl_room;
  t->device = cpu;
  t->slot = false;
  t->output_index = 0;
  t->history = 0;
  t->data = nullptr;
  return t;
}

/// An impl whose sizes and strides are left over; everything else is as new_impl says.
inline TensorImpl* pop_impl() {
  TensorImpl* t = try_pop_impl();
  if (t == nullptr) [[unlikely]]
    return impl_from_system();
  t->refs.set(0);
  t->dtype = DType::float32;
  t->flags = kContiguous;
  t->numel = 0;
  t->offset = 0;
  t->frame = nullptr;
  t->handle = -1;
  t->home = 0;
  return t;
}

}  // namespace tandem::core
