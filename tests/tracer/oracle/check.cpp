#include "tests/tracer/oracle/check.h"

#include <algorithm>
#include <utility>

#include "tandem/tracer/mechanisms.h"

namespace oracle {

namespace {
/// What lasts is kept early in most programs.
struct Patience {
  explicit Patience(int runs) : before(std::exchange(td::tracer::runs_to_keep, runs)) {}
  ~Patience() { td::tracer::runs_to_keep = before; }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;
  int before;
};
}  // namespace

std::optional<Difference> compare(const Program& p, const Options& options, Tally* tally) {
  const Resolved resolved = resolve(p);
  const Patience patience(1 + static_cast<int>(p.seed % 4));
  World eager(p, resolved, false, options);
  for (const Call& c : p.calls) eager.call(c);
  World traced(p, resolved, true, options, tally ? &tally->coverage : nullptr);
  for (const Call& c : p.calls) traced.call(c);
  if (tally) {
    ++tally->programs;
    tally->calls += static_cast<int64_t>(p.calls.size());
    for (const std::string& e : eager.errors) tally->threw += !e.empty();
    const td::TraceReport r = traced.report();
    tally->verified += r.verified, tally->replayed += r.calls - r.recorded, tally->plans += r.plans;
    tally->skipped += r.backward_skipped, tally->op_by_op += r.op_by_op;
    tally->kept += r.kept_bytes > 0;
  }
  if (eager.out == traced.out && eager.errors == traced.errors) return {};
  size_t at = 0, call = 0;
  while (at < std::min(eager.out.size(), traced.out.size()) && eager.out[at] == traced.out[at]) ++at;
  while (call + 1 < eager.calls.size() && eager.calls[call + 1] <= at) ++call;
  const auto shown = [&](const World& w) {
    return (at < w.out.size() ? std::to_string(std::bit_cast<float>(w.out[at])) : "nothing") +
           (w.errors[call].empty() ? "" : " ('" + w.errors[call] + "')");
  };
  return Difference{call, "call " + std::to_string(call) + ", value " +
                              std::to_string(at - eager.calls[call]) + ": eager " + shown(eager) +
                              ", traced " + shown(traced)};
}

std::optional<uint32_t> first_difference(uint32_t first, uint32_t count, const Options& options) {
  for (uint32_t seed = first; seed < first + count; ++seed)
    if (compare(make_program(seed), options)) return seed;
  return {};
}

std::string explain(const Program& p, const Options& options) {
  const auto fails = [&](const Program& smaller) { return compare(smaller, options).has_value(); };
  const std::string title = "oracle: seed " + std::to_string(p.seed);
  const std::optional<Difference> found = compare(p, options);
  if (!found) return title + " fails only after the programs before it\n" + print(p, title, options);
  const Program smaller = reduce(p, fails);
  return title + ": " + found->text + "\nreduced from " + std::to_string(count_statements(p)) +
         " statements to " + std::to_string(count_statements(smaller)) + ": " +
         compare(smaller, options).value_or(Difference{}).text + "\n" + print(smaller, title, options);
}

}  // namespace oracle
