// Whether two functions of C take and give values of the same sizes, pointers where the other has pointers.
// Compile time only.
#pragma once

#include <type_traits>

namespace tandem::test {

template <class A, class B>
consteval bool fits() {
  if constexpr (std::is_void_v<A> || std::is_void_v<B>)
    return std::is_void_v<A> && std::is_void_v<B>;
  else
    return sizeof(A) == sizeof(B);
}

template <class Ours, class Theirs>
struct SameShape {
  static constexpr bool value = false;
};
template <class R, class... A, class S, class... B>
requires(sizeof...(A) == sizeof...(B)) struct SameShape<R (*)(A...), S (*)(B...)> {
  static constexpr bool value =
      fits<R, S>() && ((fits<A, B>() && std::is_pointer_v<A> == std::is_pointer_v<B>)&&...);
};

}  // namespace tandem::test
