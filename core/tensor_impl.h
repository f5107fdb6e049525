// What a tensor is, as data only: a typed, strided view of a storage, its place on the tape, and, while a
// trace is recording or replaying, its place there (a *pending* tensor has no storage yet). Shared through
// Ref. The count is safe on any thread; everything else belongs to whoever may write the tensor, but for what
// a view learns from its base when it is read (eager/views.h).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tandem/core/dims.h"
#include "tandem/core/dtype.h"
#include "tandem/core/relaxed.h"
#include "tandem/core/storage.h"

namespace tandem::core {

struct TensorImpl;

/// A node of the tape, as far as core knows it (eager/tape.h has the rest).
struct TapeNode {
  RefCount refs;
  void (*destroy)(TapeNode*) = nullptr;
};
inline void destroy(TapeNode* n) { n->destroy(n); }

/// What only few tensors have: a gradient, hooks, a name. Made on first use, owned by its tensor.
struct LeafState {
  virtual ~LeafState() = default;
};

enum TensorFlag : uint16_t {
  kRequiresGrad = 1,  // leaf that wants a gradient, or result of an op that notes one
  kContiguous = 2,    // row-major without gaps
  kPending = 8,       // no storage yet: a value of the running traced call
  kTraceOwned = 16,   // made by a trace (pending now, or once)
  kNumber = 32,       // holds a number operand, which does not count as a tensor in promotion
  kView = 64,         // shows its parent's memory and follows its history (eager/views.h)
  kBlindView = 128,   // a view made under NoGrad, which follows no history
};

struct alignas(64) TensorImpl {
  // One cache line: all that a replayed call looks at.
  RefCount refs;
  DType dtype = DType::float32;
  Device device;
  Relaxed<bool> slot = false;  // some trace compares this tensor's address: `slot_event` is told of changes
  Relaxed<uint16_t> flags = kContiguous;
  Published<uint32_t> history = 0;  // moves when grad_fn stands for something else; a view has its base's
  void* data = nullptr;             // storage->data + offset * itemsize; null while pending
  Ref<Storage> storage;
  Ref<TapeNode> grad_fn;           // null for leaves
  Relaxed<void*> frame = nullptr;  // the traced call that lends this tensor, and holds it itself (tracer/)
  std::unique_ptr<LeafState> leaf;
  Ref<TapeNode> view;  // of a real kView: its parent, its base, and the view op
  // The rest.
  int32_t handle = -1;       // its index in `frame`
  int32_t output_index = 0;  // which result of `grad_fn`
  uint64_t home = 0;         // names the frame that lent it last, while its type is as it was then; 0: none
  int64_t numel = 0;
  int64_t offset = 0;  // elements
  Dims sizes, strides;

  bool has(TensorFlag f) const { return (flags & f) != 0; }
  void set(TensorFlag f, bool on) { flags = static_cast<uint16_t>(on ? flags | f : flags & ~f); }
  int64_t nbytes() const { return numel * itemsize(dtype); }
};
static_assert(offsetof(TensorImpl, handle) == 64);

/// One of several references.
bool drop_shared(TensorImpl* t) noexcept;
inline bool drop_reference(TensorImpl* t) { return t->refs.get() == 1 || drop_shared(t); }

/// A fresh impl from the free list: no storage, sizes or flags but kContiguous; count 0.
TensorImpl* new_impl();
void destroy(TensorImpl* t) noexcept;
/// Sets sizes, strides, numel and kContiguous. `sizes` were checked.
void set_layout(TensorImpl& t, const Dims& sizes, const Dims& strides);
void set_contiguous_layout(TensorImpl& t, const Dims& sizes);
/// Points `t` at `storage`, `offset` elements in.
void set_storage(TensorImpl& t, Ref<Storage> storage, int64_t offset = 0);
/// Owned, uninitialised, contiguous.
Ref<TensorImpl> make_tensor(const Dims& sizes, DType dtype, Device device = cpu);

/// Told when a tensor marked as `slot` dies or changes metadata, storage or requires_grad. The tracer sets
/// it. `dying`: its last owner gives it up, whose count the callee takes (RefCount::leave); true if the
/// tensor lives on, because the callee holds it now, or somebody else.
using SlotEvent = bool (*)(TensorImpl* t, bool dying) noexcept;
extern std::atomic<SlotEvent> slot_event;
inline void slot_changed(TensorImpl& t) {
  if (t.slot) [[unlikely]]
    slot_event.load(std::memory_order_relaxed)(&t, false);
}

}  // namespace tandem::core
