// The functions that rows of the tables name. Each row declares one per column, so that it can say
// `.body = body::softmax` and any file can define `void body::softmax(Body&)`; columns that a row leaves out
// are never defined. Stateless; any thread.
#pragma once

#include "tandem/ops/emitter.h"

namespace tandem::ops {

// clang-format off
#define TANDEM_ENTRY(name, ...)                                              \
  namespace check { void name(const InferCall&, std::vector<TensorType>&); } \
  namespace view { Layout name(const InferCall&, const Layout&); }           \
  namespace body { void name(Body&); }                                       \
  namespace native { void name(const NativeCall&); }                         \
  namespace gradient { void name(Gradient&); }
// clang-format on
#include "tandem/ops/attention.def"
#include "tandem/ops/composite.def"
#include "tandem/ops/contraction.def"
#include "tandem/ops/convolution.def"
#include "tandem/ops/fused.def"
#include "tandem/ops/index.def"
#include "tandem/ops/indexing.def"
#include "tandem/ops/loss.def"
#include "tandem/ops/norm.def"
#include "tandem/ops/pooling.def"
#include "tandem/ops/random.def"
#include "tandem/ops/recurrent.def"
#include "tandem/ops/reduction.def"
#include "tandem/ops/special.def"
#include "tandem/ops/update.def"
#include "tandem/ops/view.def"
#undef TANDEM_ENTRY
namespace check {
/// Of all optimizers' updates.
void update(const InferCall&, std::vector<TensorType>&);
/// Of split2 to split4.
void parts(const InferCall&, std::vector<TensorType>&);
/// Of attention, with and without dropout.
void attention(const InferCall&, std::vector<TensorType>&);
}  // namespace check
namespace body {
void parts(Body&);
void attention(Body&);
}  // namespace body
namespace gradient {
void parts(Gradient&);
void attention(Gradient&);
}  // namespace gradient
/// How many attributes of an optimizer's update depend on the step count: its guard has one number more.
int step_numbers(OpId update);

// Formulas and gradients of pointwise ops that take more than an expression.
namespace formula {
/// A constant of the type of `like`.
S constant(S like, double value);
S sign(S a);
S pow(S a, S b);
S softplus(S a);
S fmod(S a, S b);
S floor_divide(S a, S b);
S hypot(S a, S b);
S lerp(S a, S b, S weight);
S logaddexp(S a, S b);
S xlogy(S a, S b);
/// sqrt(1 - a^2)
S other_leg(S a);
S sinh(S a);
S cosh(S a);
S asinh(S a);
S acosh(S a);
S atanh(S a);
S erfinv(S a);
S hardsigmoid(S a);
S elu(S a, S alpha);
S celu(S a, S alpha);
S selu(S a);
S fmax(S a, S b);
S fmin(S a, S b);
S heaviside(S a, S at_zero);
/// +infinity (sign 1), -infinity (-1) or either (0).
S is_infinite(S a, int sign = 0);
S signbit(S a);
// Special functions (formulas_special.cpp).
S lgamma(S a);
S digamma(S a);
S zeta(S a, S b);
/// I_0 or I_1, times exp(-|a|) if `scaled`.
S bessel(S a, int order, bool scaled);
S sinc(S a);
}  // namespace formula
namespace gradient {
Value pow_base(Emitter& e, Value g, Value a, Value b);
Value pow_exponent(Emitter& e, Value g, Value a, Value b, Value y);
/// Gradient of maximum(a, b) for `a`: all of it, none, or half at ties.
Value larger(Emitter& e, Value g, Value a, Value b);
Value silu(Emitter& e, Value g, Value a);
Value erf(Emitter& e, Value g, Value a);
Value remainder_divisor(Emitter& e, Value g, Value a, Value b);
Value fmod_divisor(Emitter& e, Value g, Value a, Value b);
Value copysign(Emitter& e, Value g, Value a, Value y);
Value lerp_weight(Emitter& e, Value g, Value a, Value b);
Value xlogy_factor(Emitter& e, Value g, Value a, Value b);
Value logit(Emitter& e, Value g, Value a);
/// Gradient of atan2(a, b) for `a`: g * b / (a^2 + b^2).
Value atan2(Emitter& e, Value g, Value a, Value b);
Value erfinv(Emitter& e, Value g, Value y);
/// g where low < a < high, else 0.
Value between(Emitter& e, Value g, Value a, Value low, Value high);
Value between(Emitter& e, Value g, Value a, double low, double high);
Value leaky_relu(Emitter& e, Value g, Value a, Value slope);
Value hardswish(Emitter& e, Value g, Value a);
/// g * alpha * exp(a / width) where a is negative, else g.
Value elu(Emitter& e, Value g, Value a, Value alpha, Value width);
Value selu(Emitter& e, Value g, Value a);
Value mish(Emitter& e, Value g, Value a);
/// g where `first` holds or b is NaN, else 0; and the rest of it.
Value chosen(Emitter& e, Value g, Value first, Value b);
Value not_chosen(Emitter& e, Value g, Value first, Value b);
/// Of zeta(a, b) for b; and for a, which has none: throws.
Value zeta(Emitter& e, Value g, Value a, Value b);
[[noreturn]] Value zeta_exponent(Emitter& e);
Value i1(Emitter& e, Value g, Value a, Value y);
Value i0e(Emitter& e, Value g, Value a, Value y);
Value i1e(Emitter& e, Value g, Value a, Value y);
Value sinc(Emitter& e, Value g, Value a);
}  // namespace gradient

/// The operand in float32 if it is a half: composites round once, at their end.
Value widen(Emitter& e, Value a);
/// What the squares of a variance along `axes` are divided by: the count less `correction`, at least 0.
Value variance_divisor(Emitter& e, Value x, const Dims& axes, int64_t correction);
/// v (C) shaped so that it broadcasts over x (N, C, ...) of `rank` axes; halves become float32.
Value per_channel(Emitter& e, Value v, int rank);
/// The sum over all axes of x (N, C, ...) but that of the channels: (C).
Value channel_sum(Emitter& e, Value x);
/// x / (1 - p) where bernoulli_mask keeps it, else 0.
Value dropped(Emitter& e, Value x, Value p, Value seed, Value offset);
/// x minus its largest value along `axes`, so that exp does not overflow; x itself where there is nothing to
/// choose from.
Value below_max(Emitter& e, Value x, const Dims& axes);

}  // namespace tandem::ops
