#include "tandem/tracer/report.h"

#include <cstdio>
#include <ostream>
#include <unordered_set>

#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/inspect.h"
#include "tandem/tracer/picture.h"

namespace tandem {

namespace tracer {

namespace {

// Signatures share what they captured: memory that is bound now counts once.
int64_t persistent_bytes(const Inspected& trace) {
  int64_t bytes = 0;
  std::unordered_set<const core::Storage*> seen;
  for (const Record* r : trace.records) {
    std::vector<char> counted(r->cells.size(), 0);
    for (size_t h = 0; h < r->infos.size(); ++h) {
      const HandleInfo& info = r->infos[h];
      if (info.kind != HandleInfo::Kind::slot || counted[info.cell]) continue;
      counted[info.cell] = 1;
      const TensorImpl* t = r->handles[h];
      if (t && t->storage) {
        if (seen.insert(t->storage.get()).second) bytes += t->storage->nbytes;
      } else {
        bytes += info.numel * itemsize(info.dtype);
      }
    }
  }
  return bytes;
}

void add(TraceReport& r, const Plan& plan, bool compile) {
  const jit::ExecutableStats& x = plan.executable->stats();
  ++r.plans;
  r.groups += x.groups;
  r.entries += x.entries;
  r.kernels += x.kernels;
  r.behind += x.tails + x.joins;
  r.distinct_kernels += x.distinct;
  r.compiled += x.compiled;
  r.interpreted += x.interpreted;
  r.products += x.products;
  r.natives += x.natives;
  r.graph_nodes += x.graph_nodes;
  r.bytes_moved += x.bytes_moved;
  r.bytes_unfused += x.bytes_unfused;
  r.arena_bytes += x.arena_bytes;
  r.compile_ms += x.compile_ms;
  for (const int64_t n : plan.nbytes) r.escaping_bytes += n;
  if (plan.keeper) r.kept_bytes += plan.keeper->nbytes();
  if (!compile || x.interpreted == 0) return;
  for (std::string& why : plan.executable->fallbacks()) r.fallbacks.push_back(std::move(why));
}

}  // namespace

TraceReport report(const Trace& trace) { return report(inspect(trace)); }

TraceReport report(const Inspected& seen) {
  const Counters& c = seen.counters;
  TraceReport r;
  r.name = seen.options.name;
  r.calls = c.calls;
  r.recorded = c.recorded;
  r.op_by_op = c.op_by_op;
  r.slots_bound = c.slots_bound;
  r.backward_skipped = c.backward_skipped;
  r.backward_walked = c.backward_walked;
  r.eager_calls = c.eager_calls;
  r.verified = c.verified;
  r.record_bytes = seen.record_bytes;
  r.forgotten = seen.forgotten;
  r.misses = c.misses.list();
  r.signatures = static_cast<int64_t>(seen.records.size());
  for (const Record* record : seen.records) {
    r.branches += static_cast<int64_t>(record->branches.size());
    r.segments += static_cast<int64_t>(record->segments.size());
    if (!record->op_by_op.empty()) r.op_by_op_reasons.push_back(record->op_by_op);
    for (const auto& b : record->branches)
      for (const Entry& entry : b->entries) r.ops += entry.kind == EventKind::op;
    for (const SegmentEnd& s : record->segments) {
      if (!s.op_by_op.empty()) r.op_by_op_reasons.push_back(s.op_by_op);
      if (s.plan) add(r, *s.plan, seen.options.compile);
    }
  }
  r.persistent_bytes = persistent_bytes(seen);
  if (seen.frozen) {
    r.frozen_calls = seen.frozen->calls;
    for (const auto& s : seen.frozen->signatures)
      r.constants.insert(r.constants.end(), s->constants.begin(), s->constants.end());
  }
  return r;
}

}  // namespace tracer

using tracer::bytes_text;

namespace {

/// "1 kernel", "2 kernels", "2 branches".
std::string count(int64_t n, const char* what) {
  const std::string word = what;
  const bool es = word.ends_with("h");
  return std::to_string(n) + " " + word + (n == 1 ? "" : es ? "es" : "s");
}

}  // namespace

std::string to_string(const TraceReport& r) {
  std::string out = r.name + "\n";
  const auto line = [&](const char* what, const std::string& text) {
    std::string head = std::string("  ") + what;
    head.resize(14, ' ');
    out += head + text + "\n";
  };
  line("calls", std::to_string(r.calls) + ", of them " + std::to_string(r.recorded) + " recorded, " +
                    std::to_string(r.eager_calls) + " eager; backward skipped " +
                    std::to_string(r.backward_skipped) + ", walked " + std::to_string(r.backward_walked));
  line("captured", count(r.signatures, "signature") + ", " + count(r.branches, "branch") + ", " +
                       count(r.segments, "segment") + ", " + count(r.ops, "op"));
  line("plans", std::to_string(r.plans) + ": " + count(r.groups, "group") + " in " +
                    count(r.entries, "launch") + " (" + count(r.kernels, "kernel") + ", " +
                    (r.behind > 0 ? std::to_string(r.behind) + " of them behind others, " : "") +
                    count(r.products, "product") + ", " + count(r.natives, "native") + ")");
  if (r.graph_nodes > 0)
    line("cuda", count(r.graph_nodes, "node") + " in the graphs of all plans, a run of each one launch");
  line("kernels", count(r.distinct_kernels, "different one") + ", " + std::to_string(r.compiled) +
                      " launches compiled, " + std::to_string(r.interpreted) + " interpreted; " +
                      std::to_string(static_cast<int64_t>(r.compile_ms)) + " ms compiling");
  char times[48] = "";
  if (r.bytes_moved > 0)
    std::snprintf(times, sizeof times, ", %.1f times as much",
                  static_cast<double>(r.bytes_unfused) / static_cast<double>(r.bytes_moved));
  line("moved", bytes_text(r.bytes_moved) + "; op by op " + bytes_text(r.bytes_unfused) + times);
  line("memory", "private to a step " + bytes_text(r.arena_bytes) + ", persistent " +
                     bytes_text(r.persistent_bytes) + ", escaping " + bytes_text(r.escaping_bytes) +
                     (r.kept_bytes > 0 ? ", kept of captured tensors " + bytes_text(r.kept_bytes) : ""));
  line("records", bytes_text(r.record_bytes) + ", " + count(r.forgotten, "signature") + " forgotten; " +
                      count(r.verified, "call") + " verified");
  if (r.op_by_op) line("op by op", count(r.op_by_op, "segment run"));
  for (const std::string& why : r.op_by_op_reasons) line("", "a segment runs op by op: " + why);
  for (const std::string& why : r.fallbacks) line("", why);
  for (const std::string& what : r.misses) line("miss", what);
  return out;
}

std::ostream& operator<<(std::ostream& out, const TraceReport& report) { return out << to_string(report); }

}  // namespace tandem
