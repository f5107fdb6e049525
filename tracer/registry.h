// Who is called and who binds what, over all traces: the tracer's one lock guards which records run on which
// thread, the signatures of each trace, and which records compare the address of which tensor. It is held for
// look-ups only: no body, compiler or destructor of a tensor runs under it.
#pragma once

#include <mutex>

#include "tandem/tracer/record.h"

namespace tandem::tracer {

class FrozenCore;

extern constinit std::mutex registry_mutex;

/// A number of this thread.
inline const void* this_thread() { return &eager::interceptor_; }
/// A call of `record` starts on this thread, under the lock.
inline void start_running(Record& record) { record.runner.store(this_thread(), std::memory_order_relaxed); }
/// It is over. Without the lock.
inline void stop_running(Record& record) { record.runner.store(nullptr, std::memory_order_release); }
/// True if a call of it runs, under the lock.
inline bool is_running(const Record& record) { return record.runner.load(std::memory_order_acquire); }
/// True if another thread runs a call of this record or frozen function.
template <class Called>
bool is_running_elsewhere(const Called& called) {
  const void* runner = called.runner.load();
  return runner && runner != this_thread();
}
/// True while frozen functions are told of a tensor, under the lock. Who starts a call says so first and
/// looks here then; who tells looks for running calls when this is set: one of the two sees the other.
extern constinit std::atomic<bool> telling;
/// The same for a frozen function, without the lock; the tensors that other threads dropped during its calls
/// go to `dropped`, to be dropped without any.
void start_running(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped);
void stop_running(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped);
/// What a record has let go of, to be dropped without the lock.
struct Forgotten {
  std::vector<Ref<TensorImpl>> tensors;
  std::vector<Ref<core::Storage>> kept;  // what its plans had made of them
};
/// The tensors that other threads changed or dropped while its last call ran: forgotten now, under the lock.
Forgotten forget_foreign(Record& record);

/// The record is told when the tensor, which one of its slots binds, dies or changes (core::slot_event).
void watch_slot(Record* record, TensorImpl* t);
void unwatch(Record* record);
/// The same for a tensor that a frozen function captured, under the lock.
void watch_locked(FrozenCore* core, TensorImpl* t);
void unwatch_locked(FrozenCore* core, TensorImpl* t);
void unwatch(FrozenCore* core);

}  // namespace tandem::tracer
