// tandem::trace: wraps a callable so that the ops it executes are captured, compiled and replayed. The body
// runs on every call, with kernels off, and is compared with what was recorded: any C++ may stand in it, and
// removing `trace` changes the speed of a program and nothing else.
//
// A TracedFunction may be copied (copies share the trace) and called from several threads at the same time:
// each call has a frame of its own, and a thread that finds a signature in use records it once more (kernels
// are shared). Calls that write the same tensors race as the bare function would. A call inside another
// traced call runs its body as part of that one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/core/profile.h"
#include "tandem/eager/tensor.h"
#include "tandem/tracer/arguments.h"
#include "tandem/tracer/frozen.h"
#include "tandem/tracer/report.h"

namespace tandem {

namespace eager {
class Interceptor;
}

enum class Replay : uint8_t {
  checked,  // the body runs on every call, and is compared
  frozen,   // after the first calls of a signature its body does not run any more (TracedFunction::freeze)
};

struct TraceOptions {
  std::string name = "traced";  // in logs and reports
  bool compile = true;          // false: kernels run in the chunk evaluator; fused all the same
  /// `frozen`: a signature freezes itself after two calls that did the same; an Error if it cannot be frozen.
  Replay replay = Replay::checked;
  /// An Error, which says what differs, instead of recording one more signature or branch.
  int64_t max_traces = INT64_MAX;
  /// What is recorded may take about so much memory (estimated); what was not used for the
  /// longest time is forgotten.
  int64_t max_bytes = int64_t{64} << 20;
  /// What plans make of captured tensors alone (weights cast, or in a layout that products read best) is kept
  /// from call to call while these do not change, if a plan's takes no more than this; 0: never.
  int64_t max_kept_bytes = kMaxKeptBytes;
  /// An Error with the reason where a segment would run op by op because it is no graph, or a call eagerly.
  bool require_full_capture = false;
  /// So many calls of each signature and branch (-1: all) run their ops eagerly besides, on copies, and what
  /// the plans give is compared bit for bit. A difference throws an Error that names op, values and line.
  int verify = 0;
  /// Every call runs op by op as it is called, and a result that is not finite throws an Error at its line.
  bool debug = false;
};

namespace tracer {

class Trace;
struct Recorded;  // what is known of one signature of arguments: its record and frame

/// One call of a traced function: finds what was recorded, binds the arguments, installs the interceptor.
/// Lets go of an argument early if the body gave it up and nothing later needs it.
class CallScope {
 public:
  /// `check`: this call is verified, whatever the options.
  CallScope(Trace& trace, std::span<Tensor> arguments, ArgumentNames names, bool check = false);
  /// If the body threw: what came before happens, as in eager mode.
  ~CallScope();
  /// The body has returned and its results are alive: runs what is pending.
  void finish();
  /// This call is one of the first, which are observed for freezing: `observe` before the body runs, then,
  /// before `finish`, what it returned, if anything.
  bool observed() const { return observed_; }
  void observe(const std::optional<CallTypes>& types);
  void observe_results(std::span<core::TensorImpl* const> results, Prototype prototype);
  void observe_other_result();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  void finish_observed();
  void leave(bool settled);

  Trace& trace_;
  core::ProfileSpan span_;
  bool observed_ = false;
  bool tensors_alone_ = true;  // the arguments, while observed
  Recorded* entry_ = nullptr;  // null: the call runs eagerly
  std::unique_ptr<class Shadow> shadow_;
  eager::Interceptor* outer_ = nullptr;
  const void* outer_frame_ = nullptr;
};

std::shared_ptr<Trace> make_trace(TraceOptions options, Location where);
TraceReport report(const Trace& trace);
std::string graph_text(const Trace& trace);
std::string code_text(const Trace& trace);
void draw(const Trace& trace, const std::string& path, Location where);
/// What was recorded and observed, without the body.
std::shared_ptr<FrozenCore> freeze(Trace& trace, Location where);
/// Under Replay::frozen: the core, if these arguments are frozen or can be now; null if they are to be
/// observed first. Throws if they cannot be frozen.
FrozenCore* frozen_core(Trace& trace, std::span<const Tensor> arguments,
                        const std::optional<CallTypes>& types);
/// A result that refers to something has no value without the body.
[[noreturn]] void fail_frozen_reference(const Trace& trace);

/// Null if the arguments hold more than tensors.
template <class... Args>
std::optional<CallTypes> frozen_types(const Args&... args) {
  if constexpr ((is_frozen_argument<Args> && ...))
    return types_of(args...);
  else
    return std::nullopt;
}

/// What the body of an observed call has returned.
template <class Result>
void observe_result(CallScope& scope, const Result& result) {
  if constexpr (only_tensors<Result>()) {
    std::vector<core::TensorImpl*> tensors;
    std::vector<char> defined;
    auto prototype = std::make_shared<Result>(result);
    const auto tensor = [&](Tensor& t) {
      defined.push_back(t.defined());
      if (t.defined()) tensors.push_back(t.impl());
      t = Tensor();
    };
    const auto count = [](size_t) {};
    each_tensor(*prototype, tensor, count);
    scope.observe_results(tensors, {std::move(prototype), &type_tag<Result>, std::move(defined)});
  } else {
    scope.observe_other_result();
  }
}

}  // namespace tracer

/// A callable whose ops are captured. See `trace`.
template <class F>
class TracedFunction {
 public:
  TracedFunction(F f, TraceOptions options, Location where = Location::here())
      : function_(std::move(f)),
        frozen_(options.replay == Replay::frozen),
        trace_(tracer::make_trace(std::move(options), where)) {}

  /// Calls the function. Arguments are taken apart (arguments.h); what it returns is real, whatever holds it.
  template <class... Args>
  std::invoke_result_t<F&, Args&&...> operator()(Args&&... args) {
    return call(false, std::forward<Args>(args)...);
  }

  /// A call whose plans are compared with an eager run on copies (TraceOptions::verify), once. Throws at a
  /// difference; the eager values stand then.
  template <class... Args>
  std::invoke_result_t<F&, Args&&...> check(Args&&... args) {
    return call(true, std::forward<Args>(args)...);
  }

  /// The function without its body, for the signatures of arguments that two calls have shown to do the same.
  /// Numbers become constants (FrozenFunction::report); captured tensors are followed. An Error with the line
  /// of what only the body can do: reads, branches, host code in backward, tensors made from host data,
  /// numbers that changed between calls, results that are not tensors, values kept elsewhere.
  Frozen<F> freeze(Location where = Location::here()) const {
    return {function_, tracer::freeze(*trace_, where)};
  }

  TraceReport report() const { return tracer::report(*trace_); }
  /// The captured graphs as text, one a plan.
  std::string graph() const { return tracer::graph_text(*trace_); }
  /// The generated kernels' source.
  std::string code() const { return tracer::code_text(*trace_); }
  /// Writes one HTML page that needs nothing else: each plan as a picture from left to right, groups as boxes
  /// around their ops; a click shows kernel source, shapes, bytes and the user's line.
  void draw(const std::string& path, Location where = Location::here()) const {
    tracer::draw(*trace_, path, where);
  }

 private:
  template <class... Args>
  std::invoke_result_t<F&, Args&&...> call(bool check, Args&&... args) {
    using Result = std::invoke_result_t<F&, Args&&...>;
    if (tracer::inside_call()) return std::invoke(function_, std::forward<Args>(args)...);
    tracer::Arguments arguments;
    (tracer::collect(arguments, args), ...);
    if (frozen_ && !check) [[unlikely]] {
      if constexpr (std::is_reference_v<Result>)
        tracer::fail_frozen_reference(*trace_);
      else if (tracer::FrozenCore* core =
                   tracer::frozen_core(*trace_, arguments.list(), tracer::frozen_types(args...)))
        return tracer::call_frozen_as<Result>(*core, std::forward<Args>(args)...);
    }
    const auto name = [&](size_t index) { return tracer::argument_name(index, args...); };
    tracer::CallScope scope(*trace_, arguments.list(), {name_with<decltype(name)>, &name}, check);
    if (scope.observed()) [[unlikely]]
      scope.observe(tracer::frozen_types(args...));
    if constexpr (std::is_void_v<Result>) {
      std::invoke(function_, std::forward<Args>(args)...);
      scope.finish();
    } else {
      Result result = std::invoke(function_, std::forward<Args>(args)...);
      if (scope.observed()) [[unlikely]]
        tracer::observe_result(scope, result);
      scope.finish();
      if constexpr (std::is_reference_v<Result>)
        return static_cast<Result>(result);
      else
        return result;
    }
  }

  template <class Name>
  static std::string name_with(const void* name, size_t index) {
    return (*static_cast<const Name*>(name))(index);
  }

  F function_;
  bool frozen_;
  tracer::Shared<tracer::Trace> trace_;
};

/// Wraps `f`. Calls with the same dtypes, shapes and layouts of tensor arguments share what was recorded;
/// everything else that may change between calls (captured numbers, parameters, branches, modes) is noticed
/// and followed.
template <class F>
TracedFunction<std::decay_t<F>> trace(F&& f, TraceOptions options = {}, Location where = Location::here()) {
  return {std::forward<F>(f), std::move(options), where};
}

}  // namespace tandem
