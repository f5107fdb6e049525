// Frozen replay: a traced function without its body. A call checks its arguments and the tensors that the
// function captured, runs the plan, and does to the outside what the body did: results, gradients, in-place
// changes, random numbers, optimizer step counts. Numbers are constants. It can be saved, and loaded in a
// program without the C++ source.
//
// A frozen function holds captured tensors weakly; a loaded one owns them. Copies share everything. Calls
// from several threads take turns.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/core/generator.h"
#include "tandem/eager/named_tensor.h"
#include "tandem/tracer/report.h"
#include "tandem/tracer/results.h"

namespace tandem {

/// TraceOptions::max_kept_bytes unless said otherwise, and of loaded functions.
inline constexpr int64_t kMaxKeptBytes = int64_t{1} << 30;

/// A tensor that the function captured.
struct FrozenTensor {
  std::string name;
  DType dtype = DType::float32;
  Dims sizes;
  bool requires_grad = false, written = false;
  std::string file;  // the line of its first use
  int line = 0;
};
struct FrozenReport {
  std::string name;
  int64_t signatures = 0, calls = 0;
  int64_t scans = 0;       // calls that looked at all captured tensors, because one had changed
  int64_t kept_bytes = 0;  // of what was made of captured tensors and is used again while these do not change
  std::vector<FrozenConstant> constants;
  std::vector<FrozenTensor> tensors;
};
std::string to_string(const FrozenReport& report);
std::ostream& operator<<(std::ostream& out, const FrozenReport& report);

struct SaveOptions {
  /// Names for captured tensors, such as `net.state()`; others are "slot0", "slot1", ...
  std::vector<NamedTensor> names = {};
  /// Keeps the generated kernels' source in the file, for reading.
  bool kernels = false;
};

namespace tracer {
class FrozenCore;
}

namespace tracer {
[[noreturn]] void fail_moved_from();

/// What a function shares with its copies; an Error in one that was moved from.
template <class T>
class Shared {
 public:
  Shared(std::shared_ptr<T> p) : p_(std::move(p)) {}
  T& operator*() const {
    if (!p_) [[unlikely]]
      fail_moved_from();
    return *p_;
  }
  T* operator->() const { return &**this; }

 private:
  std::shared_ptr<T> p_;
};
}  // namespace tracer

/// A frozen or loaded function of tensors.
class FrozenFunction {
 public:
  explicit FrozenFunction(std::shared_ptr<tracer::FrozenCore> core) : core_(std::move(core)) {}

  /// Arguments in the order in which the traced function's are taken apart (arguments.h), results likewise.
  /// Error if their dtypes, sizes, layouts or aliasing, or a captured tensor, are not as they were frozen.
  std::vector<Tensor> operator()(TensorSpan arguments) const;

  FrozenReport report() const;
  std::string graph() const;
  std::string code() const;

  /// One safetensors file: graphs, captured tensors, step counts, generator. Replaced in one step.
  void save(const std::string& path, const SaveOptions& options = {},
            Location where = Location::here()) const;

  /// The captured tensors (those that still live), by name. Of a loaded function these are its own: change
  /// them in place, save them, look at their gradients.
  std::vector<NamedTensor> state() const;
  /// Those of state() that require grad.
  std::vector<NamedTensor> parameters() const;
  /// What random ops draw from: a loaded function's own, as it was saved; else the default one.
  Generator& generator() const;
  /// A loaded function's kernels as they were saved; empty if they were not.
  std::string saved_kernels() const;

  /// For the library's own writers (io/).
  tracer::FrozenCore& core() const { return *core_; }

 protected:
  tracer::Shared<tracer::FrozenCore> core_;
};

/// Reads what FrozenFunction::save wrote. Error for what is damaged, foreign, of another version, or uses ops
/// that are not known.
FrozenFunction load_function(const std::string& path, Location where = Location::here());

namespace tracer {

/// The result of a body that holds tensors only, with all of them undefined, and which of them are defined.
struct Prototype {
  std::shared_ptr<const void> value;
  const void* type = nullptr;  // its type_tag
  std::vector<char> defined;
};
/// Null `types`: an untyped call.
void call_frozen(FrozenCore& core, std::span<Tensor> arguments, const CallTypes* types, Arguments& results,
                 const Prototype** prototype);
[[noreturn]] void fail_frozen_arguments(const FrozenCore& core, size_t which);
/// True if this thread runs a traced call.
bool inside_call();

template <class Arg>
inline constexpr bool is_frozen_argument = only_tensors<std::remove_cvref_t<Arg>>();

/// Calls with arguments that hold tensors only, and builds the body's result.
template <class Result, class... Args>
std::remove_cvref_t<Result> call_frozen_as(FrozenCore& core, Args&&... args) {
  const bool fine[] = {is_frozen_argument<Args>..., true};
  for (size_t i = 0; i < sizeof...(Args); ++i)
    if (!fine[i]) fail_frozen_arguments(core, i);
  if constexpr ((is_frozen_argument<Args> && ...) &&
                (std::is_void_v<Result> || only_tensors<std::remove_cvref_t<Result>>())) {
    Arguments arguments, results;
    (collect(arguments, args), ...);
    CallTypes types = types_of(args...);
    if constexpr (!std::is_void_v<Result>) types.result = &type_tag<std::remove_cvref_t<Result>>;
    const Prototype* prototype = nullptr;
    call_frozen(core, arguments.list(), &types, results, &prototype);
    if constexpr (!std::is_void_v<Result>) {
      using Plain = std::remove_cvref_t<Result>;
      Plain out = *static_cast<const Plain*>(prototype->value.get());
      size_t i = 0, next = 0;
      const auto tensor = [&](Tensor& t) {
        if (prototype->defined[i++]) t = std::move(results.list()[next++]);
      };
      const auto count = [](size_t) {};
      each_tensor(out, tensor, count);
      return out;
    }
  } else {
    fail_frozen_arguments(core, sizeof...(Args));
  }
}

}  // namespace tracer

/// What `TracedFunction::freeze` gives: called as the traced function is.
template <class F>
class Frozen : public FrozenFunction {
 public:
  Frozen(F f, std::shared_ptr<tracer::FrozenCore> core)
      : FrozenFunction(std::move(core)), function_(std::move(f)) {}

  using FrozenFunction::operator();
  /// Inside another traced call the body runs, as part of that one.
  template <class... Args>
  requires std::invocable<F&, Args&&...>
  auto operator()(Args&&... args) {
    using Result = std::invoke_result_t<F&, Args&&...>;
    if (tracer::inside_call())
      return static_cast<std::remove_cvref_t<Result>>(std::invoke(function_, std::forward<Args>(args)...));
    return tracer::call_frozen_as<Result>(*core_, std::forward<Args>(args)...);
  }

 private:
  F function_;
};

}  // namespace tandem
