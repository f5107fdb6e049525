// What a frozen signature's plan makes of captured tensors alone, kept from call to call for as long as these
// stay as they are (R11): it is made by the second call in a row that finds them unchanged, dropped when one
// changes, and never kept of memory whose address the program was given (Storage::exposed), since writes
// there are not seen. Belongs to a FrozenSignature; under the core's lock.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "tandem/core/storage.h"
#include "tandem/jit/executable.h"
#include "tandem/jit/kept.h"

namespace tandem::tracer {

class FrozenCore;
struct FrozenSignature;

class KeptValues {
 public:
  /// Null where there is nothing worth keeping. `g`: the signature's graph, before the passes; the rest of
  /// the signature is there.
  static std::shared_ptr<KeptValues> of(const FrozenSignature& s, const FrozenCore& core,
                                        const jit::Graph& g);

  /// The plan that takes the kept values, if they are there: then `inputs`, the signature's, get theirs
  /// behind. `storages`: by slot; `changes`: the core's count as of the guards.
  const jit::Executable* follow(std::span<const core::Storage* const> storages, uint64_t changes,
                                std::vector<void*>& inputs);
  /// Bytes kept now.
  int64_t nbytes() const;
  /// The plans, for people.
  std::string plan_text() const;
  std::string code() const;

 private:
  KeptValues() = default;
  bool unchanged(std::span<const core::Storage* const> storages, uint64_t changes);
  bool try_make(const std::vector<void*>& inputs);
  void make(const std::vector<void*>& inputs);

  Device device_;
  std::shared_ptr<const jit::Executable> makes_, rest_;
  std::vector<int32_t> inputs_;  // of makes_, among the signature's
  std::vector<uint32_t> slots_;  // the same, as captured tensors
  std::vector<jit::KeptValue> values_;
  std::vector<int64_t> nbytes_;  // of what makes_ gives
  std::vector<uint32_t> versions_;
  uint64_t changes_ = 0;
  bool given_up_ = false;                 // there was no memory for it
  std::vector<Ref<core::Storage>> kept_;  // empty: nothing is
};

}  // namespace tandem::tracer
