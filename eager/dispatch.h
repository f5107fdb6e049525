// The way of an op: interceptor, else check, inference and the backend; then the tape. Stateless but for
// thread-local caches; any thread.
#pragma once

#include "tandem/eager/interceptor.h"
#include "tandem/eager/tensor.h"

namespace tandem::eager {

using core::Ref;
using core::TensorImpl;

/// Copies them one by one: they were often just written as single words, which a wide load would wait for.
inline void copy_words(int64_t* to, const volatile int64_t* from, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) to[i] = from[i];
}

/// Calls an op of one result.
Tensor call1(const Call& call);
/// Calls any op; `results` has room for def(op).n_out. In-place calls fill nothing.
void call_into(const Call& call, Ref<TensorImpl>* results);

/// Runs the op now, on real tensors, without interceptor and tape (the tracer's op-by-op mode uses it too).
void run_op(const Call& call, Ref<TensorImpl>* results);

/// The structural part of a call: types and words without run-time values.
struct CallTypes {
  std::vector<ops::TensorType> types;  // per operand
  std::vector<char> present;
  std::vector<int64_t> structural;  // words
  std::vector<int> run_time;        // positions of run-time attributes among call.words
};
CallTypes call_types(const Call& call);
/// The kind of the run-time number at `word` of a call's words: of a number operand's value, or of an
/// attribute.
NumberKind number_kind(const ops::OpDef& op, int n_numbers, std::span<const int64_t> words, int word);
/// Checks and infers; throws Error with the caller's line.
std::vector<ops::TensorType> infer_call(const Call& call);
/// The device of the first tensor operand; without any, the default device.
inline Device device_of(const Call& call) {
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (call.in[i]) return call.in[i]->device;
  return modes().default_device;
}
/// The layout of a view op's result over its operand's storage.
ops::Layout infer_view(const Call& call);

/// True if the tensor's strides can show `sizes` (one may be -1) without a copy.
bool viewable_by_strides(const TensorImpl& t, const Dims& sizes);
inline bool viewable(const TensorImpl& t, const Dims& sizes) {
  return t.has(core::kContiguous) || viewable_by_strides(t, sizes);
}

/// Throws if any operand is undefined (and not optional) or on another device.
void check_operands(const Call& call);
/// The same for a traced call, where pending operands are welcome.
void check_operands_of_trace(const Call& call);
/// Throws if the operands that an in-place call writes cannot be written.
void check_in_place(const Call& call);
/// Throws unless the inferred results fit the operands that an in-place call writes.
void check_in_place_types(const Call& call, const std::vector<ops::TensorType>& results);
/// Makes a pending tensor real (a read, as the interceptor sees it), and waits for copies between the host's
/// pinned memory and a device if it lies there. `pointer`: its address is handed out, so that it may be
/// written from outside.
void materialize(TensorImpl* t, Location where, bool pointer = false);
/// The same without that wait: for copies that are queued behind the others.
void make_real(TensorImpl* t, Location where, bool pointer = false);
/// The memory under `t`; null if it is still to come.
inline core::Storage* memory_of(const TensorImpl* t) {
  if (core::Storage* s = t->storage.get()) [[likely]]
    return s;
  return interceptor() ? interceptor()->memory(t) : nullptr;  // of a view, also of what detach() gave
}
void bump_pending_version(TensorImpl* t, const Location& where);
/// Moves the version of memory.
[[gnu::always_inline]] inline void bump_version(core::Storage& s, const Location& where) {
  ++s.version;
  // By member: callers have just written `where` piece by piece, for which one wide load would wait.
  s.changed_at.file = where.file;
  s.changed_at.line = where.line;
}
/// Moves the version of the memory under `t`.
[[gnu::always_inline]] inline void bump_version(TensorImpl* t, const Location& where) {
  if (core::Storage* s = t->storage.get()) [[likely]]
    bump_version(*s, where);
  else
    bump_pending_version(t, where);
}
uint32_t version_of(TensorImpl* t);
/// Where it moved last; unknown if it never did.
Location changed_at(TensorImpl* t);

}  // namespace tandem::eager
