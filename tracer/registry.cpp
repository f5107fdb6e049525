#include "tandem/tracer/registry.h"

#include <algorithm>
#include <iterator>

#include "tandem/tracer/frame.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

namespace {

/// Who binds which tensor. Cold: touched when a slot is bound, dies or changes.
template <class Who>
using Watchers = std::unordered_map<const TensorImpl*, std::vector<Who*>>;

struct AllWatchers {
  Watchers<Record> records;
  Watchers<FrozenCore> frozen;
  void mark(TensorImpl* t) { t->slot = records.contains(t) || frozen.contains(t); }
};
AllWatchers& watchers() {
  static AllWatchers* w = new AllWatchers;  // outlives tensors with static storage
  return *w;
}

void forget(Record& r, TensorImpl* t, std::vector<Ref<core::Storage>>& kept) {
  const auto slot = r.slots.find(t);
  if (slot == r.slots.end()) return;
  let_go_of_kept(r, kept, slot->second);
  r.handles[slot->second] = nullptr;
  r.slot_memory[slot->second] = nullptr;
  ++r.bindings;
  const uint32_t cell = r.infos[slot->second].cell;
  std::erase_if(r.slot_cells, [&](const auto& c) { return c.second == cell && r.cells[cell].members == 1; });
  r.slots.erase(slot);
}

/// The records that go on binding `t` after it changed or would have died: those that the running call keeps
/// it for, and those that run on another thread, which hold it and forget it when their call is over: nothing
/// can take its address.
bool tell_records(std::vector<Record*>& records, TensorImpl* t, bool dying,
                  std::vector<Ref<core::Storage>>& let_go) {
  if (dying)
    for (Record* r : records)
      if (!is_running_elsewhere(*r) && r->frame && r->frame->keep_dying_slot(t)) return true;
  bool kept = false;
  std::erase_if(records, [&](Record* r) {
    if (is_running_elsewhere(*r)) {
      r->foreign.emplace_back(t);
      r->told = true;
      kept = true;
      return false;
    }
    if (!dying && r->frame && r->slots.contains(t) && r->frame->keep_changing_slot(t)) return false;
    forget(*r, t, let_go);
    return true;
  });
  return dying && kept;
}

bool on_slot_event(TensorImpl* t, bool dying) noexcept {
  std::vector<Ref<core::Storage>> let_go;  // dropped without the lock
  const std::lock_guard lock(registry_mutex);
  AllWatchers& w = watchers();
  if (dying && !t->refs.leave()) return true;  // a frozen function gave it out, under the lock
  if (!on(Mechanism::slot_watch)) return false;
  if (const auto it = w.records.find(t); it != w.records.end()) {
    if (tell_records(it->second, t, dying, let_go)) return true;
    if (it->second.empty()) w.records.erase(it);
  }
  if (const auto it = w.frozen.find(t); it != w.frozen.end()) {
    telling.store(true);
    std::erase_if(it->second, [&](FrozenCore* f) { return !f->slot_event(t, dying) && dying; });
    telling.store(false);
    if (!it->second.empty() && dying) return true;
    if (it->second.empty()) w.frozen.erase(it);
  }
  w.mark(t);
  return false;
}

template <class Who>
void watch(Watchers<Who>& all, Who* who, TensorImpl* t) {
  core::slot_event = on_slot_event;
  std::vector<Who*>& list = all[t];
  if (std::find(list.begin(), list.end(), who) == list.end()) list.push_back(who);
  t->slot = true;
  if (t->storage) t->storage->slot = true;
}

template <class Who>
void unwatch_all(Watchers<Who>& all, Who* who) {
  for (auto it = all.begin(); it != all.end();) {
    std::erase(it->second, who);
    it = it->second.empty() ? all.erase(it) : std::next(it);
  }
}

}  // namespace

constinit std::mutex registry_mutex;
constinit std::atomic<bool> telling{false};

Forgotten forget_foreign(Record& record) {
  Forgotten out;
  AllWatchers& w = watchers();
  record.told = false;
  for (const Ref<TensorImpl>& t : record.foreign) {
    forget(record, t.get(), out.kept);
    const auto it = w.records.find(t.get());
    if (it == w.records.end()) continue;
    std::erase(it->second, &record);
    if (it->second.empty()) w.records.erase(it);
    w.mark(t.get());
  }
  out.tensors = std::exchange(record.foreign, {});
  return out;
}

namespace {
void forget_foreign(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped) {
  core.told = false;
  for (Ref<TensorImpl>& t : core.foreign) {
    core.slot_event(t.get(), true);
    unwatch_locked(&core, t.get());
    dropped.push_back(std::move(t));
  }
  core.foreign.clear();
}
}  // namespace

void start_running(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped) {
  core.runner.store(this_thread());
  if (!telling.load() && !core.told) [[likely]]
    return;
  const std::lock_guard lock(registry_mutex);
  forget_foreign(core, dropped);
}
// What another thread drops just now, having seen the call run, waits for the next one.
void stop_running(FrozenCore& core, std::vector<Ref<TensorImpl>>& dropped) {
  core.runner.store(nullptr, std::memory_order_release);
  if (!core.told) [[likely]]
    return;
  const std::lock_guard lock(registry_mutex);
  forget_foreign(core, dropped);
}

void watch_slot(Record* record, TensorImpl* t) {
  const std::lock_guard lock(registry_mutex);
  watch(watchers().records, record, t);
}
void watch_locked(FrozenCore* core, TensorImpl* t) { watch(watchers().frozen, core, t); }
void unwatch_locked(FrozenCore* core, TensorImpl* t) {
  AllWatchers& w = watchers();
  const auto it = w.frozen.find(t);
  if (it == w.frozen.end()) return;
  std::erase(it->second, core);
  if (it->second.empty()) w.frozen.erase(it);
  w.mark(t);
}
void unwatch(Record* record) {
  const std::lock_guard lock(registry_mutex);
  unwatch_all(watchers().records, record);
}
void unwatch(FrozenCore* core) {
  const std::lock_guard lock(registry_mutex);
  unwatch_all(watchers().frozen, core);
}

}  // namespace tandem::tracer
