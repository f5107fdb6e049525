// One running traced call: the interceptor that compares what the body does with the record, or records it.
// Lives as long as its record and is used again by every call; one call at a time, on one thread.
#pragma once

#include <algorithm>
#include <mutex>
#include <span>

#include "tandem/core/relaxed.h"
#include "tandem/eager/tape.h"
#include "tandem/tracer/arguments.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/record.h"

namespace tandem::tracer {

/// What differed when something new was recorded: the latest few. Any thread.
class Misses {
 public:
  static constexpr size_t kKept = 32;
  void add(std::string what) {
    const std::lock_guard lock(mutex_);
    if (list_.size() == kKept) list_.erase(list_.begin());
    list_.push_back(std::move(what));
  }
  std::vector<std::string> list() const {
    const std::lock_guard lock(mutex_);
    return list_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> list_;
};

/// Figures of one trace, for reports and tests.
struct Counters {
  using Count = core::Relaxed<int64_t>;
  Count calls;        // traced calls
  Count recorded;     // of them: recorded something
  Count traces;       // signatures and branches recorded, but for those that an exception broke off
  Count plans;        // plans built
  Count op_by_op;     // segments run op by op
  Count slots_bound;  // slots bound to another tensor than in the call before
  Count backward_skipped, backward_walked;
  Count verified;     // calls whose plans were compared with eager runs
  Count eager_calls;  // calls run eagerly (arguments that alias captured tensors; storms)
  Misses misses;
};

class Frame final : public eager::Interceptor {
 public:
  Frame(Record& record, Counters& counters) : r_(record), counters_(counters), home_(next_home()) {
    r_.frame = this;
  }

  /// The call starts: binds the arguments (of the record's types), which the caller holds until its end.
  void begin(std::span<Tensor> arguments, ArgumentNames names);
  /// The body has returned; its results are still held by the caller. Runs what is pending.
  void end();
  /// The body threw: what came before the throw happens, as in eager mode; what this call recorded is
  /// dropped.
  void abandon() noexcept;

  bool op(const eager::Call& call, Ref<TensorImpl>* results) override;
  size_t op_run(const eager::Call& call, size_t n) override;
  bool backward(const eager::BackwardCall& call) override;
  void end_backward() override;
  void need_tape() override;
  void take_back(std::span<Ref<TensorImpl>* const> held) override;
  void leaf_grad(TensorImpl* leaf, TensorImpl* before, TensorImpl* after) override;
  void host_code() override;
  void read(TensorImpl* t, Location where) override;
  bool owes(const TensorImpl* t, bool pointer) override;
  void requires_grad(TensorImpl* t, bool on, Location where) override;
  core::Storage* memory(const TensorImpl* t) override;
  eager::Version& version(TensorImpl* t) override;
  bool view(const TensorImpl* t, eager::ViewOf& out) override;
  bool has_tape() const override { return recording_ || tape_live_ || passthrough_; }
  void noted(const eager::Call& call, core::TapeNode* n) override;

  void stepped(const std::shared_ptr<eager::StepCounts>& counts) override;
  void grad_used(TensorImpl* t, bool set) override;
  void real_read(Location where) override;
  void borrowed() override { borrows = on(Mechanism::borrowed_memory); }
  void op_over(const eager::Call& call) override;
  void backward_over(Location where) override;

  // observe.cpp: what the first calls do outside of the record, for freezing
  void observe_begin(const struct CallTypes& types);
  /// Before `end`: what the body gave back.
  void observe_results(std::span<TensorImpl* const> results, struct Prototype prototype);
  void observe_nothing() noexcept;
  /// The observed call cannot be frozen. Its first reason counts.
  void refuse_freezing(std::string why, Location where = {});
  /// Before `end`.
  void observe_end();
  /// After `end`, with the growth of the record; true if enough was seen.
  bool observed(int64_t growth);

  /// A tensor that this record binds is about to die: keeps it until the end of the call. False if no call is
  /// running.
  bool keep_dying_slot(TensorImpl* t) noexcept;
  /// True, once, if the running call has asked for the change of `t` that is now reported, and keeps it
  /// bound.
  bool keep_changing_slot(const TensorImpl* t) noexcept {
    if (changing_ != t) return false;
    changing_ = nullptr;
    return true;
  }

 private:
  static constexpr size_t kAhead = 8;  // events by which what will be looked at is fetched early

  // told.cpp
  void run_pending(Location where);

  // frame.cpp: comparing
  bool matches(const Entry& e, const eager::Call& call);
  bool same_operands(const Entry& e, const eager::Call& call, TensorImpl* const* in) const;
  bool same_header(const Entry& e, const eager::Call& call) const;
  bool take_words(const Entry& e, const eager::Call& call);
  void store_words(std::span<const Entry> entries, const eager::Call& call);
  void take_in_place(const Entry& e, const eager::Call& call);
  void take_results(const Entry& e, const eager::Call& call, Ref<TensorImpl>* results);
  /// Past an event that matches.
  void take(const Entry& e, const eager::Call& call, Ref<TensorImpl>* results) {
    if (call.in_place)
      take_in_place(e, call);
    else
      take_results(e, call, results);
  }
  bool first_use(const Entry& e, uint32_t i);
  bool rebind(const Entry& e, const eager::Call& call);
  bool fits(const Entry& e, const eager::Call& call) const;
  bool move_view(const Entry& e, const eager::Call& call);
  bool bind_slot(uint32_t handle, TensorImpl* t);
  /// The tables of what is bound now.
  void enter_slot(uint32_t handle, TensorImpl* t);
  /// 0: no argument.
  uint32_t argument_handle(const TensorImpl* t) const;
  void rebase(uint32_t handle, int64_t offset);
  bool op_other(const eager::Call& call, Ref<TensorImpl>* results);
  bool op_slow(const eager::Call& call, Ref<TensorImpl>* results);
  uint32_t used_slot_of(const TensorImpl* t);
  void keep_until_end(TensorImpl* t);
  /// Marks in used_ what ops before the cursor have as operands.
  void mark_used();
  TensorImpl* lend(uint32_t handle) {
    TensorImpl* t = r_.handles[handle];
    return t ? t : lend_fresh(handle);
  }
  TensorImpl* lend_fresh(uint32_t handle);
  TensorImpl* lend_from_system(uint32_t handle);
  TensorImpl* settle(TensorImpl* fresh, uint32_t handle);
  /// At home nobody else holds a handle, so its count is set without a read-modify-write.
  [[gnu::always_inline]] inline Ref<TensorImpl> hand_out(uint32_t handle) {
    TensorImpl* t = lend(handle);
    if (handed_ == handed_room_) [[unlikely]]
      grow_handed_out();
    handed_out_[handed_++] = handle;
    return lent(t);
  }
  static Ref<TensorImpl> lent(TensorImpl* t) {
    if (!on(Mechanism::fresh_handles)) return Ref<TensorImpl>(t);
    t->refs.set(2);
    return Ref<TensorImpl>::adopt(t);
  }
  void grow_handed_out();
  static uint64_t next_home();
  void set_moved_offset(const eager::Call& call, TensorImpl& view);
  std::span<const uint32_t> handed_out() const { return {handed_out_.data(), handed_}; }
  bool at_end() const { return position_ == static_cast<int32_t>(branch_->entries.size()); }
  /// The one that comes kAhead later, or what lies there.
  static void prefetch_entry(const Entry& e) {
    __builtin_prefetch(reinterpret_cast<const char*>(&e) + kAhead * sizeof(Entry));
  }
  const Entry& cursor() const { return branch_->entries[static_cast<size_t>(position_)]; }
  void jump(int32_t branch, int32_t position);
  /// So far this call compared, skipped and ran plans, and did nothing else.
  bool only_replayed() const { return !recording_ && !tape_live_ && !passthrough_ && !ran_op_by_op_; }
  /// Moves to the event that `accept` takes, here or on an alternative; false if there is none.
  template <class Accept>
  bool find_event(Accept&& accept) {
    if (!at_end() && accept(cursor())) return true;
    const int32_t branch = branch_index_, position = position_;
    // `accept` may bind slots but never adds forks.
    for (const auto& [at, other] : r_.branches[static_cast<size_t>(branch)]->forks) {
      if (at != position) continue;
      jump(other, 0);
      if (!at_end() && accept(cursor())) return true;
    }
    jump(branch, position);
    return false;
  }
  int32_t linear() const { return branch_->base + position_; }
  /// The entries of the path from event `from` (linear) to the cursor, in order.
  template <class F>
  void for_path(int32_t from, F&& f) {
    std::vector<std::pair<const Branch*, int32_t>> path;  // branch, and where the path leaves it
    int32_t until = position_;
    for (const Branch* b = branch_; b;
         b = b->parent < 0 ? nullptr : r_.branches[static_cast<size_t>(b->parent)].get()) {
      path.emplace_back(b, until);
      until = b->parent_position;
    }
    for (auto b = path.rbegin(); b != path.rend(); ++b)
      for (int32_t i = std::max(0, from - b->first->base); i < b->second; ++i)
        f(b->first->entries[static_cast<size_t>(i)], b->first->where[static_cast<size_t>(i)]);
  }

  /// What the body does now, for the explanation of a new branch.
  struct Attempt {
    EventKind kind = EventKind::end;
    Location where = {};
    const eager::Call* call = nullptr;
    const eager::BackwardCall* backward = nullptr;
    bool requires_grad = false;
  };
  // explain.cpp
  std::string explain_branch(const Attempt& now) const;
  std::vector<std::string> differences(const Entry& e, Location where, const Attempt& now) const;
  void compare_calls(const Entry& e, const eager::Call& call, std::vector<std::string>& out) const;
  void compare_backwards(const BackwardRecord& b, const eager::BackwardCall& call,
                         std::vector<std::string>& out) const;
  std::string describe(uint32_t handle) const;
  std::string describe(const TensorImpl* t) const;

  // record.cpp: recording
  void start_recording(const Attempt& now);
  void refuse_branch(const Attempt& now);
  void refuse_partial_capture(const std::string& why, Location where = {}) const;
  void record_op(const eager::Call& call, Ref<TensorImpl>* results);
  Entry& append(EventKind kind, Location where);
  uint32_t resolve(TensorImpl* t, bool* first_use = nullptr);
  uint32_t new_handle(HandleInfo info, TensorImpl* t);
  uint32_t new_result(const ops::TensorType& type, const Dims& strides, int64_t offset, uint32_t cell,
                      uint32_t base);
  uint32_t modes_index();
  void drop_recording();
  SegmentEnd pending_segment();

  // segment.cpp: running
  void end_segment(SegmentEnd& segment);
  void record_segment(Entry& e);
  void run_op_by_op(const SegmentEnd& segment);
  void run_plan(const Plan& plan);
  void run_plan(const Plan& plan, const jit::Executable& executable);
  void* input_address(uint32_t handle, const Plan& plan) const;
  void gather_inputs(const Plan& plan) const;
  std::string name_at(Location at, std::string inner);
  [[noreturn]] void fail_for(const Error& error, uint32_t result);
  const Plan* find_plan(SegmentEnd& segment);
  void lend_home(uint32_t handle);
  void part_tape();
  void release_view(uint32_t handle);
  static const Ref<core::TapeNode>& freed_history(HandleInfo& info);
  bool has_history(uint32_t handle) const;
  void note_open_tape(SegmentEnd& segment);
  Device device_of_segment();
  std::unique_ptr<Plan> build_plan(SegmentEnd& segment, const std::vector<char>& live_cells);
  eager::Call call_of(const Entry& e, Location where, std::vector<TensorImpl*>& operands) const;
  Made made_of(uint32_t handle, int32_t output = -1) const;
  void give_version(core::Storage& s, uint32_t cell) const;
  void give_versions(const Plan& plan) const;
  void give_storage(const Made& m, Ref<core::Storage> storage);
  /// Finds the handed-out results that are not home. True if the plan covers those that are held.
  bool sweep(const Plan* plan);
  std::span<const uint32_t> busy() const { return {busy_.data(), n_busy_}; }
  void prune_tape(const SegmentEnd& segment);
  void clean_up();
  void release_arguments();
  void send_home(uint32_t handle);
  void give_away(uint32_t handle, TensorImpl* t);
  void send_all_home();

  // retape.cpp
  void rebuild_tape();
  bool leaves_match(const BackwardRecord& b);
  void skip_block(const BackwardRecord& b);
  bool same_backward(const BackwardRecord& b, const eager::BackwardCall& call) const;
  void consume(const BackwardRecord& b);

  uint32_t known_handle(const TensorImpl* t) const;
  void refuse_holders();

  friend class Lowering;
  friend class Shadow;
  Record& r_;
  Counters& counters_;
  std::span<Tensor> arguments_;  // of the running call
  ArgumentNames names_;
  Branch* branch_ = nullptr;
  int32_t branch_index_ = 0, position_ = 0;
  // The branch's entries, of which the first `comparable_` may be compared: none while the call records or
  // passes through.
  const Entry* entries_ = nullptr;
  int32_t comparable_ = 0;
  int32_t segment_start_ = 0;  // linear index of the first event after the last segment's end
  bool running_ = false, recording_ = false, tape_live_ = false, failed_ = false;
  bool throws_again_ = false;      // what ended the call, run op by op
  bool passthrough_ = false;       // the rest of this call runs op by op, unrecorded (R17)
  bool ran_op_by_op_ = false;      // a segment of this call
  bool external_history_ = false;  // an operand brought tape from before the call
  int32_t backward_ = -1;          // being walked: index of its BackwardRecord
  bool backward_recording_ = false;
  std::vector<uint32_t> ended_;  // segments ended in this call
  // Results that the body saw, the first `handed_` of them; all there are if `only_replayed()`. Behind them
  // those of earlier calls, which mostly come next, and kAhead more.
  std::vector<uint32_t> handed_out_;
  size_t handed_ = 0, handed_room_ = 0;
  // Of them: held, with memory or with history, as of the latest sweep; the first `n_busy_`.
  std::vector<uint32_t> busy_;
  size_t n_busy_ = 0;
  // Names this frame in the tensors that it lends; another name once handles stand for other values.
  uint64_t home_;
  // Memory of results that came back in this call, by handle, and whose.
  std::vector<Ref<core::Storage>> spare_;
  std::vector<uint32_t> taken_back_;
  size_t n_taken_back_ = 0;
  size_t swept_ = SIZE_MAX;               // `handed_` then; SIZE_MAX: none, or clean_up looks at all
  std::vector<eager::Version> versions_;  // of the memory of pending cells
  uint64_t versioned_ = 0;                // moves when one of them may have become more than 0
  std::vector<char> used_;                // by handle: used on the path so far (kept up while recording)
  std::vector<Ref<TensorImpl>> kept_;     // slots that died during the call
  // Tensors from outside that this call gave a history, or a requires_grad after their first use.
  std::vector<Ref<TensorImpl>> touched_;
  const TensorImpl* changing_ = nullptr;  // by requires_grad_, which keeps its binding
  class Shadow* shadow_ = nullptr;        // this call runs under verify or debug
  eager::Node* noted_ = nullptr;          // the nodes that this call has made, latest first
  std::vector<uint32_t> extra_results_;   // made after the last ended segment, by a call that was broken off
  std::vector<char> consumed_;            // by handle: history that was consumed and let go (while recording)
  struct {
    std::vector<void*> outputs;
    std::vector<int64_t> numbers;
    std::vector<Ref<core::Storage>> storages;
  } scratch_;
  struct Sizes {
    size_t handles, cells, words, more, branches, backwards, segments;
  } before_{};
};

}  // namespace tandem::tracer
