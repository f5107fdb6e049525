// Activation checkpointing: a function's inner values are not kept for backward but computed again there. The
// tape's nodes own the function and its arguments until then. One thread.
#pragma once

#include <functional>
#include <memory>
#include <type_traits>

#include "tandem/eager/autograd.h"

namespace tandem {

namespace eager {

struct NotedNodes;

/// While it lives, ops note their gradients without what these need; `again` computes it when a backward
/// asks.
class CheckpointScope {
 public:
  CheckpointScope(std::function<void()> again, TensorList arguments);
  ~CheckpointScope();
  CheckpointScope(const CheckpointScope&) = delete;
  CheckpointScope& operator=(const CheckpointScope&) = delete;
  /// Whether there is anything to save: gradients are noted, no traced call runs, and no checkpoint around
  /// this one drops the values already.
  static bool wanted();
  /// The function has returned. Fails if it changed an argument in place.
  void end();

 private:
  std::unique_ptr<NotedNodes> noted_;
  NotedNodes* outer_;
};

inline void add_tensors(TensorList& out, const Tensor& t) { out.push_back(t); }
inline void add_tensors(TensorList& out, const TensorList& list) {
  out.insert(out.end(), list.begin(), list.end());
}
template <class T>
void add_tensors(TensorList&, const T&) {}

}  // namespace eager

namespace autograd {
/// True while a checkpointed function runs again in backward: for effects that shall happen once, such as
/// running statistics.
bool recomputing();
}  // namespace autograd

/// function(arguments...) without keeping the inner values that its gradients need: backward() calls it once
/// more to have them (Chen et al., 2016; PyTorch's torch.utils.checkpoint with use_reentrant=False).
/// Gradients go to arguments and to captured parameters as without, bit for bit: the second call has the
/// modes of the first and the default generator as of then, so dropout drops the same elements; afterwards
/// the generator is as before. Checkpoints nest, and gradients may be differentiated again (create_graph).
///
/// The function is copied if it can be; a module must live until backward. Side effects happen twice (see
/// autograd::recomputing), draws from other generators than the default one differ. Errors, in backward: an
/// argument, a parameter or a captured tensor that an op with gradients uses was changed in place since, or
/// the second call did other ops than the first; at once: the function changes an argument in place.
/// autograd::grad within the function calls it once more.
/// In a traced call the function runs once, and its inner values are kept where the plan needs them; a traced
/// function that the checkpointed one calls keeps its own.
template <class F, class... Arguments>
auto checkpoint(F&& function, const Arguments&... arguments) {
  constexpr bool copied = std::is_copy_constructible_v<std::remove_cvref_t<F>>;
  static_assert(copied || std::is_lvalue_reference_v<F>,
                "checkpoint: a function that cannot be copied must live until backward");
  if (!eager::CheckpointScope::wanted()) return std::invoke(function, arguments...);
  TensorList tensors;
  (eager::add_tensors(tensors, arguments), ...);
  std::function<void()> again;
  if constexpr (copied)
    again = [copy = std::remove_cvref_t<F>(function), arguments...]() mutable {
      (void)std::invoke(copy, arguments...);
    };
  else
    again = [&function, arguments...] { (void)std::invoke(function, arguments...); };
  eager::CheckpointScope scope(std::move(again), std::move(tensors));
  if constexpr (std::is_void_v<std::invoke_result_t<F&, const Arguments&...>>) {
    std::invoke(function, arguments...);
    scope.end();
  } else {
    auto results = std::invoke(function, arguments...);
    scope.end();
    return results;
  }
}

}  // namespace tandem
