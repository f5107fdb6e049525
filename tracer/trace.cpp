// The scope of a call, freezing, and what a trace shows of itself.
#include "tandem/tracer/trace.h"

#include <algorithm>
#include <utility>

#include "tandem/core/free_lists.h"
#include "tandem/eager/scalars.h"
#include "tandem/tracer/inspect.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/registry.h"
#include "tandem/tracer/shadow.h"
#include "tandem/tracer/signatures.h"

namespace tandem::tracer {

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
  outer_frame_ = std::exchange(core::cache_.frame, &entry->frame);
  eager::interceptor_ = shadow_ ? static_cast<eager::Interceptor*>(shadow_.get()) : &entry->frame;
}

void CallScope::observe(const std::optional<CallTypes>& types) {
  if (!entry_ || shadow_) return;
  tensors_alone_ = types.has_value();
  entry_->frame.observe_begin(types.value_or(CallTypes()));
}

void CallScope::observe_results(std::span<core::TensorImpl* const> results, Prototype prototype) {
  if (entry_ && !shadow_) entry_->frame.observe_results(results, std::move(prototype));
}

void CallScope::observe_other_result() {
  if (entry_ && !shadow_) entry_->frame.refuse_freezing("the result holds something that is not a tensor");
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
  if (!tensors_alone_ && observed_)
    frame.refuse_freezing(
        "an argument is not made of tensors alone, and a frozen call cannot follow numbers, modules or other "
        "host values; capture what never changes");
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
  core::cache_.frame = outer_frame_;
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
  auto core = std::make_shared<FrozenCore>(trace.options.name, where, trace.options.compile,
                                           trace.options.max_kept_bytes);
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

FrozenCore* frozen_core(Trace& trace, std::span<const Tensor> arguments,
                        const std::optional<CallTypes>& types) {
  for (const Tensor& t : arguments)
    if (t.checked({}).has(core::kPending)) return nullptr;
  const std::lock_guard freezing(trace.frozen_mutex);
  if (!trace.frozen)
    trace.frozen = std::make_shared<FrozenCore>(trace.options.name, trace.made_at, trace.options.compile,
                                                trace.options.max_kept_bytes);
  if (types && trace.frozen->find(arguments, &*types)) return trace.frozen.get();
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
  if (types && trace.frozen->find(arguments, &*types)) return trace.frozen.get();
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
  return for_plans(trace, [](const Plan& p) { return jit::to_string(p.graph); });
}
std::string code_text(const Trace& trace) {
  return for_plans(trace, [](const Plan& p) {
    std::string out = p.executable->plan_text() + "\n" + p.executable->code();
    if (p.keeper && p.keeper->kept())
      out += "\n" + p.keeper->kept()->plan_text() + "\n" + p.keeper->kept()->code();
    return out;
  });
}

}  // namespace tandem::tracer
