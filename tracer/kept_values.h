// What a plan makes of captured tensors alone, kept from run to run for as long as these stay as they are
// (R11): it is dropped by the first run that finds one of them changed, and never kept of memory whose
// address the program was given (Storage::exposed), since writes there are not seen. Belongs to a signature
// of a frozen function, under its lock, or to a plan of checked replay, which one call at a time runs.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tandem/core/storage.h"
#include "tandem/jit/executable.h"
#include "tandem/jit/kept.h"

namespace tandem::tracer {

class KeptValues {
 public:
  /// A plan, as far as it matters here.
  struct Source {
    const jit::Graph& graph;     // before the passes
    std::vector<int32_t> slots;  // per input; -1: no captured tensor, or one that the plan writes
    std::vector<std::optional<int64_t>> known;  // per run-time number its word, if that is always the same
    Device device;
    bool compile = true;
    int64_t bytes_moved = 0;  // by the plan
    int64_t max_bytes = 0;    // that may be kept
    int patience = 1;         // runs in a row that find its tensors unchanged before values are made again
  };
  /// Null where there is nothing worth keeping. Made by the second run, if that finds all as the first did.
  static std::unique_ptr<KeptValues> of(const Source& plan);

  /// The plan that takes the kept values, if they are there or can be made now: then `inputs`, the plan's,
  /// get them behind. `storages`: by slot; `bound`: is another number once a slot has another tensor.
  const jit::Executable* follow(std::span<const core::Storage* const> storages, uint64_t bound,
                                std::vector<void*>& inputs);
  /// The captured tensors that something is made of.
  std::span<const uint32_t> slots() const { return slots_; }
  /// Gives the memory away; it is made again as if the tensors had changed.
  std::vector<Ref<core::Storage>> let_go();
  /// Lets go because there is no memory, and says so; it is made again after many runs only.
  void give_up(const std::string& why);
  bool holds() const { return !kept_.empty(); }
  /// Bytes kept now.
  int64_t nbytes() const;
  /// The plans, for people.
  std::string plan_text() const;
  std::string code() const;

 private:
  KeptValues() = default;
  bool unchanged(std::span<const core::Storage* const> storages, uint64_t bound);
  bool try_make(const std::vector<void*>& inputs);
  void make(const std::vector<void*>& inputs);

  Device device_;
  std::shared_ptr<const jit::Executable> makes_, rest_;
  std::vector<int32_t> inputs_;  // of makes_, among the plan's
  std::vector<uint32_t> slots_;  // the same, as captured tensors
  std::vector<jit::KeptValue> values_;
  std::vector<int64_t> nbytes_;  // of what makes_ gives
  std::vector<uint32_t> versions_;
  uint64_t bound_ = 0;
  int patience_ = 1, waits_ = 1;          // runs until it is made
  std::vector<Ref<core::Storage>> kept_;  // empty: nothing is
};

/// Tells the program that memory was short; its calls go on without.
void warn_nothing_kept(const std::string& why);

}  // namespace tandem::tracer
