// tandem::trace: wraps a callable so that the ops it executes are captured, compiled and replayed. The body
// runs on every call, with kernels off, and is compared with what was recorded: any C++ may stand in it, and
// removing `trace` changes the speed of a program and nothing else.
//
// A TracedFunction may be copied (copies share the trace) and called from several threads, one call at a
// time. A call inside another traced call runs its body as part of that one.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem {

namespace eager {
class Interceptor;
}

struct TraceOptions {
  std::string name = "traced";  // in logs and reports
  bool compile = true;          // false: kernels run in the chunk evaluator; fused all the same
};

/// What a trace has done and holds, as numbers to assert on. Bytes and counts are sums over its plans.
struct TraceReport {
  int64_t calls = 0, recorded = 0;
  int64_t signatures = 0, branches = 0, segments = 0, plans = 0;
  int64_t ops = 0;      // op events recorded, backward included
  int64_t entries = 0;  // plan entries: kernels, products, natives
  int64_t kernels = 0, compiled = 0, interpreted = 0, products = 0, natives = 0;
  int64_t arena_bytes = 0;
  double compile_ms = 0;
  int64_t op_by_op = 0;  // segments that ran op by op, so far
  int64_t slots_bound = 0;
  int64_t backward_skipped = 0, backward_walked = 0;
  int64_t eager_calls = 0;
  std::vector<std::string> op_by_op_reasons;
};

namespace tracer {

class Trace;

/// The tensor arguments of a call, held until it ends. Few need no allocation.
class Arguments {
 public:
  void add(const Tensor& t) {
    if (n_ < kFew) {
      few_[n_++] = t;
      return;
    }
    if (many_.empty()) many_.assign(few_, few_ + kFew);
    many_.push_back(t);
  }
  std::span<const Tensor> list() const {
    return many_.empty() ? std::span<const Tensor>(few_, n_) : std::span<const Tensor>(many_);
  }

 private:
  static constexpr size_t kFew = 8;
  Tensor few_[kFew];
  size_t n_ = 0;
  std::vector<Tensor> many_;
};

/// One call of a traced function: takes the trace's lock, binds the arguments, installs the interceptor.
class CallScope {
 public:
  CallScope(Trace& trace, std::span<const Tensor> arguments);
  /// If the body threw: what came before happens, as in eager mode.
  ~CallScope();
  /// The body has returned and its results are alive: runs what is pending.
  void finish();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  Trace& trace_;
  class Frame* frame_ = nullptr;  // null: the call runs eagerly
  eager::Interceptor* outer_ = nullptr;
};

/// True if this thread runs a traced call.
bool inside_call();
std::shared_ptr<Trace> make_trace(TraceOptions options);
TraceReport report(const Trace& trace);
std::string graph_text(const Trace& trace);
std::string code_text(const Trace& trace);

/// An undefined tensor is a host value: the body sees it.
inline void collect(Arguments& out, const Tensor& t) {
  if (t.defined()) out.add(t);
}
inline void collect(Arguments& out, const std::vector<Tensor>& list) {
  for (const Tensor& t : list) collect(out, t);
}
template <class A, class B>
void collect(Arguments& out, const std::pair<A, B>& p) {
  collect(out, p.first);
  collect(out, p.second);
}
template <class T>
void collect(Arguments& out, const std::optional<T>& o) {
  if (o) collect(out, *o);
}
/// Host values are no part of the signature: they are followed because the body runs.
template <class T>
void collect(Arguments&, const T&) {}

}  // namespace tracer

/// A callable whose ops are captured. See `trace`.
template <class F>
class TracedFunction {
 public:
  TracedFunction(F f, TraceOptions options)
      : function_(std::move(f)), trace_(tracer::make_trace(std::move(options))) {}

  template <class... Args>
  auto operator()(Args&&... args) {
    using Result = std::invoke_result_t<F&, Args&&...>;
    if (tracer::inside_call()) return function_(std::forward<Args>(args)...);
    tracer::Arguments arguments;
    (tracer::collect(arguments, args), ...);
    tracer::CallScope scope(*trace_, arguments.list());
    if constexpr (std::is_void_v<Result>) {
      function_(std::forward<Args>(args)...);
      scope.finish();
    } else {
      Result result = function_(std::forward<Args>(args)...);
      scope.finish();
      return result;
    }
  }

  TraceReport report() const { return tracer::report(*trace_); }
  /// The captured graphs as text, one a plan.
  std::string graph() const { return tracer::graph_text(*trace_); }
  /// The generated kernels' source.
  std::string code() const { return tracer::code_text(*trace_); }

 private:
  F function_;
  std::shared_ptr<tracer::Trace> trace_;
};

/// Wraps `f`. Calls with the same dtypes, shapes and layouts of tensor arguments share what was recorded;
/// everything else that may change between calls (captured numbers, parameters, branches, modes) is noticed
/// and followed.
template <class F>
TracedFunction<std::decay_t<F>> trace(F&& f, TraceOptions options = {}) {
  return {std::forward<F>(f), std::move(options)};
}

}  // namespace tandem
