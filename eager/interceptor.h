// The dispatcher's one listener: the tracer. Everything that changes what later ops mean passes here, before
// check and inference and at the outermost call (a composite is one call). Installed per thread for the
// length of a traced call; without one, everything eager runs as it is.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tandem/core/tensor_impl.h"
#include "tandem/ops/op.h"

namespace tandem::eager {

/// Where a run-time number of a gradient's op came from: a word of the recorded op whose gradient it is, or
/// arithmetic on such. A replayed backward computes its numbers anew from these.
struct NumberSource {
  int64_t word = -1;  // >= 0: index of the tracer's word
  NumberKind kind = NumberKind::floating;
  ops::ScalarOp op = ops::ScalarOp::count_;
  double constant = 0;  // neither a word nor arithmetic
  std::shared_ptr<const NumberSource> a, b;

  bool follows() const { return word >= 0 || (a && a->follows()) || (b && b->follows()); }
  double value(const int64_t* words) const;
  /// The word to store, for a number of the given kind.
  int64_t bits(const int64_t* words, NumberKind as) const;
};

/// Bit i of a mask of number operands: only tensors come after its last one.
constexpr bool is_number(uint32_t numbers, size_t i) { return i < 32 && ((numbers >> i) & 1); }

/// One call of an op. Words: for each number operand its (NumberKind, bits), then the attributes in declared
/// order.
struct Call {
  ops::OpId op;
  bool in_place = false;  // result j replaces operand OpDef::writes[j]
  uint32_t numbers = 0;   // bit i: operand i is a number
  uint32_t n_in = 0, n_words = 0;
  core::TensorImpl* const* in = nullptr;  // null: a number or an absent optional operand
  const int64_t* words = nullptr;
  // Calls of the library's own rules: per word, what it follows; null for constants of the rule. Null for
  // users' calls.
  const std::shared_ptr<const NumberSource>* sources = nullptr;
  Location where;
};

/// What a view shows: its parent, through one view op.
struct ViewOf {
  core::TensorImpl* parent = nullptr;
  ops::OpId op = ops::OpId::count_;
  std::span<const int64_t> words;
  Location where;
};

/// A backward() that adds to leaves' gradients. `gradients` entries may be null (ones).
struct BackwardCall {
  std::span<core::TensorImpl*const> roots, gradients;
  bool retain_graph = false, create_graph = false;
  Location where;
};

/// How often memory was changed in place, and where last.
struct Version {
  uint32_t count = 0;
  Location changed_at;
};

/// How often each parameter of an optimizer was updated: host state that moves with every update op. Owned by
/// the optimizer; who replays its steps without running it moves the counts itself.
struct StepCounts {
  std::vector<int64_t> count;
  std::vector<const core::TensorImpl*> of;  // the parameters, which the optimizer holds
};

class Interceptor {
 public:
  virtual ~Interceptor() = default;
  /// Takes the call over, unchecked but for in-place changes of leaves. Returns true if the dispatcher shall
  /// note it on the tape (as after an eager op).
  virtual bool op(const Call& call, core::Ref<core::TensorImpl>* results) = 0;
  /// A run of `n` in-place calls that differ in their operands alone: call k has the n_in ones from
  /// `call.in + k * n_in` on. Takes over the first of them, as many as it knows without a look at each by
  /// `op`, and returns how many. Asked where no gradients are noted.
  virtual size_t op_run(const Call& /*call*/, size_t /*n*/) { return 0; }
  /// True: the block was known and is done. False: walk it; leaf_grad calls and end_backward follow.
  virtual bool backward(const BackwardCall& call) = 0;
  virtual void end_backward() = 0;
  /// The tape is about to be walked for other purposes than `backward` (autograd::grad).
  virtual void need_tape() = 0;
  /// The gradients in `held` (none null) are about to be dropped in this order. Takes over those that nobody
  /// else holds and that it can use again, and leaves null there.
  virtual void take_back(std::span<core::Ref<core::TensorImpl>* const> /*held*/) {}
  /// A leaf's gradient went from `before` (null: none) to `after` in this walk.
  virtual void leaf_grad(core::TensorImpl* leaf, core::TensorImpl* before, core::TensorImpl* after) = 0;
  /// Host code (a hook, a custom function) is about to run inside a backward.
  virtual void host_code() = 0;
  /// The values of `t` are about to be read or its address handed out: make it real.
  virtual void read(core::TensorImpl* t, Location where) = 0;
  /// True if ops that have not run yet write the memory of this real tensor, or, with `pointer`, use it at
  /// all: its values cannot be read, or its address handed out, before `read`.
  virtual bool owes(const core::TensorImpl* t, bool pointer) = 0;
  /// requires_grad_ is about to change `t`.
  virtual void requires_grad(core::TensorImpl* t, bool on, Location where) = 0;
  /// The memory of a pending view of something real; null if there is none yet.
  virtual core::Storage* memory(const core::TensorImpl* t) = 0;
  /// The version of a pending tensor's memory that is not there yet.
  virtual Version& version(core::TensorImpl* t) = 0;
  /// What a tensor of the running call views; false if it is no view.
  virtual bool view(const core::TensorImpl* t, ViewOf& out) = 0;
  /// False while calls are compared without a tape.
  virtual bool has_tape() const = 0;
  /// The dispatcher has noted the call that op() took over as node `n`.
  virtual void noted(const Call& call, core::TapeNode* n) = 0;
  /// An optimizer has made a step: `counts` moved by one for each parameter that an update op changed.
  virtual void stepped(const std::shared_ptr<StepCounts>&) {}
  /// While `observes`: `.grad` of this tensor is about to be set or dropped, other than by backward, or read.
  virtual void grad_used(core::TensorImpl*, bool /*set*/) {}
  /// While `observes`: values of a tensor that is real and not owed are read, or its address is handed out.
  virtual void real_read(Location) {}
  bool observes = false;
  /// A tensor of borrowed memory was made (from_blob, DLPack).
  virtual void borrowed() {}
  /// While `borrows`: an op, or a backward, is over. What it reads and writes of borrowed memory happens now:
  /// the program may use that for something else, or free it, as soon as eager mode would be done with it.
  virtual void op_over(const Call&) {}
  virtual void backward_over(Location) {}
  bool borrows = false;
  bool walks = false;  // a backward is under way: `backward_over` is for all of its ops
};

extern constinit thread_local Interceptor* interceptor_;
inline Interceptor* interceptor() { return interceptor_; }

/// Installs (or, with null, removes) this thread's interceptor for a scope.
class InterceptorGuard {
 public:
  explicit InterceptorGuard(Interceptor* i) : saved_(interceptor_) { interceptor_ = i; }
  ~InterceptorGuard() { interceptor_ = saved_; }
  InterceptorGuard(const InterceptorGuard&) = delete;
  InterceptorGuard& operator=(const InterceptorGuard&) = delete;

 private:
  Interceptor* saved_;
};

}  // namespace tandem::eager
