// Taking a TensorImpl from the thread's free list and laying it out, inlined where many are made: core/, the
// tracer and eager's shortest calls. Any thread.
#pragma once

#include <algorithm>

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

/// Contiguous sizes and strides alone. Copies elements one by one: sizes were often just written as single
/// words, which a wide load would wait for.
inline void lay_out(TensorImpl& t, const int64_t* sizes, int rank) {
  t.sizes.resize(rank);
  t.strides.resize(rank);
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    const int64_t size = sizes[i];
    t.sizes[i] = size;
    t.strides[i] = step;
    step *= std::max<int64_t>(size, 1);
  }
}

}  // namespace tandem::core
