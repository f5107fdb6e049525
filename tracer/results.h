// Types that hold tensors and nothing else: what a frozen function can take and give back without its body.
// Tensor; pair, tuple, std::array, vector and aggregates of such. Compile-time only, and two walks over their
// tensors; any thread.
#pragma once

#include <array>
#include <concepts>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tandem/eager/tensor.h"
#include "tandem/tracer/arguments.h"
#include "tandem/tracer/fields.h"

namespace tandem::tracer {

template <class T>
struct is_vector : std::false_type {};
template <class T, class A>
struct is_vector<std::vector<T, A>> : std::true_type {
  using element = T;
};

/// `Outer`: the aggregates that T is a part of. One that holds itself (a tree) asks nothing new.
template <class T, class... Outer>
constexpr bool only_tensors();

template <class T, class... Outer, size_t... I>
constexpr bool tuple_only_tensors(std::index_sequence<I...>) {
  return (only_tensors<std::tuple_element_t<I, T>, Outer...>() && ...);
}
/// The fields of an aggregate as a pack of types.
template <class... Fields>
struct FieldTypes {
  template <class... Outer>
  static constexpr bool only() {
    return (only_tensors<std::remove_cvref_t<Fields>, Outer...>() && ...);
  }
};
template <class T>
using fields_of = decltype(with_fields(std::declval<const T&>(),
                                       [](const auto&... f) -> FieldTypes<decltype(f)...> { return {}; }));

template <class T, class... Outer>
constexpr bool only_tensors() {
  if constexpr (std::is_same_v<T, Tensor> || (std::is_same_v<T, Outer> || ...))
    return true;
  else if constexpr (is_vector<T>::value)
    return only_tensors<typename is_vector<T>::element, Outer...>();
  else if constexpr (!Complete<T>)
    return false;
  else if constexpr (requires(const T& t) { t.tensors_of(0); } || OptionalLike<T> || PointerLike<T> || Map<T>)
    return false;
  else if constexpr (TupleLike<T>)
    return tuple_only_tensors<T, Outer...>(std::make_index_sequence<std::tuple_size_v<T>>());
  else if constexpr (Container<T>)
    return false;
  else if constexpr (Decomposable<T>)
    return fields_of<T>::template only<T, Outer...>();
  else
    return false;
}

/// Calls `f(tensor)` for each tensor, undefined ones too, and `n(count)` for each vector, in order. T is
/// const or not.
template <class T, class F, class N>
void each_tensor(T& value, F& f, N& n) {
  using Plain = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<Plain, Tensor>) {
    f(value);
  } else if constexpr (is_vector<Plain>::value) {
    n(value.size());
    for (auto& element : value) each_tensor(element, f, n);
  } else if constexpr (TupleLike<Plain>) {
    std::apply([&](auto&... parts) { (each_tensor(parts, f, n), ...); }, value);
  } else {
    with_fields(value, [&](auto&... fields) { (each_tensor(fields, f, n), ...); });
  }
}

/// One object a type, whose address names the type.
template <class T>
inline constexpr char type_tag = 0;

/// What a typed call is in C++.
struct CallTypes {
  uint64_t structure = 0;        // how many elements which vector has and which tensors are defined
  uint64_t arguments = 0;        // their types, as type_tags
  const void* result = nullptr;  // its type_tag; null: none
};
template <class... Args>
CallTypes types_of(const Args&... arguments) {
  constexpr uint64_t kStart = 14695981039346656037ULL;
  CallTypes out{kStart, kStart};
  const auto mix = [](uint64_t& hash, uint64_t word) { hash = (hash ^ word) * 1099511628211ULL; };
  [[maybe_unused]] const auto tensor = [&](const Tensor& t) { mix(out.structure, t.defined() ? 3 : 2); };
  [[maybe_unused]] const auto count = [&](size_t n) { mix(out.structure, n + 4); };
  (each_tensor(arguments, tensor, count), ...);
  (mix(out.arguments, reinterpret_cast<uintptr_t>(&type_tag<Args>)), ...);
  return out;
}

}  // namespace tandem::tracer
