// The public functions on tensors: creation, pointwise, joining, products and operators; arrange.h,
// attention.h, channels.h, close.h, convolutions.h, losses.h, padding.h and pooling.h have the others. Names,
// argument order and defaults are PyTorch's. Stateless but for the default generator; any thread.
#pragma once

#include <initializer_list>

#include "tandem/eager/arrange.h"
#include "tandem/eager/attention.h"
#include "tandem/eager/channels.h"
#include "tandem/eager/close.h"
#include "tandem/eager/convolutions.h"
#include "tandem/eager/losses.h"
#include "tandem/eager/padding.h"
#include "tandem/eager/pooling.h"
#include "tandem/eager/special.h"
#include "tandem/eager/tensor.h"

namespace tandem {

#define TANDEM_LIST(...) __VA_ARGS__
#define TANDEM_METHOD(result, name, arguments, ...)                                                   \
  inline result name(const Tensor& a __VA_OPT__(, ) __VA_ARGS__, Location where = Location::here()) { \
    return a.name(TANDEM_LIST arguments where);                                                       \
  }
#include "tandem/eager/both.inc"
#undef TANDEM_METHOD
#undef TANDEM_LIST
/// The larger and the smaller of two elements, as maximum() and minimum().
inline Tensor max(const Tensor& a, const Tensor& b) { return a.maximum(b); }
inline Tensor min(const Tensor& a, const Tensor& b) { return a.minimum(b); }

// Creation.
Tensor empty(const Dims& sizes, TensorOptions options = {}, Location where = Location::here());
Tensor zeros(const Dims& sizes, TensorOptions options = {}, Location where = Location::here());
Tensor ones(const Dims& sizes, TensorOptions options = {}, Location where = Location::here());
/// Of integers int64, of a bool bool, else float32, unless said. Integers are exact, as everywhere that
/// AnyNumber is taken.
Tensor full(const Dims& sizes, AnyNumber value, TensorOptions options = {},
            Location where = Location::here());
Tensor zeros_like(const Tensor& t, Location where = Location::here());
Tensor ones_like(const Tensor& t, Location where = Location::here());
Tensor full_like(const Tensor& t, AnyNumber value, Location where = Location::here());
Tensor empty_like(const Tensor& t, Location where = Location::here());
/// Drawn as rand, randn and randint do, in sizes, type and place of t.
Tensor rand_like(const Tensor& t, Generator* generator = nullptr, Location where = Location::here());
Tensor randn_like(const Tensor& t, Generator* generator = nullptr, Location where = Location::here());
Tensor randint_like(const Tensor& t, int64_t low, int64_t high, Generator* generator = nullptr,
                    Location where = Location::here());
/// start, start + step, ... below `end`; of integers alone int64, else float32, unless said.
Tensor arange(AnyNumber start, AnyNumber end, AnyNumber step = 1, TensorOptions options = {},
              Location where = Location::here());
/// 0, 1, ... below `end`.
inline Tensor arange(AnyNumber end, TensorOptions options = {}, Location where = Location::here()) {
  return arange(0, end, 1, options, where);
}
Tensor rand(const Dims& sizes, TensorOptions options = {}, Generator* generator = nullptr,
            Location where = Location::here());
Tensor randn(const Dims& sizes, TensorOptions options = {}, Generator* generator = nullptr,
             Location where = Location::here());
/// Integers in [low, high), int64 unless said.
Tensor randint(int64_t low, int64_t high, const Dims& sizes, TensorOptions options = {},
               Generator* generator = nullptr, Location where = Location::here());
/// A random permutation of 0 .. n-1, int64.
Tensor randperm(int64_t n, Generator* generator = nullptr, Location where = Location::here());

/// Copies host values, of their type unless said: `tensor({1.f, 2.f})`, `tensor(span, {2, 3})`.
template <Number T>
Tensor tensor(std::span<const T> values, const Dims& sizes, TensorOptions options = {},
              Location where = Location::here());
template <Number T>
Tensor tensor(std::initializer_list<T> values, TensorOptions options = {},
              Location where = Location::here()) {
  return tensor(std::span<const T>(values.begin(), values.size()), {static_cast<int64_t>(values.size())},
                options, where);
}
template <Number T>
Tensor tensor(const std::vector<T>& values, Location where = Location::here()) {
  return tensor(std::span<const T>(values), {static_cast<int64_t>(values.size())}, {}, where);
}
/// A scalar tensor.
template <Number T>
Tensor scalar_tensor(T value, TensorOptions options = {}, Location where = Location::here()) {
  return tensor(std::span<const T>(&value, 1), {}, options, where);
}
/// A tensor over memory that the caller owns and keeps alive; row-major. `release(context)` runs at the end
/// if given.
Tensor from_blob(void* data, const Dims& sizes, DType dtype = float32, void (*release)(void*) = nullptr,
                 void* context = nullptr, Location where = Location::here());
namespace eager {
Tensor from_host(const void* values, DType from, int64_t count, const Dims& sizes,
                 const TensorOptions& options, Location where);
}
template <Number T>
Tensor tensor(std::span<const T> values, const Dims& sizes, TensorOptions options, Location where) {
  return eager::from_host(values.data(), dtype_of<T>, static_cast<int64_t>(values.size()), sizes, options,
                          where);
}

// Pointwise: one function per row of the op table.
#define TANDEM_POINTWISE1(name, ...) Tensor name(const Tensor& a, Location where = Location::here());
#define TANDEM_POINTWISE2(name, ...) Tensor name(const Operand& a, const Operand& b);
#define TANDEM_POINTWISE3(name, ...) Tensor name(const Operand& a, const Operand& b, const Operand& c);
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3
// Those with parameters, such as softplus(a, beta = 1, threshold = 20) and elu(a, alpha = 1).
#define TANDEM_PARAMETRIC1(name, rule, p, default_p, ...) \
  Tensor name(const Tensor& a, double p default_p, Location where = Location::here());
#define TANDEM_PARAMETRIC2(name, rule, p, default_p, q, default_q, ...) \
  Tensor name(const Tensor& a, double p default_p, double q default_q, Location where = Location::here());
#include "tandem/ops/parametric.def"
#undef TANDEM_PARAMETRIC1
#undef TANDEM_PARAMETRIC2
/// min(max(a, low), high); either bound may be left out, a floating one makes integers float32.
Tensor clamp(const Tensor& a, std::optional<AnyNumber> low, std::optional<AnyNumber> high = {},
             Location where = Location::here());
/// x * Phi(x), exactly (erf) or by PyTorch's tanh approximation.
Tensor gelu(const Tensor& a, bool tanh_approximation = false, Location where = Location::here());
/// min(max(a, low), high) with bounds per element; an undefined one is none.
Tensor clamp(const Tensor& a, const Tensor& low, const Tensor& high = {}, Location where = Location::here());
inline Tensor clamp_min(const Operand& a, const Operand& low) { return maximum(a, low); }
inline Tensor clamp_max(const Operand& a, const Operand& high) { return minimum(a, high); }
inline Tensor true_divide(const Operand& a, const Operand& b) { return div(a, b); }
inline Tensor sgn(const Tensor& a, Location where = Location::here()) { return sign(a, where); }
/// a + alpha * b, a - alpha * b and b - alpha * a
Tensor add(const Operand& a, const Tensor& b, AnyNumber alpha, Location where = Location::here());
Tensor sub(const Operand& a, const Tensor& b, AnyNumber alpha, Location where = Location::here());
Tensor rsub(const Tensor& a, const Operand& b, AnyNumber alpha = 1);
/// a + value * b * c and a + value * b / c
Tensor addcmul(const Tensor& a, const Tensor& b, const Tensor& c, AnyNumber value = 1,
               Location where = Location::here());
Tensor addcdiv(const Tensor& a, const Tensor& b, const Tensor& c, double value = 1,
               Location where = Location::here());
/// a where positive, else a times a weight, one or one per channel of a (N, C, ...).
Tensor prelu(const Tensor& a, const Tensor& weight, Location where = Location::here());
/// a - tanh(a)
Tensor tanhshrink(const Tensor& a, Location where = Location::here());
/// The first half along an axis times sigmoid of the second.
Tensor glu(const Tensor& a, int64_t axis = -1, Location where = Location::here());
/// NaN and the infinities replaced; infinities by the type's largest and smallest numbers unless said.
Tensor nan_to_num(const Tensor& a, double nan = 0, std::optional<double> posinf = {},
                  std::optional<double> neginf = {}, Location where = Location::here());
Tensor masked_fill(const Tensor& a, const Tensor& mask, const Operand& value);

// Joining and indexing.
Tensor cat(TensorSpan tensors, int64_t axis = 0, Location where = Location::here());
Tensor stack(TensorSpan tensors, int64_t axis = 0, Location where = Location::here());
/// Row under row, and side by side: of vectors (n) the rows (1, n), and one after another.
Tensor vstack(TensorSpan tensors, Location where = Location::here());
Tensor hstack(TensorSpan tensors, Location where = Location::here());
/// Rows of `weight` (V, D) at `index` (any shape, int64 or int32) -> (..., D). The row `padding_idx`
/// (negative: from the end) gets no gradient.
Tensor embedding(const Tensor& index, const Tensor& weight, std::optional<int64_t> padding_idx = {},
                 Location where = Location::here());
/// Shrinks, in place and without history, the rows of `weight` (V, D) that `index` names and whose norm is
/// above max_norm, to that norm.
const Tensor& embedding_renorm_(const Tensor& weight, const Tensor& index, double max_norm,
                                double norm_type = 2, Location where = Location::here());

// Products.
/// PyTorch's matmul: vectors, matrices, broadcast batches.
Tensor matmul(const Tensor& a, const Tensor& b, Location where = Location::here());
/// x (..., K) times weight (N, K) transposed, plus bias (N) -> (..., N).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              Location where = Location::here());

// Regularisation.
Tensor softmax(const Tensor& a, int64_t axis, Location where = Location::here());
Tensor log_softmax(const Tensor& a, int64_t axis, Location where = Location::here());
/// Zeroes elements with probability p and scales the others by 1 / (1 - p); x itself when not training or p
/// == 0.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true, Location where = Location::here());

// Operators.
inline Tensor operator+(const Tensor& a, const Operand& b) { return add(Operand(a, b.where), b); }
inline Tensor operator-(const Tensor& a, const Operand& b) { return sub(Operand(a, b.where), b); }
inline Tensor operator*(const Tensor& a, const Operand& b) { return mul(Operand(a, b.where), b); }
inline Tensor operator/(const Tensor& a, const Operand& b) { return div(Operand(a, b.where), b); }
inline Tensor operator%(const Tensor& a, const Operand& b) { return remainder(Operand(a, b.where), b); }
// C++20 also tries == with its operands exchanged: both convert, so that this is never the better choice.
inline Tensor operator==(const Operand& a, const Operand& b) { return eq(a, b); }
inline Tensor operator!=(const Operand& a, const Operand& b) { return ne(a, b); }
inline Tensor operator<(const Tensor& a, const Operand& b) { return lt(Operand(a, b.where), b); }
inline Tensor operator<=(const Tensor& a, const Operand& b) { return le(Operand(a, b.where), b); }
inline Tensor operator>(const Tensor& a, const Operand& b) { return gt(Operand(a, b.where), b); }
inline Tensor operator>=(const Tensor& a, const Operand& b) { return ge(Operand(a, b.where), b); }
inline Tensor operator&(const Tensor& a, const Operand& b) { return bitwise_and(Operand(a, b.where), b); }
inline Tensor operator|(const Tensor& a, const Operand& b) { return bitwise_or(Operand(a, b.where), b); }
inline Tensor operator^(const Tensor& a, const Operand& b) { return bitwise_xor(Operand(a, b.where), b); }
inline Tensor operator~(const Operand& a) {
  return bitwise_not(Tensor(core::Ref<core::TensorImpl>(a.impl)), a.where);
}
template <Number T>
Tensor operator+(T a, const Operand& b) {
  return add(Operand(a, b.where), b);
}
template <Number T>
Tensor operator-(T a, const Operand& b) {
  return sub(Operand(a, b.where), b);
}
template <Number T>
Tensor operator*(T a, const Operand& b) {
  return mul(Operand(a, b.where), b);
}
template <Number T>
Tensor operator/(T a, const Operand& b) {
  return div(Operand(a, b.where), b);
}
template <Number T>
Tensor operator%(T a, const Operand& b) {
  return remainder(Operand(a, b.where), b);
}
inline Tensor operator-(const Operand& a) {
  return neg(Tensor(core::Ref<core::TensorImpl>(a.impl)), a.where);
}
inline const Tensor& operator+=(const Tensor& a, const Operand& b) { return a.add_(b); }
inline const Tensor& operator-=(const Tensor& a, const Operand& b) { return a.sub_(b); }
inline const Tensor& operator*=(const Tensor& a, const Operand& b) { return a.mul_(b); }
inline const Tensor& operator/=(const Tensor& a, const Operand& b) { return a.div_(b); }

}  // namespace tandem
