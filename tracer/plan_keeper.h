// What a plan of checked replay keeps of captured tensors between calls (KeptValues): which of them last is
// seen from its runs, so a second plan is made only once several in a row have found some unchanged. One
// signature of a trace keeps values, or one a thread: the one that made them last (Trace::finished). Owned by
// the plan; used by the call that runs it, else under registry_mutex.
#pragma once

#include <memory>
#include <vector>

#include "tandem/tracer/kept_values.h"

namespace tandem::tracer {

struct Plan;
struct Record;

class PlanKeeper {
 public:
  /// Null where all captured tensors that the plan does not write are small beside what it moves.
  static std::unique_ptr<PlanKeeper> of(const Plan& plan, const Record& r);

  /// As KeptValues::follow, of `plan.addresses`. Before each run of the plan.
  const jit::Executable* follow(const Plan& plan, Record& r);
  /// Gives the memory of what is kept to `out`; with a slot, only if something is made of that. It is made
  /// again if the tensors last on.
  void let_go(std::vector<Ref<core::Storage>>& out, uint32_t slot = 0);
  /// There was no memory for a run beside what is kept.
  void give_up(const std::string& why);
  /// Bytes kept now.
  int64_t nbytes() const { return kept_ ? kept_->nbytes() : 0; }
  /// Null until a second plan was made.
  const KeptValues* kept() const { return kept_.get(); }

 private:
  struct Candidate {
    uint32_t input = 0, slot = 0;
    uint32_t version = 0;
    uint64_t binding = 0;
    int64_t since = 0;  // the run that found another version or binding
  };
  void look(const Record& r);
  void choose(const Plan& plan, const Record& r);
  void start_over();
  uint64_t binding(const Record& r);

  std::vector<Candidate> candidates_;
  int64_t runs_ = 0, next_choice_ = 0;  // the run; negative: none, for good
  int64_t idle_ = 0;                    // runs in a row that used nothing kept
  uint64_t binding_ = 0, binding_as_of_ = 0;
  std::unique_ptr<KeptValues> kept_;
};

/// The same for all plans of a record.
void let_go_of_kept(Record& r, std::vector<Ref<core::Storage>>& out, uint32_t slot = 0);

}  // namespace tandem::tracer
