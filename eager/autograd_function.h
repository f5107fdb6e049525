// Functions with a gradient of their own as classes, as in PyTorch's C++ API:
//
//   struct Swish : td::autograd::Function<Swish> {
//     static td::Tensor forward(td::autograd::Context& c, const td::Tensor& x, double beta) {
//       c.save_for_backward({x});
//       c.saved_data["beta"] = beta;
//       return x * td::sigmoid(x * beta);
//     }
//     static td::TensorList backward(td::autograd::Context& c, const td::TensorList& grads) { ... }
//   };
//   td::Tensor y = Swish::apply(x, 1.5);
//
// forward and backward are host code: in a traced call both run on every call, and the ops in them are
// compared or recorded like any others (R4). Stateless; any thread.
#pragma once

#include <concepts>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"

namespace tandem::autograd {

/// A tensor with the caller's line.
struct LocatedTensor {
  LocatedTensor(const Tensor& t, Location where = Location::here()) : tensor(t), where(where) {}  // NOLINT
  Tensor tensor;
  Location where;
};

/// Whether a T carries tensors where apply() does not see them: in a container, an optional, a pair, a tuple.
template <class T>
constexpr bool hides_tensors() {
  constexpr auto carries = []<class E>(std::type_identity<E>) {
    return std::is_convertible_v<E, const Tensor&> || hides_tensors<E>();
  };
  if constexpr (std::is_convertible_v<T, const Tensor&>)
    return false;
  else if constexpr (std::is_array_v<T>)
    return carries(std::type_identity<std::remove_cv_t<std::remove_extent_t<T>>>{});
  else if constexpr (requires { typename T::value_type; })
    return carries(std::type_identity<std::remove_cv_t<typename T::value_type>>{});
  else if constexpr (requires { std::tuple_size<T>::value; }) {
    const auto any = [&]<size_t... i>(std::index_sequence<i...>) {
      return (carries(std::type_identity<std::remove_cv_t<std::tuple_element_t<i, T>>>{}) || ...);
    };
    return any(std::make_index_sequence<std::tuple_size_v<T>>{});
  } else {
    return false;
  }
}

/// The base of a custom function `F`, which has
///
///   static R forward(Context&, arguments...)           R: Tensor or TensorList
///   static G backward(Context&, const TensorList& grads)
///
/// `apply(arguments...)` runs forward without a tape and notes its results. backward gets one gradient per
/// result (zeros where none flowed, see Context::set_materialize_grads) and returns one gradient per argument
/// of forward, undefined for those that are no tensors or need none; a plain Tensor if one argument alone is
/// a tensor. Gradients of another floating dtype than the argument's are cast to it. Tensors inside of a
/// vector, an optional, ... do not compile as arguments: they would get no gradient. What backward does with
/// differentiable ops can be differentiated again. Errors: another number of gradients, another shape than
/// the argument's, integers as a gradient, a saved tensor that was changed in place since.
template <class F>
struct Function {
  template <class... Rest>
  static auto apply(const LocatedTensor& first, const Rest&... rest) {
    return run(first.where, first.tensor, rest...);
  }
  template <class First, class... Rest>
  requires(!std::convertible_to<const First&, LocatedTensor>) static auto apply(const First& first,
                                                                                const Rest&... rest) {
    return run(Location{}, first, rest...);
  }

 private:
  struct Type {
    bool defined = false;
    Dims sizes;
    DType dtype = float32;
    Device device;
  };

  static TensorList listed(Tensor t) { return {std::move(t)}; }
  static TensorList listed(TensorList t) { return t; }

  template <class... Args>
  static auto run(Location where, const Args&... args) {
    using Result = decltype(F::forward(std::declval<Context&>(), args...));
    static_assert(std::is_same_v<Result, Tensor> || std::is_same_v<Result, TensorList>,
                  "forward of an autograd::Function returns a Tensor or a TensorList");
    static_assert((std::is_convertible_v<const Args&, const Tensor&> || ...),
                  "an autograd::Function needs an argument that is a tensor");
    static_assert(
        !(hides_tensors<Args>() || ...),
        "an autograd::Function takes each tensor as an argument of its own: those inside of a vector, "
        "an optional, a pair or a tuple would get no gradient");
    constexpr size_t n_args = sizeof...(Args);
    static constexpr bool tensor[] = {std::is_convertible_v<const Args&, const Tensor&>...};
    TensorList inputs;
    const auto collect = [&](const auto& arg) {
      if constexpr (std::is_convertible_v<decltype(arg), const Tensor&>) inputs.push_back(arg);
    };
    (collect(args), ...);
    const auto types = std::make_shared<std::vector<Type>>();
    const auto forward = [&](Context& c, const TensorList&) {
      const std::vector<bool> per_tensor = std::exchange(c.needs_, {});
      for (size_t i = 0, t = 0; i < n_args; ++i) c.needs_.push_back(tensor[i] && per_tensor[t++]);
      TensorList results = listed(F::forward(c, args...));
      for (const Tensor& r : results)
        types->push_back(r.defined() ? Type{true, r.sizes(), r.dtype(), r.device()} : Type{});
      return results;
    };
    const auto backward = [types, where](Context& c, const TensorList& grads) {
      TensorList incoming = grads;
      for (size_t j = 0; j < incoming.size() && c.materialize_; ++j)
        if (const Type& t = (*types)[j]; !incoming[j].defined() && t.defined)
          incoming[j] = zeros(t.sizes, {.dtype = t.dtype, .device = t.device}, where);
      using Gradients = decltype(F::backward(c, incoming));
      static_assert(std::is_same_v<Gradients, Tensor> || std::is_same_v<Gradients, TensorList>,
                    "backward of an autograd::Function returns a Tensor or a TensorList");
      constexpr size_t n_tensors = (size_t{std::is_convertible_v<const Args&, const Tensor&>} + ...);
      static_assert(n_tensors == 1 || std::is_same_v<Gradients, TensorList>,
                    "backward of an autograd::Function with several tensors returns a TensorList");
      TensorList given = listed(F::backward(c, incoming));
      if (std::is_same_v<Gradients, Tensor>) return given;
      if (given.size() != n_args)
        fail("custom function: backward returned " + std::to_string(given.size()) + " gradients for " +
                 std::to_string(n_args) + " arguments of forward; those that are no tensors get Tensor()",
             where);
      TensorList out;
      for (size_t i = 0; i < n_args; ++i) {
        if (tensor[i])
          out.push_back(std::move(given[i]));
        else if (given[i].defined())
          fail("custom function: backward returned a gradient for argument " + std::to_string(i) +
                   ", which is no tensor",
               where);
      }
      return out;
    };
    TensorList results = autograd::apply(forward, backward, inputs, where);
    if constexpr (std::is_same_v<Result, Tensor>)
      return std::move(results[0]);
    else
      return results;
  }
};

}  // namespace tandem::autograd
