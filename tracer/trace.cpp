// A trace: its records by signature of the arguments, and the scope of a call.
#include "tandem/tracer/trace.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "tandem/core/log.h"
#include "tandem/eager/scalars.h"
#include "tandem/tracer/explain.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/inspect.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/registry.h"
#include "tandem/tracer/shadow.h"
#include "tandem/tracer/slots.h"

namespace tandem::tracer {

// After so many calls a signature that no two calls in a row agreed on is refused with a reason.
constexpr int64_t kPatience = 4;

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

/// All of it is guarded by registry_mutex, but for the record and frame of an entry whose call runs.
class Trace {
  static constexpr size_t kExplained = 64;  // signatures that a new one is compared with

 public:
  Trace(TraceOptions o, Location where) : options(std::move(o)), made_at(where) {}

  /// What a look-up found, and what is left to do without the lock.
  struct Found {
    Recorded* entry = nullptr;  // null: the call is refused, or must run eagerly
    bool refused = false, aliased = false;
    std::unique_ptr<Recorded> wrong;  // one that this call cannot use any more
    std::vector<Ref<TensorImpl>> dropped;
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

// Compared field by field without building an ArgumentType: this runs on every call.
bool argument_matches(const ArgumentType& a, std::span<const Tensor> arguments, size_t i) {
  const TensorImpl* t = arguments[i].impl();
  if (!(a.sizes == t->sizes) && on(Mechanism::argument_sizes)) return false;
  if ((a.dtype != t->dtype || !(a.device == t->device) || !(a.strides == t->strides) ||
       a.requires_grad != t->has(core::kRequiresGrad) || a.leaf != (t->grad_fn == nullptr)) &&
      on(Mechanism::argument_types))
    return false;
  for (int k = 0; k < static_cast<int>(i) && on(Mechanism::argument_aliasing); ++k) {
    const auto n = static_cast<size_t>(k);
    const TensorImpl* other = arguments[n].impl();
    if ((other == t) != (a.same_as == k) && !(other == t && a.same_as >= 0 && a.same_as < k)) return false;
    if ((other->storage == t->storage) != (a.shares == k) &&
        !(other->storage == t->storage && a.shares >= 0 && a.shares < k))
      return false;
  }
  return true;
}

namespace {

// The types of arguments as a number; which of them share memory is left to the comparison.
uint64_t hash_of(std::span<const Tensor> arguments) {
  uint64_t h = arguments.size();
  const auto mix = [&h](uint64_t v) { h = (h ^ v) * 0x9E3779B97F4A7C15u, h ^= h >> 29; };
  for (const Tensor& a : arguments) {
    const TensorImpl* t = a.impl();
    mix(static_cast<uint64_t>(t->dtype) << 8 | static_cast<uint64_t>(t->sizes.rank()));
    if (!on(Mechanism::argument_sizes)) continue;
    for (const int64_t size : t->sizes) mix(static_cast<uint64_t>(size));
  }
  return on(Mechanism::argument_types) ? h : 0;
}

}  // namespace

bool Trace::aliases_slot(const Record& r, std::span<const Tensor> arguments) const {
  for (const Tensor& a : arguments)
    if (const TensorImpl* t = a.impl();
        t->storage->slot && on(Mechanism::captured_aliasing) && r.slot_cells.contains(t->storage.get()))
      return true;
  return false;
}

bool Trace::fits(const Recorded& e, std::span<const Tensor> arguments, uint64_t modes_now) const {
  const Record& r = e.record;
  if (r.key.size() != arguments.size() || (r.modes_at_entry != modes_now && on(Mechanism::entry_modes)))
    return false;
  for (size_t i = 0; i < arguments.size(); ++i)
    if (!argument_matches(r.key[i], arguments, i)) return false;
  return true;
}

Recorded* Trace::take_latest(std::span<const Tensor> arguments) {
  if (!latest || !fits(*latest, arguments, modes_word(modes())) || is_running(latest->record) ||
      latest->record.aliased || latest->record.told || aliases_slot(latest->record, arguments)) [[unlikely]]
    return nullptr;
  latest->last_call = counters.calls;
  start_running(latest->record);
  return latest;
}

[[gnu::noinline]] Recorded* Trace::look_up(std::span<const Tensor> arguments, const ArgumentNames& names) {
  Found found;
  {
    const std::lock_guard lock(registry_mutex);
    found = find(arguments);
  }
  try {
    tell(found, arguments, names);
  } catch (...) {
    if (found.entry) stop_running(found.entry->record);
    throw;
  }
  return found.entry;
}

Recorded* Trace::matching(std::span<const Tensor> arguments, uint64_t modes_now, uint64_t* hash,
                          bool* known) const {
  if (latest && fits(*latest, arguments, modes_now)) {
    if (!is_running(latest->record)) [[likely]]
      return latest;
    *known = true;
  }
  *hash = hash_of(arguments);
  const auto [begin, end] = by_hash.equal_range(*hash);
  for (auto it = begin; it != end; ++it) {
    if (!fits(*it->second, arguments, modes_now)) continue;
    *known = true;
    if (!is_running(it->second->record)) return it->second;
  }
  return nullptr;
}

void Trace::tell(const Found& found, std::span<const Tensor> arguments, const ArgumentNames& names) {
  if (found.aliased) {
    const std::string what = "an argument shares memory with a tensor that the function captured";
    if (options.require_full_capture)
      fail(options.name + ": require_full_capture: " + what + ", so that the call would run eagerly",
           made_at);
    if (!warned_alias_.exchange(true))
      core::log(core::LogArea::trace, core::LogLevel::warn,
                options.name + ": " + what + "; such calls run eagerly");
  }
  if (!found.refused && found.known.empty()) return;
  Signature now;
  now.modes = modes_word(modes());
  for (size_t i = 0; i < arguments.size(); ++i) now.key.push_back(argument_type(arguments, i));
  std::string text = "the first call";
  size_t fewest = SIZE_MAX;
  for (const Signature& known : found.known) {
    const auto [n, what] = compare_signatures(known, now, names, fewest);
    if (n < fewest) fewest = n, text = what;
  }
  if (found.refused)
    fail(options.name + ": max_traces = " + std::to_string(options.max_traces) +
             " allows no new signature of arguments: " + text,
         made_at);
  text = "a new signature of arguments (" + std::to_string(found.signatures) + " are known): " + text;
  counters.misses.add(text);
  if (core::log_enabled(core::LogArea::trace, core::LogLevel::debug))
    core::log(core::LogArea::trace, core::LogLevel::debug, options.name + ": " + text);
}

std::unique_ptr<Recorded> Trace::take_out(Recorded& e) {
  bytes -= e.bytes;
  if (&e == latest) latest = nullptr;
  const auto [begin, end] = by_hash.equal_range(e.hash);
  by_hash.erase(std::find_if(begin, end, [&](const auto& known) { return known.second == &e; }));
  const auto at = std::find_if(entries.begin(), entries.end(), [&](const auto& o) { return o.get() == &e; });
  std::unique_ptr<Recorded> out = std::move(*at);
  entries.erase(at);
  return out;
}

void Trace::finished(Recorded& called, bool settled) {
  called.settled |= settled;
  const bool grown = called.grown != called.growth() && on(Mechanism::byte_bound);
  if (!grown && !called.record.told) [[likely]]
    return stop_running(called.record);
  std::vector<std::unique_ptr<Recorded>> old;  // dropped without the lock, as these are
  std::vector<Ref<TensorImpl>> dropped;
  bool first = false;
  {
    const std::lock_guard lock(registry_mutex);
    const auto forget = [&](Recorded& e) {
      old.push_back(take_out(e));
      first |= forgotten++ == 0;
    };
    dropped = forget_foreign(called.record);
    if (grown) {
      called.settled = settled;
      called.grown = called.growth();
      bytes -= called.bytes;
      called.bytes = record_bytes(called.record);
      bytes += called.bytes;
      while (bytes > options.max_bytes && entries.size() > 1) {
        Recorded* oldest = nullptr;
        for (const auto& e : entries)
          if (e.get() != &called && !is_running(e->record) && (!oldest || e->last_call < oldest->last_call))
            oldest = e.get();
        if (!oldest) break;
        forget(*oldest);
      }
      // One signature with many branches begins anew; a single path stays, however long it is.
      if (bytes > options.max_bytes && entries.size() == 1 && called.record.branches.size() > 1)
        forget(called);
    }
    stop_running(called.record);
  }
  if (first)
    core::log(core::LogArea::trace, core::LogLevel::info,
              options.name + ": signatures that were not used for long are forgotten (max_bytes)");
}

Trace::Found Trace::find(std::span<const Tensor> arguments) {
  const uint64_t modes_word_now = modes_word(modes());
  Found found;
  uint64_t hash = 0;
  bool known = false;
  Recorded* e = matching(arguments, modes_word_now, &hash, &known);
  const bool twin = known && !e;
  const auto take = [&](Recorded* entry) {
    latest = found.entry = entry;
    entry->last_call = counters.calls;
    start_running(entry->record);
  };
  if (e && aliases_slot(e->record, arguments)) {
    found.aliased = true;
    ++counters.eager_calls;
    return found;
  }
  if (e && !e->record.aliased) [[likely]] {
    take(e);
    if (!e->record.foreign.empty()) [[unlikely]]
      found.dropped = forget_foreign(e->record);
    return found;
  }
  if (e) {
    // What was recorded takes an argument and a captured tensor for one memory, and now they are two.
    hash = e->hash;
    found.wrong = take_out(*e);
  } else if (!known) {
    found.refused = counters.traces >= options.max_traces;
    // The latest are the likeliest to be near; a trace may know thousands.
    for (size_t i = entries.size() - std::min(entries.size(), kExplained); i < entries.size(); ++i)
      found.known.push_back({entries[i]->record.key, entries[i]->record.modes_at_entry});
    found.signatures = entries.size();
    if (found.refused) return found;
  }
  auto entry = std::make_unique<Recorded>(counters);
  entry->hash = hash;
  Record& r = entry->record;
  r.twin = twin;
  r.modes_at_entry = modes_word_now;
  r.compile = options.compile;
  r.options = &options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    r.key.push_back(argument_type(arguments, i));
    const ArgumentType& a = r.key.back();
    if (a.same_as >= 0) {
      r.arguments.push_back(r.arguments[static_cast<size_t>(a.same_as)]);
      continue;
    }
    uint32_t cell = 0;
    if (a.shares >= 0) {
      cell = r.infos[r.arguments[static_cast<size_t>(a.shares)]].cell;
      ++r.cells[cell].members;
    } else {
      cell = static_cast<uint32_t>(r.cells.size());
      r.cells.push_back({.root = static_cast<uint32_t>(r.handles.size()), .members = 1, .external = true});
    }
    r.arguments.push_back(static_cast<uint32_t>(r.handles.size()));
    r.handles.push_back(arguments[i].impl());
    r.infos.push_back(info_of(arguments[i].impl(), HandleInfo::Kind::argument, cell));
  }
  entries.push_back(std::move(entry));
  by_hash.emplace(hash, entries.back().get());
  take(entries.back().get());
  return found;
}

namespace {

bool wants_verify(const TraceOptions& o, const Record& r) {
  if (o.verify <= 0) return o.verify < 0;
  return std::any_of(r.branches.begin(), r.branches.end(),
                     [&](const auto& b) { return b->verified < o.verify; });
}

}  // namespace

CallScope::CallScope(Trace& trace, std::span<Tensor> arguments, ArgumentNames names, bool check)
    : trace_(trace), span_("call", trace.options.name, {}) {
  for (const Tensor& t : arguments)
    if (t.checked({}).has(core::kPending))
      fail(trace.options.name + ": an argument is a pending tensor of a traced call on another thread");
  Recorded* entry = nullptr;
  {
    const std::lock_guard lock(registry_mutex);
    entry = trace.take_latest(arguments);
  }
  if (!entry) entry = trace.look_up(arguments, names);
  if (!entry) return;
  try {
    entry->frame.begin(arguments, names);
    const TraceOptions& o = trace.options;
    if (o.debug && !check)
      shadow_ = std::make_unique<Shadow>(entry->frame, Shadow::Mode::debug, o.name);
    else if (check || (o.verify && wants_verify(o, entry->record)))
      shadow_ = std::make_unique<Shadow>(entry->frame, Shadow::Mode::verify, o.name);
  } catch (...) {
    stop_running(entry->record);
    throw;
  }
  entry_ = entry;
  observed_ = !entry->settled;
  outer_ = eager::interceptor_;
  eager::interceptor_ = shadow_ ? static_cast<eager::Interceptor*>(shadow_.get()) : &entry->frame;
}

void CallScope::observe(const CallTypes& types) {
  if (entry_ && !shadow_) entry_->frame.observe_begin(types);
}

void CallScope::observe_results(std::span<core::TensorImpl* const> results, Prototype prototype,
                                const char* refused) {
  if (!entry_ || shadow_) return;
  entry_->frame.observe_results(results, refused);
  entry_->frame.keep_prototype(std::move(prototype));
}

void CallScope::finish() {
  if (!entry_) return;
  if (observed_) return finish_observed();
  entry_->frame.end();
  leave(false);
}

void CallScope::finish_observed() {
  observed_ = !shadow_;  // what runs on copies besides is not as later calls are
  Frame& frame = entry_->frame;
  if (observed_) frame.observe_end();
  frame.end();
  leave(observed_ && frame.observed(entry_->growth()));
}

void CallScope::leave(bool settled) {
  if (shadow_) {
    shadow_->finish();
    shadow_.reset();
  }
  eager::interceptor_ = outer_;
  if (!outer_) eager::publish_scalars();
  trace_.finished(*std::exchange(entry_, nullptr), settled);
}

CallScope::~CallScope() {
  if (!entry_) return;
  entry_->frame.abandon();
  entry_->settled = false;
  shadow_.reset();
  leave(false);
}

void fail_circular() {
  fail(
      "trace: an argument points to itself, or to a chain of more than 1,000 objects; give its class "
      "tensors_of");
}

bool inside_call() { return eager::interceptor() != nullptr && on(Mechanism::inline_traces); }

std::shared_ptr<Trace> make_trace(TraceOptions options, Location where) {
  return std::make_shared<Trace>(std::move(options), where);
}

namespace {

/// Entries that no call may take while one lives, as if one ran on them.
class Hold {
 public:
  /// Under the lock.
  void add(Recorded& e) {
    start_running(e.record);
    held.push_back(&e);
  }
  ~Hold() {
    for (Recorded* e : held) stop_running(e->record);
  }
  std::vector<Recorded*> held;
};

}  // namespace

std::shared_ptr<FrozenCore> freeze(Trace& trace, Location where) {
  const std::lock_guard freezing(trace.frozen_mutex);
  auto core = std::make_shared<FrozenCore>(trace.options.name, where, trace.options.compile);
  Hold hold;
  {
    const std::lock_guard lock(registry_mutex);
    const auto is_original = [&](const Recorded& e, const auto& other) {
      return !other->record.twin && other->record.key == e.record.key &&
             other->record.modes_at_entry == e.record.modes_at_entry;
    };
    for (const auto& e : trace.entries) {
      if (e->record.twin && std::any_of(trace.entries.begin(), trace.entries.end(),
                                        [&](const auto& other) { return is_original(*e, other); }))
        continue;
      if (is_running(e->record)) fail(core->name + ": freeze: a call of the function is running", where);
      hold.add(*e);
    }
  }
  const auto settled = [](const Recorded* e) { return e->settled; };
  const bool any = std::any_of(hold.held.begin(), hold.held.end(), settled);
  if (hold.held.empty())
    fail(core->name + ": freeze: nothing was recorded; call the function at least twice first", where);
  // What was called too few times yet is left out, if anything else is there; what can never be frozen is
  // not.
  for (Recorded* e : hold.held)
    if (e->settled || !any || e->record.calls >= kPatience) {
      try {
        core->add(e->record);
      } catch (...) {
        e->observe_again();  // what was observed may be out of date
        throw;
      }
    }
  return core;
}

FrozenCore* frozen_core(Trace& trace, std::span<const Tensor> arguments, const CallTypes* types) {
  for (const Tensor& t : arguments)
    if (t.checked({}).has(core::kPending)) return nullptr;
  const std::lock_guard freezing(trace.frozen_mutex);
  if (!trace.frozen)
    trace.frozen = std::make_shared<FrozenCore>(trace.options.name, trace.made_at, trace.options.compile);
  if (types && trace.frozen->find(arguments, types)) return trace.frozen.get();
  Hold hold;
  {
    const std::lock_guard lock(registry_mutex);
    uint64_t hash = 0;
    bool known = false;
    Recorded* e = trace.matching(arguments, modes_word(modes()), &hash, &known);
    if (!e || (!e->settled && !e->impatient())) return nullptr;
    hold.add(*e);
  }
  Recorded& e = *hold.held[0];
  bool again = false;
  try {
    if (!e.frozen) trace.frozen->add(e.record, &again);
    e.frozen = true;
  } catch (...) {
    if (again) e.observe_again();
    throw;
  }
  if (types && trace.frozen->find(arguments, types)) return trace.frozen.get();
  e.observe_again();  // of the same tensors, in other types or vectors of other lengths
  return nullptr;
}

void fail_frozen_reference(const Trace& trace) {
  fail(
      trace.options.name +
          ": Replay::frozen: the body returns a reference, and does not run in a frozen call; return a value",
      trace.made_at);
}

Inspected inspect(const Trace& trace) {
  std::unique_lock frozen_lock(trace.frozen_mutex);
  std::unique_lock lock(registry_mutex);
  Inspected out{std::move(frozen_lock),
                std::move(lock),
                trace.options,
                trace.counters,
                trace.bytes,
                trace.forgotten,
                {},
                trace.frozen.get()};
  for (const auto& e : trace.entries)
    if (!is_running_elsewhere(e->record)) out.records.push_back(&e->record);
  return out;
}

namespace {
template <class F>
std::string for_plans(const Trace& trace, F&& text) {
  std::string out;
  const Inspected seen = inspect(trace);
  for (const Record* r : seen.records)
    for (const SegmentEnd& s : r->segments)
      if (s.plan) out += text(*s.plan) + "\n";
  return out;
}
}  // namespace

std::string graph_text(const Trace& trace) {
  return for_plans(trace, [](const Plan& p) { return p.graph; });
}
std::string code_text(const Trace& trace) {
  return for_plans(trace,
                   [](const Plan& p) { return p.executable->plan_text() + "\n" + p.executable->code(); });
}

}  // namespace tandem::tracer
