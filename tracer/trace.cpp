// A trace: its records by signature of the arguments, and the scope of a call.
#include "tandem/tracer/trace.h"

#include <algorithm>
#include <mutex>

#include "tandem/core/log.h"
#include "tandem/tracer/explain.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/inspect.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/shadow.h"
#include "tandem/tracer/slots.h"

namespace tandem::tracer {

class Trace {
 public:
  Trace(TraceOptions o, Location where) : options(std::move(o)), made_at(where) {}

  struct Entry {
    explicit Entry(Counters& counters) : frame(record, counters) {}
    Record record;
    Frame frame;
    int64_t last_call = 0;
    int64_t bytes = 0, grown = -1;  // of the record, when `growth` was `grown`
    int64_t growth() const { return record.recordings + record.plans_built; }
  };
  /// The entry for these arguments, made if there is none; null if the call must run eagerly.
  Entry* find(std::span<const Tensor> arguments, const ArgumentNames& names);
  /// After a call of `latest`: forgets the entries that were not used for the longest time, until the others
  /// fit.
  void bound();

  TraceOptions options;
  Location made_at;
  std::mutex mutex;
  Counters counters;
  std::vector<std::unique_ptr<Entry>> entries;
  Entry* latest = nullptr;
  int64_t bytes = 0, forgotten = 0;

 private:
  Entry* matching(std::span<const Tensor> arguments, uint64_t modes_now) const;
  void explain(std::span<const Tensor> arguments, uint64_t modes_now, const ArgumentNames& names) const;
  bool aliases_slot(const Record& r, std::span<const Tensor> arguments) const;
  bool warned_alias_ = false;
};

namespace {

// Compared field by field without building an ArgumentType: this runs on every call.
bool matches(const ArgumentType& a, std::span<const Tensor> arguments, size_t i) {
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

}  // namespace

bool Trace::aliases_slot(const Record& r, std::span<const Tensor> arguments) const {
  for (const Tensor& a : arguments)
    if (const TensorImpl* t = a.impl();
        t->storage->slot && on(Mechanism::captured_aliasing) && r.slot_cells.contains(t->storage.get()))
      return true;
  return false;
}

Trace::Entry* Trace::matching(std::span<const Tensor> arguments, uint64_t modes_now) const {
  const auto fits = [&](const Entry& e) {
    const Record& r = e.record;
    if (r.key.size() != arguments.size() || r.modes_at_entry != modes_now) return false;
    for (size_t i = 0; i < arguments.size(); ++i)
      if (!matches(r.key[i], arguments, i)) return false;
    return true;
  };
  if (latest && fits(*latest)) return latest;
  for (const std::unique_ptr<Entry>& e : entries)
    if (fits(*e)) return e.get();
  return nullptr;
}

// A new signature: written to the log, or refused.
void Trace::explain(std::span<const Tensor> arguments, uint64_t modes_now, const ArgumentNames& names) const {
  const bool refused = counters.traces >= options.max_traces;
  const bool logged = core::log_enabled(core::LogArea::trace, core::LogLevel::debug) && !entries.empty();
  if (!refused && !logged) return;
  Signature now{.modes = modes_now};
  for (size_t i = 0; i < arguments.size(); ++i) now.key.push_back(argument_type(arguments, i));
  std::string text = "the first call";
  size_t fewest = SIZE_MAX;
  for (const std::unique_ptr<Entry>& e : entries) {
    const auto [n, what] = compare_signatures({e->record.key, e->record.modes_at_entry}, now, names, fewest);
    if (n < fewest) fewest = n, text = what;
  }
  if (refused)
    fail(options.name + ": max_traces = " + std::to_string(options.max_traces) +
             " allows no new signature of arguments: " + text,
         made_at);
  core::log(core::LogArea::trace, core::LogLevel::debug,
            options.name + ": a new signature of arguments (" + std::to_string(entries.size()) +
                " are known): " + text);
}

void Trace::bound() {
  if (!latest || latest->grown == latest->growth()) return;
  latest->grown = latest->growth();
  bytes -= latest->bytes;
  latest->bytes = record_bytes(latest->record);
  bytes += latest->bytes;
  const auto forget = [&](size_t i) {
    bytes -= entries[i]->bytes;
    if (entries[i].get() == latest) latest = nullptr;
    entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(i));
    if (forgotten++ == 0)
      core::log(core::LogArea::trace, core::LogLevel::info,
                options.name + ": signatures that were not used for long are forgotten (max_bytes)");
  };
  while (bytes > options.max_bytes && entries.size() > 1) {
    const auto oldest = std::min_element(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return a->last_call < b->last_call;
    });
    if (oldest->get() == latest) break;
    forget(static_cast<size_t>(oldest - entries.begin()));
  }
  // One signature with many branches begins anew; a single path stays, however long it is.
  if (bytes > options.max_bytes && entries.size() == 1 && latest->record.branches.size() > 1) forget(0);
}

Trace::Entry* Trace::find(std::span<const Tensor> arguments, const ArgumentNames& names) {
  const uint64_t modes_word_now = modes_word(modes());
  if (Entry* e = matching(arguments, modes_word_now)) {
    latest = e;
    e->last_call = counters.calls;
    if (!aliases_slot(e->record, arguments)) return e;
    if (options.require_full_capture)
      fail(options.name +
               ": require_full_capture: an argument shares memory with a tensor that the function captured, "
               "so "
               "that the call would run eagerly",
           made_at);
    ++counters.eager_calls;
    if (!warned_alias_)
      core::log(
          core::LogArea::trace, core::LogLevel::warn,
          options.name +
              ": an argument shares memory with a tensor that the function captured; such calls run eagerly");
    warned_alias_ = true;
    return nullptr;
  }
  explain(arguments, modes_word_now, names);
  auto entry = std::make_unique<Entry>(counters);
  Record& r = entry->record;
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
  latest = entries.back().get();
  latest->last_call = counters.calls;
  return latest;
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
  trace.mutex.lock();
  try {
    for (const Tensor& t : arguments)
      if (t.checked({}).has(core::kPending))
        fail(trace.options.name + ": an argument is a pending tensor of a traced call on another thread");
    Trace::Entry* entry = trace.find(arguments, names);
    if (!entry) return;
    entry->frame.begin(arguments, names);
    frame_ = &entry->frame;
    const TraceOptions& o = trace.options;
    if (o.debug && !check)
      shadow_ = std::make_unique<Shadow>(*frame_, Shadow::Mode::debug, o.name);
    else if (check || (o.verify && wants_verify(o, entry->record)))
      shadow_ = std::make_unique<Shadow>(*frame_, Shadow::Mode::verify, o.name);
  } catch (...) {
    trace.mutex.unlock();
    throw;
  }
  outer_ = eager::interceptor_;
  eager::interceptor_ = shadow_ ? static_cast<eager::Interceptor*>(shadow_.get()) : frame_;
}

void CallScope::finish() {
  if (!frame_) return;
  frame_->end();
  if (shadow_) {
    shadow_->finish();
    shadow_.reset();
  }
  frame_ = nullptr;
  eager::interceptor_ = outer_;
  trace_.bound();
}

CallScope::~CallScope() {
  if (frame_) {
    frame_->abandon();
    shadow_.reset();  // before another thread takes the frame
    eager::interceptor_ = outer_;
    trace_.bound();
  }
  trace_.mutex.unlock();
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

Inspected inspect(const Trace& trace) {
  Inspected out{trace.options, trace.counters, trace.bytes, trace.forgotten, {}};
  for (const auto& e : trace.entries) out.records.push_back(&e->record);
  return out;
}

namespace {
template <class F>
std::string for_plans(const Trace& trace, F&& text) {
  std::string out;
  for (const auto& e : trace.entries)
    for (const SegmentEnd& s : e->record.segments)
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
