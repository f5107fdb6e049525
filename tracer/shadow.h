// A traced call under verify or debug: stands in front of the call's frame as the thread's interceptor, hands
// everything on, and runs each op eagerly besides, on shadow copies. A segment's end compares what its plan
// made with the shadows (verify), or takes the shadows as its values (debug), and forgets them: the next
// segment begins from real values. Made for one call, used by its thread; plain calls never meet one.
#pragma once

#include <exception>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tandem/tracer/frame.h"

namespace tandem::tracer {

class Shadow final : public eager::Interceptor {
 public:
  enum class Mode {
    verify,  // plans run, and are compared
    debug,   // no plan runs; every result must be finite
  };
  /// `function`: its name, for messages.
  Shadow(Frame& frame, Mode mode, std::string function);
  ~Shadow() override;

  /// The call has ended well. A path counts as verified if each of its segments ran as it will from now on.
  void finish();

  // Told by the frame.
  /// Debug: gives the segment's results and writes their values; true if it did.
  bool take_over(const SegmentEnd& segment);
  /// Verify: the segment has run. Throws at a difference, after the eager values were put in place.
  void compare(const SegmentEnd& segment);

  bool op(const eager::Call& call, Ref<TensorImpl>* results) override;
  bool backward(const eager::BackwardCall& call) override;
  void end_backward() override;
  void need_tape() override { frame_.need_tape(); }
  void leaf_grad(TensorImpl* leaf, TensorImpl* before, TensorImpl* after) override {
    frame_.leaf_grad(leaf, before, after);
  }
  void host_code() override { frame_.host_code(); }
  void read(TensorImpl* t, Location where) override { frame_.read(t, where); }
  bool owes(const TensorImpl* t, bool pointer) override { return frame_.owes(t, pointer); }
  void requires_grad(TensorImpl* t, bool on, Location where) override { frame_.requires_grad(t, on, where); }
  core::Storage* memory(const TensorImpl* t) override { return frame_.memory(t); }
  eager::Version& version(TensorImpl* t) override { return frame_.version(t); }
  bool view(const TensorImpl* t, eager::ViewOf& out) override { return frame_.view(t, out); }
  bool has_tape() const override { return frame_.has_tape(); }
  void noted(const eager::Call& call, core::TapeNode* n) override { frame_.noted(call, n); }
  void stepped(const std::shared_ptr<eager::StepCounts>& counts) override { frame_.stepped(counts); }
  void borrowed() override {
    frame_.borrowed();
    borrows = frame_.borrows;
  }
  void op_over(const eager::Call& call) override { frame_.op_over(call); }
  void backward_over(Location where) override { frame_.backward_over(where); }

 private:
  /// Memory that the segment found, and its copy.
  struct Memory {
    Ref<core::Storage> real, copy, before;  // before: as it was; null unless an op wrote it
  };
  /// A value that an op gave a cell. What a later op overwrites is kept as of before.
  struct Value {
    uint32_t cell = 0, handle = 0;  // handle: of the tensor whose memory it is, no view of this call
    Ref<core::Storage> storage;
    bool current = true;
  };
  struct Step {
    ops::OpId op;
    Location where;
    std::vector<Value> values;
  };
  /// A value that differs: where, and what was found and expected.
  struct Difference {
    const Step* step = nullptr;
    const HandleInfo* layout = nullptr;
    int64_t element = 0;  // in logical order
    double found = 0, expected = 0;
  };

  void run(const eager::Call& call);
  Ref<TensorImpl> shadow_of(TensorImpl* t);
  Memory& memory_of(const Ref<core::Storage>& real);
  void keep_before(const core::Storage* storage);
  void check_finite(const eager::Call& call, TensorImpl* const* in, TensorImpl* const* out);
  void adopt(std::span<const uint32_t> results);
  Difference first_visible() const;
  Difference first_of_all(const SegmentEnd& segment, const Difference& visible) const;
  void put_right();
  void forget();

  Frame& frame_;
  const Mode mode_;
  const std::string function_;
  std::unordered_map<uint32_t, Ref<TensorImpl>> results_;  // shadows of this segment's results, by handle
  std::unordered_map<const core::Storage*, Memory> memory_;
  std::unordered_map<const core::Storage*, const core::Storage*> real_of_;  // by copy
  std::unordered_map<const core::Storage*, std::vector<std::pair<size_t, size_t>>>
      uses_;                                           // values, by shadow
  std::vector<Step> steps_;                            // the segment's ops
  std::vector<std::pair<uint32_t, int64_t>> skipped_;  // words, as a skipped backward would leave them
  Location backward_at_;
  std::exception_ptr error_;  // what an op threw eagerly; later ones have no shadows
  Device device_;             // of the latest op
  bool waits_ = false;        // a segment ran op by op because it was new
};

}  // namespace tandem::tracer
