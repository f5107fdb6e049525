// Autograd's public functions: gradients as values, and user-defined functions with a gradient of their own
// (autograd_function.h has them as classes). Backward runs on the calling thread; host code in it (hooks,
// custom functions) too.
#pragma once

#include <any>
#include <functional>
#include <map>
#include <memory>

#include "tandem/eager/tensor.h"

namespace tandem {

using TensorList = std::vector<Tensor>;

namespace autograd {

/// Gradients of `outputs` with respect to `inputs`, returned instead of accumulated. Only what leads to an
/// input is walked, and freed unless `retain_graph`. An input that was not reached gives an undefined tensor
/// if `allow_unused`, else an Error. `grad_outputs` have the outputs' sizes and devices, and are cast to
/// their dtypes.
TensorList grad(TensorSpan outputs, TensorSpan inputs, TensorSpan grad_outputs = {},
                bool retain_graph = false, bool create_graph = false, bool allow_unused = false,
                Location where = Location::here());

/// backward() of several roots in one walk.
void backward(TensorSpan roots, TensorSpan gradients = {}, bool retain_graph = false,
              bool create_graph = false, Location where = Location::here());

/// What a custom function keeps between forward and backward.
class Context {
 public:
  /// Tensors that backward reads; changing one in place before is an Error there.
  void save_for_backward(TensorList tensors) { saved_ = std::move(tensors); }
  const TensorList& saved() const { return saved_; }
  const TensorList& get_saved_variables() const { return saved_; }
  /// Anything else that backward needs: numbers, sizes, flags. Not for tensors, whose changes nobody would
  /// notice and which may keep themselves alive here.
  std::map<std::string, std::any> saved_data;
  /// Whether the gradient of argument `i` is wanted: asked in forward (then: whether it may come to be) and
  /// in backward. False for what is no tensor.
  bool needs_input_grad(size_t i) const { return i < needs_.size() && needs_[i]; }
  /// In forward: these results have no gradient; they do not require grad. Inputs among them are detached.
  void mark_non_differentiable(TensorList results) { non_differentiable_ = std::move(results); }
  /// In forward of a Function: whether backward gets zeros (the default) or undefined tensors for results
  /// that no gradient flowed to.
  void set_materialize_grads(bool on) { materialize_ = on; }

 private:
  template <class>
  friend struct Function;
  friend TensorList apply(const std::function<TensorList(Context&, const TensorList&)>& forward,
                          const std::function<TensorList(Context&, const TensorList&)>& backward,
                          const TensorList& inputs, Location where);
  TensorList saved_;
  std::vector<bool> needs_;
  TensorList non_differentiable_;
  bool materialize_ = true;
};

/// A function with a gradient of its own: `forward` runs without a tape; `backward` gets the gradients of the
/// results (undefined where none flowed) and returns one per input (undefined for none), cast to its dtype.
TensorList apply(const std::function<TensorList(Context&, const TensorList&)>& forward,
                 const std::function<TensorList(Context&, const TensorList&)>& backward,
                 const TensorList& inputs, Location where = Location::here());

}  // namespace autograd
}  // namespace tandem
