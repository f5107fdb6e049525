// What the first calls of a record were seen to do outside of it: which values they gave back, bound as
// gradients, drew from the generator, counted as optimizer steps. Freezing needs two calls that did the same.
// Owned by the record; used by the call that runs on it, or by freeze() while it holds the record.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/tracer/frozen.h"
#include "tandem/tracer/record.h"

namespace tandem::tracer {

struct Observation {
  static constexpr int kNeeded = 2;
  static constexpr int kMost = 16;  // calls that all differ are observed no longer
  /// Of the call that is observed now.
  struct Call {
    std::vector<uint32_t> results;  // handles
    /// A leaf, and the known gradient that it has at the end.
    std::vector<std::pair<uint32_t, uint32_t>> grads;
    /// What the body did with the `.grad` of a leaf (a handle, or an index into `strangers`).
    struct GradUse {
      enum Kind : uint8_t { set, found_none, found_one } kind = set;
      bool stranger = false;
      uint32_t leaf = 0, after = 0;  // after: the known gradient at the end
      uint32_t found = 0;            // the one that was found, if ops of the call use it
      int32_t position = 0;          // event
      bool left = false;             // there is a gradient at the end
      friend bool operator==(const GradUse&, const GradUse&) = default;
    };
    std::vector<GradUse> uses;  // the first of each leaf, and the first that sets
    /// The word of a random op's offset, from the entry's; -1: not the default generator's.
    std::vector<std::pair<uint32_t, int64_t>> draws;
    /// An optimizer's step, and at which event. Not held: its optimizer may go.
    struct Step {
      int32_t position = 0;
      std::weak_ptr<eager::StepCounts> counts;
      friend bool operator==(const Step& a, const Step& b) {
        return a.position == b.position && !a.counts.owner_before(b.counts) &&
               !b.counts.owner_before(a.counts);
      }
    };
    std::vector<Step> steps;
    int64_t drawn = 0;
    uint64_t seed = 0, offset = 0;  // of the generator at entry
    CallTypes types;                // of the arguments
    std::string refused;            // why such a call cannot be frozen
    Location refused_at;
    friend bool operator==(const Call& a, const Call& b) {
      return a.results == b.results && a.grads == b.grads && a.uses == b.uses && a.draws == b.draws &&
             a.steps == b.steps && a.drawn == b.drawn && a.types.structure == b.types.structure &&
             a.types.arguments == b.types.arguments && a.refused == b.refused;
    }
  };
  Call now, last;
  Prototype prototype;
  /// Tensors whose `.grad` the body used, and what it found there, held until the call ends; the handles are
  /// to come.
  struct HeldUse {
    Ref<TensorImpl> leaf, found;
    Call::GradUse use;
  };
  std::vector<HeldUse> grad_uses;
  std::shared_ptr<FrozenCore> strangers;  // of them, those that are in no op, held weakly
  std::string kept;                       // why no call can be frozen, once it was seen
  Location kept_at;
  std::vector<uint32_t> holders;             // of each argument, at the entry
  int64_t grown = -1;                        // of the record, when the calls below were observed
  int tries = 0;                             // calls observed since the record grew
  int times = 0;                             // calls in a row that did the same
  std::vector<std::pair<Call, int>> others;  // `last` and `times` with other types of arguments
  void recall();
  int64_t seen_in = 0;  // the last of them, as Record::calls counts
  int seen = 0;         // calls observed
};

}  // namespace tandem::tracer
