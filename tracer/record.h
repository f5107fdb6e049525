// What a trace remembers of the calls with one signature of arguments: the trie of events, the table of
// handles they compare against, and the plans of its segments. Owned by one Trace; used by one call at a
// time.
//
// Events are compared by handles: if every event before matched, the map from handle to value is the one that
// was recorded, in-place writes included, so neither values nor operands are looked at.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "tandem/eager/dispatch.h"
#include "tandem/jit/executable.h"
#include "tandem/tracer/plan_keeper.h"

namespace tandem {
struct TraceOptions;
}

namespace tandem::tracer {

using core::Ref;
using core::TensorImpl;

enum class EventKind : uint8_t { op, read, backward, end_backward, host_code, requires_grad, end };

/// One event of a path, compared front to back.
struct Entry {
  uint32_t in[3] = {0, 0, 0};  // handles; 0: none
  uint32_t out = 0;            // first result's handle
  uint32_t words = 0;          // into Record::words
  uint32_t more = 0;           // operands beyond three: into Record::more; other kinds: into their table
  uint64_t run_time = 0;       // bit w: word w is stored, not compared
  uint16_t op = 0, n_in = 0, n_words = 0;
  EventKind kind = EventKind::end;
  uint8_t n_out = 0;
  bool in_place = false, tape = false;
  bool outside = false;        // gives memory from outside the call a history
  bool moves = false;          // a view of memory from outside whose position is taken from each call
  bool more_to_fit = false;    // `moves`, or has words that equal earlier ones: Frame::fits looks, too
  bool only_run_time = false;  // every word is stored, none compared
  uint8_t written = 0;         // in place: bit i: operand i is replaced
  bool plain = false;          // an op with one result, and nothing out of the way
  uint32_t numbers = 0;
  uint32_t modes = 0;            // into Record::modes
  mutable uint32_t changed = 0;  // bit w % 32: run-time word w has had another value since it was recorded
  uint32_t first_use = 0;        // bit i: operand i is a slot that its path uses here for the first time

  /// Of the words: two for each operand that is a number, then the attributes, from this one on.
  uint32_t first_attr() const { return words + 2 * static_cast<uint32_t>(__builtin_popcount(numbers)); }
  void set_plain() { plain = kind == EventKind::op && n_out == 1 && !in_place && !moves && !more_to_fit; }
  /// The same op with the same flags under the same modes: from `op` to `modes` nothing differs.
  bool same_kind(const Entry& o) const {
    const auto word = [](const Entry& e, size_t i) {
      uint64_t w = 0;
      std::memcpy(&w, reinterpret_cast<const char*>(&e.op) + 8 * i, 8);
      return w;
    };
    return word(*this, 0) == word(o, 0) && word(*this, 1) == word(o, 1) && word(*this, 2) == word(o, 2);
  }
};
static_assert(sizeof(Entry) == 64, "an event is a cache line");
static_assert(offsetof(Entry, modes) + sizeof(Entry::modes) - offsetof(Entry, op) == 24,
              "same_kind compares all of it");

/// What a handle stands for.
struct HandleInfo {
  enum class Kind : uint8_t { none, argument, slot, result } kind = Kind::none;
  uint32_t cell = 0;
  uint32_t base = 0;                  // views of this call: the handle they view, and the entry that says how
  std::shared_ptr<const Entry> view;  // null: not a view of this call
  bool follows = false;               // a view that follows its base's history (not made under NoGrad)
  DType dtype = DType::float32;
  Device device;
  Dims sizes, strides;
  int64_t offset = 0, numel = 0;
  bool requires_grad = false, leaf = true, contiguous = true;
  bool history = false;              // an in-place op gave it one
  bool moves = false;                // a view whose offset is not always `offset`
  int64_t bound_in = 0;              // of a slot: the call (Record::calls) that bound it
  uint64_t binding = 0;              // of a slot: Record::bindings then, which no other binding shares
  Ref<core::TapeNode> freed;         // of a result whose history was used up; used again when nobody has it
  ops::OpId op = ops::OpId::count_;  // of a result: what made it, and where
  Location where;
};

/// A piece of memory with a history of values: one per storage that enters, one per result of an op that
/// allocates.
struct Cell {
  uint32_t root = 0;      // the handle whose layout is the cell's
  int members = 1;        // handles of different tensors that entered with this memory
  bool external = false;  // memory from outside the call
};

struct LeafGrad {
  uint32_t leaf = 0, before = 0, after = 0;  // handles; before 0: none
  bool in_place = false;
};

/// A run-time word of an op inside a backward that follows a word of an op before it.
struct FollowedWord {
  uint32_t word = 0;
  NumberKind kind = NumberKind::floating;
  std::shared_ptr<const eager::NumberSource> source;
};

struct BackwardRecord {
  std::vector<uint32_t> roots, gradients;
  bool retain_graph = false, create_graph = false;
  bool complete = false, skippable = true;
  std::vector<LeafGrad> leaves;
  std::vector<FollowedWord> followed;          // in order
  int32_t end_branch = -1, end_position = -1;  // where the program goes on
};

/// A recorded call that became part of a plan's graph; Node::origin counts them.
struct Origin {
  enum class Phase : uint8_t { forward, backward, update } phase = Phase::forward;
  ops::OpId op = ops::OpId::count_;
  Location where;
};

/// A handle that gets its memory when a plan has run.
struct Made {
  uint32_t handle = 0, cell = 0;
  int32_t output = -1;  // index among the plan's outputs; -1: a view
  uint32_t root = 0;    // whose memory it shows; itself if it is no view
  bool view = false, moves = false;
};

/// A segment's plan for a set of outputs.
struct Plan {
  std::shared_ptr<const jit::Executable> executable;
  std::vector<uint32_t> inputs;                            // handles
  std::vector<uint32_t> numbers;                           // words
  std::vector<std::pair<uint32_t, uint32_t>> number_runs;  // the same: first word, how many in a row
  std::vector<uint32_t> outputs;                           // cells
  std::vector<uint32_t> roots;  // of each output: the handle whose layout is the cell's
  std::vector<int64_t> nbytes;  // of each output
  // Of the inputs: their addresses as of `Record::bindings`, and which of them are no slots.
  mutable std::vector<void*> addresses;
  mutable uint64_t addresses_of = 0;
  std::vector<uint32_t> not_slots;
  // Outputs whose memory has a version of its own, as of Frame::versioned_.
  mutable std::vector<uint32_t> versioned;
  mutable uint64_t versioned_of = 0;
  Device device;
  std::vector<char> covered;           // by handle: may be held at the end, with the history it has
  std::vector<Made> made;              // what has memory and is made in the segment, in order
  std::unique_ptr<PlanKeeper> keeper;  // null where nothing can be worth keeping
  jit::Graph graph;                    // as lowered, before the passes
  std::vector<Origin> origins;         // for drawings
};

/// Where a segment ends (a read or the end of the call) and what can be alive there.
struct SegmentEnd {
  std::vector<uint32_t> results;    // handles made in the segment, in order
  std::vector<uint32_t> open_tape;  // results whose history was not consumed when the call ended
  std::unique_ptr<Plan> plan;       // with the outputs that any call has needed; null: none built yet
  std::string op_by_op;  // why the segment is no graph and always runs op by op; empty if it is one
  bool taken = false;    // ran before
  bool stale = false;    // the plan knows a position that has moved since
  bool first = false;    // on the first path: compiled at once, others when taken again (R17)
};

struct Branch {
  std::vector<Entry> entries;
  std::vector<Location> where;
  int32_t parent = -1, parent_position = 0;        // -1: the root
  int32_t base = 0;                                // events before the first of this branch
  std::vector<std::pair<int32_t, int32_t>> forks;  // position -> branch
  int32_t verified = 0;                            // calls that ended here and were compared with eager runs
};

struct Observation;

/// Dtype, layout and history of one tensor argument; `same_as`: the first argument with the same tensor,
/// `shares`: memory.
struct ArgumentType {
  DType dtype = DType::float32;
  Device device;
  Dims sizes, strides;
  bool requires_grad = false, leaf = true;
  int same_as = -1, shares = -1;
  friend bool operator==(const ArgumentType&, const ArgumentType&) = default;
};

struct Record {
  std::vector<ArgumentType> key;
  uint64_t modes_at_entry = 0;

  std::vector<TensorImpl*> handles{nullptr};  // now; results are owned (one count each), the others are not
  std::vector<HandleInfo> infos{HandleInfo{}};
  std::vector<core::Storage*> slot_memory{nullptr};  // by handle: of the slots bound now; else null
  uint64_t bindings = 1;                             // moves when a slot is bound or forgotten
  std::vector<Cell> cells{Cell{}};
  std::vector<uint32_t> arguments;                  // handle per argument
  std::unordered_map<TensorImpl*, uint32_t> slots;  // bound now
  std::vector<uint32_t> view_slots;                 // slots that were views when they were bound
  std::vector<uint32_t> outer_views;                // results that view arguments and slots
  std::unordered_map<const core::Storage*, uint32_t> slot_cells;  // memory of the slots bound now
  std::vector<int64_t> words;
  std::unordered_map<uint32_t, uint32_t> word_source;  // words that always equal an earlier one
  std::vector<uint32_t> more;
  std::vector<uint64_t> modes;
  std::vector<std::unique_ptr<Branch>> branches;
  std::vector<BackwardRecord> backwards;
  std::vector<SegmentEnd> segments;
  int64_t calls = 0, recordings = 0, plans_built = 0;
  std::shared_ptr<Observation> observed;  // what the first calls were seen to do, for freezing
  const TraceOptions* options = nullptr;  // of the trace, which outlives its records
  class Frame* frame = nullptr;
  std::atomic<const void*> runner{nullptr};  // the thread that a call of it runs on (registry.h)
  std::vector<Ref<TensorImpl>> foreign;      // to be forgotten when that call is over (registry.h)
  core::Relaxed<bool> told = false;          // there are some
  bool keeps_anew = false;                   // the running call has made values to keep (plan_keeper.h)
  bool twin = false;                         // of another record with this key, which ran on another thread
  bool compile = true;
  std::string op_by_op;  // why every segment runs op by op; empty if plans are used
  bool aliased = false;  // an argument shared memory with a captured tensor when this was recorded

  Record();
  ~Record();
  /// The handle of operand i of an op.
  uint32_t operand(const Entry& e, uint32_t i) const { return i < 3 ? e.in[i] : more[e.more + i - 3]; }
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;
};

/// About how much memory a record takes, with its plans' texts.
int64_t record_bytes(const Record& r);

}  // namespace tandem::tracer
