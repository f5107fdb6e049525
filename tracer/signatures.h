// What a trace knows: an entry for each signature of arguments, with its record and frame. Guarded by
// registry_mutex, but for the record and frame of an entry whose call runs, which belong to that call.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tandem/tracer/explain.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/registry.h"
#include "tandem/tracer/trace.h"

namespace tandem::tracer {

// After so many calls a signature that no two calls in a row agreed on is refused with a reason.
inline constexpr int64_t kPatience = 4;

struct Recorded {
  explicit Recorded(Counters& counters) : frame(record, counters) {}
  Record record;
  Frame frame;
  uint64_t hash = 0;
  int64_t last_call = 0;
  int64_t bytes = 0, grown = -1;  // of the record, when `growth` was `grown`
  bool settled = false;           // enough calls were observed to freeze it
  // Under Replay::frozen: what was observed last is frozen; and the calls before it was observed anew.
  bool frozen = false;
  int64_t observed_from = 0;
  bool impatient() const { return record.calls - observed_from >= kPatience; }
  void observe_again() { settled = frozen = false, observed_from = record.calls; }
  int64_t growth() const { return record.recordings + record.plans_built; }
};

class Trace {
  static constexpr size_t kExplained = 64;  // signatures that a new one is compared with

 public:
  Trace(TraceOptions o, Location where) : options(std::move(o)), made_at(where) {}

  /// What a look-up found, and what is left to do without the lock.
  struct Found {
    Recorded* entry = nullptr;  // null: the call is refused, or must run eagerly
    bool refused = false, aliased = false;
    std::unique_ptr<Recorded> wrong;  // one that this call cannot use any more
    Forgotten dropped;
    size_t signatures = 0;
    std::vector<Signature> known;  // to explain a new one by
  };
  /// The entry of the latest call, if this one can have it, too. Under the lock.
  Recorded* take_latest(std::span<const Tensor> arguments);
  /// The entry for these arguments that no call runs on, made if there is none; taken. Null if the call must
  /// run eagerly. Without the lock.
  Recorded* look_up(std::span<const Tensor> arguments, const ArgumentNames& names);
  Found find(std::span<const Tensor> arguments);
  /// Writes the log and throws, as `found` asks. Without the lock.
  void tell(const Found& found, std::span<const Tensor> arguments, const ArgumentNames& names);
  /// A call is over: others may run on its entry. If that grew, forgets the entries that were not used for
  /// the longest time, until the others fit.
  /// If it has made values to keep, the entries that no call runs on let go of theirs.
  /// `settled`: the record can be frozen.
  void finished(Recorded& called, bool settled);

  TraceOptions options;
  Location made_at;
  Counters counters;
  std::vector<std::unique_ptr<Recorded>> entries;
  std::unordered_multimap<uint64_t, Recorded*> by_hash;  // of the arguments' types
  Recorded* latest = nullptr;
  int64_t bytes = 0, forgotten = 0;
  mutable std::mutex frozen_mutex;     // taken before registry_mutex
  std::shared_ptr<FrozenCore> frozen;  // of Replay::frozen, under that mutex

  /// `known`: set if there is an entry, even if a call runs on it.
  Recorded* matching(std::span<const Tensor> arguments, uint64_t modes_now, uint64_t* hash,
                     bool* known) const;

 private:
  bool fits(const Recorded& e, std::span<const Tensor> arguments, uint64_t modes_now) const;
  bool aliases_slot(const Record& r, std::span<const Tensor> arguments) const;
  std::unique_ptr<Recorded> take_out(Recorded& e);
  std::atomic<bool> warned_alias_ = false;
};

}  // namespace tandem::tracer
