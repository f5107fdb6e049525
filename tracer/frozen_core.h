// What a frozen function is made of: per signature a plan and the rules by which its inputs are found and its
// outputs handed out, and the captured tensors that signatures share. Signatures are immutable; the rest is
// under the core's lock. `slots` and `bound` change under registry_mutex besides, since tensors die on any
// thread: what another thread drops while a call runs is kept until the call is over.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>

#include "tandem/core/relaxed.h"
#include "tandem/eager/tape.h"
#include "tandem/tracer/frozen.h"
#include "tandem/tracer/kept_values.h"
#include "tandem/tracer/observation.h"
#include "tandem/tracer/record.h"

namespace tandem::tracer {

/// A tensor of a frozen call: an argument, a captured one, or one that the call makes.
struct Place {
  enum class Kind : uint8_t { argument, slot, made } kind = Kind::argument;
  uint32_t index = 0;
};

struct MadeTensor {
  int32_t output = -1;  // of the plan: fresh memory; -1: a view of `base`, an earlier one if it is made
  Place base;
  DType dtype = DType::float32;
  Dims sizes, strides;
  int64_t offset = 0;    // elements; of a view, from its base's
  uint32_t version = 0;  // of fresh memory: how often the call changed it in place
  Location changed_at;
  bool requires_grad = false;
  bool freed = false;                // its history was used up by the call's backward
  ops::OpId op = ops::OpId::count_;  // what made it, or the view
  Location where;
  bool follows = false;        // a view that follows its base's history
  std::vector<int64_t> words;  // of a view
  int64_t numel = 0;
  bool contiguous = false;
};

/// What becomes of a leaf's `.grad`.
struct GradWrite {
  enum class Before : uint8_t {
    none,     // there must be none
    cleared,  // the body drops it
    slot,     // it must be captured tensor `before`
    present,  // there must be one
  };
  enum class After : uint8_t { none, made, kept };
  Place leaf;
  Before before = Before::none;
  After after = After::none;
  uint32_t before_slot = 0, made = 0;
};

/// Memory from outside that the call changes in place so often.
struct VersionMove {
  Place memory;
  uint32_t count = 0;
  Location where;
};

/// Where a run-time number of the plan comes from.
struct NumberRule {
  enum class Kind : uint8_t { constant, seed, offset, correction } kind = Kind::constant;
  int64_t bits = 0;      // constant: the word; offset: from the generator's at entry
  uint32_t counter = 0;  // correction: 1 - beta^(count + ahead)
  int64_t ahead = 0;
  double beta = 0;
};

class FrozenCore;

struct FrozenSignature {
  std::vector<ArgumentType> key;
  uint64_t modes = 0, structure = 0;
  uint64_t types = 0;  // of the arguments in C++; of typed calls only
  std::string graph;   // before the passes
  std::shared_ptr<const jit::Executable> executable;
  Device device;  // where it runs
  std::vector<Place> inputs;
  std::vector<uint32_t> argument_inputs;  // which of them are arguments
  std::vector<NumberRule> numbers;
  std::vector<int64_t> nbytes;  // of each output
  std::vector<MadeTensor> made;
  std::vector<Place> results;
  std::vector<GradWrite> grads;
  std::vector<VersionMove> moves;
  std::vector<std::pair<uint32_t, uint32_t>> steps;  // counter, how often it moves
  int64_t drawn = 0;
  std::vector<std::pair<Location, ops::OpId>> calls;  // of the graph's nodes, for messages
  std::vector<FrozenConstant> constants;
  Prototype prototype;
  std::vector<uint32_t> slots, counters;  // those that a call uses
  std::shared_ptr<KeptValues> kept;       // may be null; changes, under the core's lock

  /// Fills in `kept`, the rest of the signature being there. `g`: its graph.
  void keep_values(const FrozenCore& core, const jit::Graph& g);
  /// Fills in `slots`, `counters` and what follows from the sizes of what is made.
  void list_uses();
  std::string name_at(Location at, std::string inner) const;
};

struct FrozenSlot {
  DType dtype = DType::float32;
  Device device;
  // What a scan looks at first, one cache line: flags of a tensor that is no view, if the slot's elements lie
  // without gaps; else kUnusual.
  uint16_t flags = kUnusual;
  Dims sizes, strides;
  bool requires_grad = false, written = false;
  int32_t shares = -1;  // the first slot with the same memory
  bool contiguous = false;
  static constexpr uint16_t kUnusual = 0xffff;
  static constexpr uint16_t kCompared = core::kRequiresGrad | core::kContiguous | core::kView;
  std::string name;
  Location where;  // first use
};

class FrozenCore {
 public:
  FrozenCore(std::string function, Location where, bool compiled, int64_t max_kept)
      : name(std::move(function)), made_at(where), compile(compiled), max_kept_bytes(max_kept) {}
  ~FrozenCore();
  FrozenCore(const FrozenCore&) = delete;
  FrozenCore& operator=(const FrozenCore&) = delete;

  // freeze.cpp
  /// Throws an Error, which names the user's line, if the record does what only a body can do.
  /// `again`: set if calls that are observed anew may change that.
  void add(const Record& r, bool* again = nullptr);

  // frozen.cpp
  void call(std::span<Tensor> arguments, const CallTypes* types, Arguments& results,
            const Prototype** prototype);
  /// The signature for these arguments; null if there is none.
  const FrozenSignature* find(std::span<const Tensor> arguments, const CallTypes* types);
  /// A watched tensor changes or dies, under registry_mutex. True if it dies and is kept: a call runs.
  bool slot_event(TensorImpl* t, bool dying) noexcept;
  /// Captured tensor `i`, held; null if it is gone.
  Ref<TensorImpl> hold(size_t i) const;
  /// A captured tensor is bound, and watched.
  uint32_t bind(FrozenSlot slot, TensorImpl* t);
  /// Forgets the slots from `n` on.
  void drop_slots(size_t n);
  uint32_t counter(const std::shared_ptr<eager::StepCounts>& counts, size_t index);
  Generator& generator() { return own_generator ? *own_generator : default_generator(); }
  const char* keep(const std::string& file);

  std::string name;
  Location made_at;
  bool compile;
  int64_t max_kept_bytes;
  std::mutex mutex;
  std::vector<std::unique_ptr<const FrozenSignature>> signatures;
  std::vector<FrozenSlot> slots;
  std::vector<TensorImpl*> bound;  // by slot, not owned; null: gone
  // Of the running call: its thread; and, under registry_mutex, what other threads dropped meanwhile.
  std::atomic<const void*> runner{nullptr};
  std::vector<Ref<TensorImpl>> foreign;
  core::Relaxed<bool> told = false;  // there are some
  std::vector<Tensor> owned;         // by slot, of a loaded function
  struct Counter {
    std::weak_ptr<eager::StepCounts> counts;
    size_t index = 0;
  };
  std::vector<Counter> counters;
  std::vector<std::shared_ptr<eager::StepCounts>> own_counts;
  std::unique_ptr<Generator> own_generator;
  std::string kernels;
  core::Relaxed<int64_t> calls, scans;
  std::atomic<uint64_t> changes{1};  // moves when a watched tensor changes or dies

 private:
  class Running;
  void check_slots(const FrozenSignature& s);
  void scan();
  bool fits(const FrozenSlot& s, const TensorImpl& t) const;
  void refuse_slots(const FrozenSignature& s) const;
  [[noreturn]] void refuse_slot(const FrozenSlot& s, const TensorImpl& t) const;
  [[noreturn]] void refuse(const std::string& message) const;
  [[noreturn]] void refuse_arguments(std::span<const Tensor> arguments, const CallTypes* types);
  void check_aliases(const FrozenSignature& s, std::span<const Tensor> arguments) const;
  void check_grads(const FrozenSignature& s, std::span<Tensor> arguments);
  void fill_numbers(const FrozenSignature& s, uint64_t first);
  TensorImpl* at(Place p, std::span<Tensor> arguments) const;
  Ref<TensorImpl> make(const MadeTensor& m, std::span<Tensor> arguments);

  const FrozenSignature* filled_for_ = nullptr;  // scratch_.inputs has its slots' addresses
  int64_t filled_at_ = -1;                       // as of this value of moved_
  int64_t moved_ = 0;                            // scans that found an address changed
  uint64_t checked_ = 0;                         // `changes` when the slots were scanned last
  std::vector<void*> data_;
  std::vector<const core::Storage*> storages_;
  bool bad_ = false;             // some slot is gone or has changed, or shares memory with others than before
  std::vector<uint32_t> views_;  // slots that are views: their history may have moved
  struct {
    std::vector<void*> inputs, outputs;
    std::vector<int64_t> numbers;
    std::vector<Ref<core::Storage>> storages;
    std::vector<Ref<TensorImpl>> made;
    std::vector<std::shared_ptr<eager::StepCounts>> counts;
  } scratch_;
  std::deque<std::string> files_;  // of lines, of a loaded function
};

}  // namespace tandem::tracer
