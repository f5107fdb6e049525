#include "tandem/tracer/registry.h"

#include <algorithm>

#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

namespace {

/// Which records bind which tensor. Cold: touched when a slot is bound, dies or changes.
using Watchers = std::unordered_map<const TensorImpl*, std::vector<Record*>>;
Watchers& watchers() {
  static Watchers* w = new Watchers;  // outlives tensors with static storage
  return *w;
}

void forget(Record& r, TensorImpl* t) {
  const auto slot = r.slots.find(t);
  if (slot == r.slots.end()) return;
  r.handles[slot->second] = nullptr;
  const uint32_t cell = r.infos[slot->second].cell;
  std::erase_if(r.slot_cells, [&](const auto& c) { return c.second == cell && r.cells[cell].members == 1; });
  r.slots.erase(slot);
}

// Forgets the binding of `t` in every record, unless a running call keeps the tensor alive. A record that
// runs on another thread keeps it until that call is over, and forgets it then: nothing can take its address.
bool on_slot_event(TensorImpl* t, bool dying) noexcept {
  const std::lock_guard lock(registry_mutex);
  Watchers& w = watchers();
  const auto it = w.find(t);
  if (it == w.end() || !on(Mechanism::slot_watch)) return false;
  if (dying)
    for (Record* r : it->second)
      if (!is_running_elsewhere(*r) && r->frame && r->frame->keep_dying_slot(t)) return true;
  bool kept = false;
  std::erase_if(it->second, [&](Record* r) {
    if (is_running_elsewhere(*r)) {
      r->foreign.emplace_back(t);
      kept = true;
      return false;
    }
    if (!dying && r->frame && r->slots.contains(t) && r->frame->keep_changing_slot(t)) return false;
    forget(*r, t);
    return true;
  });
  if (!it->second.empty()) return dying && kept;
  w.erase(it);
  t->slot = false;
  return false;
}

}  // namespace

constinit std::mutex registry_mutex;

std::vector<Ref<TensorImpl>> forget_foreign(Record& record) {
  Watchers& w = watchers();
  for (const Ref<TensorImpl>& t : record.foreign) {
    forget(record, t.get());
    const auto it = w.find(t.get());
    if (it == w.end()) continue;
    std::erase(it->second, &record);
    if (!it->second.empty()) continue;
    w.erase(it);
    t->slot = false;
  }
  return std::exchange(record.foreign, {});
}

void watch_slot(Record* record, TensorImpl* t) {
  const std::lock_guard lock(registry_mutex);
  Watchers& w = watchers();
  core::slot_event = on_slot_event;
  std::vector<Record*>& list = w[t];
  if (std::find(list.begin(), list.end(), record) == list.end()) list.push_back(record);
  t->slot = true;
  if (t->storage) t->storage->slot = true;
}

void unwatch(Record* record) {
  const std::lock_guard lock(registry_mutex);
  Watchers& w = watchers();
  for (auto it = w.begin(); it != w.end();) {
    std::erase(it->second, record);
    it = it->second.empty() ? w.erase(it) : std::next(it);
  }
}

}  // namespace tandem::tracer
