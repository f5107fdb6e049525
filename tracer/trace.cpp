// A trace: its records by signature of the arguments, and the scope of a call.
#include "tandem/tracer/trace.h"

#include <mutex>

#include "tandem/core/log.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/slots.h"

namespace tandem::tracer {

class Trace {
 public:
  explicit Trace(TraceOptions o) : options(std::move(o)) {}

  struct Entry {
    explicit Entry(Counters& counters) : frame(record, counters) {}
    Record record;
    Frame frame;
  };
  /// The entry for these arguments, made if there is none; null if the call must run eagerly.
  Entry* find(std::span<const Tensor> arguments);

  TraceOptions options;
  std::mutex mutex;
  Counters counters;
  std::vector<std::unique_ptr<Entry>> entries;

 private:
  bool aliases_slot(const Record& r, std::span<const Tensor> arguments) const;
  bool warned_alias_ = false;
};

namespace {

ArgumentType type_of(std::span<const Tensor> arguments, size_t i) {
  const TensorImpl* t = arguments[i].impl();
  ArgumentType a{
      t->dtype, t->device, t->sizes, t->strides, t->has(core::kRequiresGrad), t->grad_fn == nullptr, -1, -1};
  for (size_t k = 0; k < i; ++k) {
    if (a.same_as < 0 && arguments[k].impl() == t) a.same_as = static_cast<int>(k);
    if (a.shares < 0 && arguments[k].impl()->storage == t->storage) a.shares = static_cast<int>(k);
  }
  return a;
}

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

Trace::Entry* Trace::find(std::span<const Tensor> arguments) {
  const uint64_t modes_word_now = modes_word(modes());
  for (const std::unique_ptr<Entry>& e : entries) {
    const Record& r = e->record;
    if (r.key.size() != arguments.size() || r.modes_at_entry != modes_word_now) continue;
    bool same = true;
    for (size_t i = 0; same && i < arguments.size(); ++i) same = matches(r.key[i], arguments, i);
    if (!same) continue;
    if (!aliases_slot(r, arguments)) return e.get();
    ++counters.eager_calls;
    if (!warned_alias_)
      core::log(
          core::LogArea::trace, core::LogLevel::warn,
          options.name +
              ": an argument shares memory with a tensor that the function captured; such calls run eagerly");
    warned_alias_ = true;
    return nullptr;
  }
  auto entry = std::make_unique<Entry>(counters);
  Record& r = entry->record;
  r.modes_at_entry = modes_word_now;
  r.compile = options.compile;
  for (size_t i = 0; i < arguments.size(); ++i) {
    r.key.push_back(type_of(arguments, i));
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
  if (core::log_enabled(core::LogArea::trace, core::LogLevel::debug) && !entries.empty())
    core::log(core::LogArea::trace, core::LogLevel::debug, options.name + ": a new signature of arguments");
  entries.push_back(std::move(entry));
  return entries.back().get();
}

CallScope::CallScope(Trace& trace, std::span<const Tensor> arguments) : trace_(trace) {
  trace.mutex.lock();
  try {
    for (const Tensor& t : arguments)
      if (t.checked({}).has(core::kPending))
        fail(trace.options.name + ": an argument is a pending tensor of a traced call on another thread");
    Trace::Entry* entry = trace.find(arguments);
    if (!entry) return;
    entry->frame.begin(arguments);
    frame_ = &entry->frame;
  } catch (...) {
    trace.mutex.unlock();
    throw;
  }
  outer_ = eager::interceptor_;
  eager::interceptor_ = frame_;
}

void CallScope::finish() {
  if (!frame_) return;
  frame_->end();
  frame_ = nullptr;
  eager::interceptor_ = outer_;
}

CallScope::~CallScope() {
  if (frame_) {
    frame_->abandon();
    eager::interceptor_ = outer_;
  }
  trace_.mutex.unlock();
}

bool inside_call() { return eager::interceptor() != nullptr && on(Mechanism::inline_traces); }

std::shared_ptr<Trace> make_trace(TraceOptions options) {
  return std::make_shared<Trace>(std::move(options));
}

TraceReport report(const Trace& trace) {
  const Counters& c = trace.counters;
  TraceReport r;
  r.calls = c.calls;
  r.recorded = c.recorded;
  r.op_by_op = c.op_by_op;
  r.slots_bound = c.slots_bound;
  r.backward_skipped = c.backward_skipped;
  r.backward_walked = c.backward_walked;
  r.eager_calls = c.eager_calls;
  r.signatures = static_cast<int64_t>(trace.entries.size());
  for (const auto& e : trace.entries) {
    r.branches += static_cast<int64_t>(e->record.branches.size());
    r.segments += static_cast<int64_t>(e->record.segments.size());
    for (const auto& b : e->record.branches)
      for (const Entry& entry : b->entries) r.ops += entry.kind == EventKind::op;
    for (const SegmentEnd& s : e->record.segments) {
      if (!s.op_by_op.empty()) r.op_by_op_reasons.push_back(s.op_by_op);
      if (s.plan) {
        const jit::ExecutableStats& x = s.plan->executable->stats();
        ++r.plans;
        r.entries += x.entries;
        r.kernels += x.kernels;
        r.compiled += x.compiled;
        r.interpreted += x.interpreted;
        r.products += x.products;
        r.natives += x.natives;
        r.arena_bytes += x.arena_bytes;
        r.compile_ms += x.compile_ms;
      }
    }
  }
  return r;
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
