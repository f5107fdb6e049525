// A program's own pointwise ops: `pointwise([](auto x, auto y) { ... })` calls the function once, on symbols,
// and what it does to them becomes one op: one kernel in eager mode, fused with its neighbours in a traced
// call, on each device, with gradients of any order. Any thread.
//
//   const auto swish = td::pointwise([](auto x, auto beta) { return x * td::sigmoid(x * beta); });
//   td::Tensor y = swish(x, 1.5);   // 1.5 is a run-time number: another value compiles nothing
//
// On symbols work the operators + - * / and comparisons, && || !, & | ^ ~, and every pointwise function of
// tensors by its name (exp, tanh, where, maximum, clamp, softplus, ...), besides max, min, fabs and select.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "tandem/eager/tensor.h"

namespace tandem {

class Symbol;

namespace eager {

class FormulaBuilder;

/// What a function of symbols takes: a symbol or a number.
struct SymbolOrNumber {
  template <Number T>
  SymbolOrNumber(T value)  // NOLINT: implicit by design
      : integer(std::is_integral_v<T>) {
    if constexpr (std::is_integral_v<T> && std::is_unsigned_v<T>)
      bits = static_cast<int64_t>(std::min(uint64_t{value}, uint64_t{INT64_MAX}));  // which is refused
    else if constexpr (std::is_integral_v<T>)
      bits = static_cast<int64_t>(value);
    else
      bits = std::bit_cast<int64_t>(static_cast<double>(value));
  }
  SymbolOrNumber(const Symbol& s);  // NOLINT
  uint64_t recording = 0;           // 0: a number
  int32_t id = -1;
  bool integer = false;
  int64_t bits = 0;
};

template <class T>
concept SymbolLike = std::is_same_v<T, Symbol> || Number<T>;
/// Symbols and numbers, a symbol among them.
template <class... T>
concept Symbolic = (SymbolLike<T> && ...) && (std::is_same_v<T, Symbol> || ...);

/// Notes a call of the table's op `name`: its operands, then its run-time attributes; `words`: the structural
/// ones.
Symbol symbol_call(const char* name, std::initializer_list<SymbolOrNumber> in,
                   std::initializer_list<int64_t> words = {});

}  // namespace eager

/// An element of an argument of a pointwise function, or what was computed from some: what `auto x` is while
/// the function is recorded. It has no value, so it cannot decide a C++ condition; use where(c, a, b).
class Symbol {
 public:
  explicit operator bool() const = delete;
  Symbol to(DType dtype) const { return eager::symbol_call("cast", {*this}, {static_cast<int64_t>(dtype)}); }

  Symbol& operator+=(const eager::SymbolOrNumber& b) { return *this = eager::symbol_call("add", {*this, b}); }
  Symbol& operator-=(const eager::SymbolOrNumber& b) { return *this = eager::symbol_call("sub", {*this, b}); }
  Symbol& operator*=(const eager::SymbolOrNumber& b) { return *this = eager::symbol_call("mul", {*this, b}); }
  Symbol& operator/=(const eager::SymbolOrNumber& b) { return *this = eager::symbol_call("div", {*this, b}); }

 private:
  friend class eager::FormulaBuilder;
  friend struct eager::SymbolOrNumber;
  Symbol(uint64_t recording, int32_t id) : recording_(recording), id_(id) {}
  uint64_t recording_;  // names the call that it was made for
  int32_t id_;
};

inline eager::SymbolOrNumber::SymbolOrNumber(const Symbol& s) : recording(s.recording_), id(s.id_) {}

// The table's pointwise functions.
#define TANDEM_POINTWISE1(name, ...) \
  inline Symbol name(const Symbol& a) { return eager::symbol_call(#name, {a}); }
#define TANDEM_POINTWISE2(name, ...)                                   \
  template <class A, class B>                                          \
  requires eager::Symbolic<A, B> Symbol name(const A& a, const B& b) { \
    return eager::symbol_call(#name, {a, b});                          \
  }
#define TANDEM_POINTWISE3(name, ...)                                                  \
  template <class A, class B, class C>                                                \
  requires eager::Symbolic<A, B, C> Symbol name(const A& a, const B& b, const C& c) { \
    return eager::symbol_call(#name, {a, b, c});                                      \
  }
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3
#define TANDEM_PARAMETRIC1(name, rule, p, default_p, ...) \
  inline Symbol name(const Symbol& a, double p default_p) { return eager::symbol_call(#name, {a, p}); }
#define TANDEM_PARAMETRIC2(name, rule, p, default_p, q, default_q, ...)         \
  inline Symbol name(const Symbol& a, double p default_p, double q default_q) { \
    return eager::symbol_call(#name, {a, p, q});                                \
  }
#include "tandem/ops/parametric.def"
#undef TANDEM_PARAMETRIC1
#undef TANDEM_PARAMETRIC2
Symbol clamp(const Symbol& a, std::optional<double> low, std::optional<double> high = {});
inline Symbol gelu(const Symbol& a, bool tanh_approximation = false) {
  return eager::symbol_call("gelu", {a}, {tanh_approximation});
}
inline Symbol fabs(const Symbol& a) { return abs(a); }

#define TANDEM_SYMBOL_BINARY(function, op)                                 \
  template <class A, class B>                                              \
  requires eager::Symbolic<A, B> Symbol function(const A& a, const B& b) { \
    return eager::symbol_call(#op, {a, b});                                \
  }
TANDEM_SYMBOL_BINARY(max, maximum)
TANDEM_SYMBOL_BINARY(min, minimum)
TANDEM_SYMBOL_BINARY(operator+, add)
TANDEM_SYMBOL_BINARY(operator-, sub)
TANDEM_SYMBOL_BINARY(operator*, mul)
TANDEM_SYMBOL_BINARY(operator/, div)
TANDEM_SYMBOL_BINARY(operator==, eq)
TANDEM_SYMBOL_BINARY(operator!=, ne)
TANDEM_SYMBOL_BINARY(operator<, lt)
TANDEM_SYMBOL_BINARY(operator<=, le)
TANDEM_SYMBOL_BINARY(operator>, gt)
TANDEM_SYMBOL_BINARY(operator>=, ge)
TANDEM_SYMBOL_BINARY(operator&&, logical_and)
TANDEM_SYMBOL_BINARY(operator||, logical_or)
TANDEM_SYMBOL_BINARY(operator&, bitwise_and)
TANDEM_SYMBOL_BINARY(operator|, bitwise_or)
TANDEM_SYMBOL_BINARY(operator^, bitwise_xor)
#undef TANDEM_SYMBOL_BINARY
inline Symbol operator-(const Symbol& a) { return neg(a); }
inline Symbol operator!(const Symbol& a) { return logical_not(a); }
inline Symbol operator~(const Symbol& a) { return bitwise_not(a); }
template <class A, class B, class C>
requires eager::Symbolic<A, B, C> Symbol select(const A& condition, const B& a, const C& b) {
  return where(condition, a, b);
}

/// An op that `pointwise` made, of `n` operands: tensors or numbers, at least one tensor. Operands broadcast
/// and promote as in the functions that it is made of; halves are computed in float32 and rounded once.
/// Copies are the same op.
template <int n>
class Pointwise {
 public:
  explicit Pointwise(uint16_t op) : op_(op) {}
  Tensor operator()(const Operand& a) const requires(n == 1) { return call({&a, nullptr, nullptr, nullptr}); }
  Tensor operator()(const Operand& a, const Operand& b) const requires(n == 2) {
    return call({&a, &b, nullptr, nullptr});
  }
  Tensor operator()(const Operand& a, const Operand& b, const Operand& c) const requires(n == 3) {
    return call({&a, &b, &c, nullptr});
  }
  Tensor operator()(const Operand& a, const Operand& b, const Operand& c, const Operand& d) const
      requires(n == 4) {
    return call({&a, &b, &c, &d});
  }

 private:
  struct Operands {
    const Operand* at[4];
  };
  Tensor call(const Operands& operands) const;
  uint16_t op_;
};

namespace eager {

Tensor call_pointwise(uint16_t op, std::span<const Operand* const> operands);
/// Records `function` on `n` symbols and registers it.
uint16_t record_pointwise(const std::string& name, int n, Symbol (*function)(const Symbol*), Location where);

template <class F>
constexpr int symbols_taken() {
  if constexpr (std::is_invocable_v<const F&, Symbol>)
    return 1;
  else if constexpr (std::is_invocable_v<const F&, Symbol, Symbol>)
    return 2;
  else if constexpr (std::is_invocable_v<const F&, Symbol, Symbol, Symbol>)
    return 3;
  else if constexpr (std::is_invocable_v<const F&, Symbol, Symbol, Symbol, Symbol>)
    return 4;
  else
    return 0;
}

template <class F, size_t... i>
Symbol call_on_symbols(const Symbol* s, std::index_sequence<i...>) {
  using Result = decltype(std::declval<const F&>()(s[i]...));
  static_assert(std::is_same_v<std::decay_t<Result>, Symbol>,
                "pointwise: the function must return an expression of its arguments");
  if constexpr (std::is_same_v<std::decay_t<Result>, Symbol>)
    return F{}(s[i]...);
  else
    return s[0];
}

template <class F>
Symbol call_on_symbols(const Symbol* s) {
  return call_on_symbols<F>(s, std::make_index_sequence<static_cast<size_t>(symbols_taken<F>())>());
}

template <class F>
uint16_t record_pointwise(const std::string& name, Location where) {
  static_assert(std::is_empty_v<F> && std::is_default_constructible_v<F>,
                "pointwise: the function must not capture anything: it is called once, so a captured value "
                "would never change again; pass numbers as arguments of the function, which are run-time");
  if constexpr (std::is_empty_v<F> && std::is_default_constructible_v<F>) {
    constexpr int n = symbols_taken<F>();
    static_assert(n > 0, "pointwise: the function must take one to four symbols: [](auto x, auto y) { ... }");
    return record_pointwise(name, n, &call_on_symbols<F>, where);
  }
  return 0;
}

}  // namespace eager

template <int n>
Tensor Pointwise<n>::call(const Operands& operands) const {
  return eager::call_pointwise(op_, {operands.at, static_cast<size_t>(n)});
}

/// One op from a function of one to four symbols, a lambda without captures such as
/// `[](auto x, auto y) { return x * tanh(y); }`. It is called here and never again: what it reads besides its
/// arguments (a global variable) is what it is now. The same formula and name give the same op, so that this
/// may stand anywhere, but a call of the op costs less than making it. Errors of a call name the op (`name`,
/// or "pointwise" with the line where it was made) and the call's line.
template <class F>
auto pointwise(const std::string& name, F, Location where = Location::here()) {
  return Pointwise<eager::symbols_taken<F>()>(eager::record_pointwise<F>(name, where));
}
template <class F>
requires(!std::convertible_to<F, std::string>) auto pointwise(F f, Location where = Location::here()) {
  return pointwise(std::string(), f, where);
}

}  // namespace tandem
