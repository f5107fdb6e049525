// Formulas of pointwise ops that take more than an expression in the table. Constants have the type of the
// operand; no branch looks at a value: both sides of a select are computed.
#include <limits>
#include <numbers>

#include "tandem/ops/rules.h"

namespace tandem::ops {

using formula::constant;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

S is_nan(S a) { return s_ne(a, a); }
S horner(S x, std::initializer_list<double> from_the_highest) {
  S sum = constant(x, *from_the_highest.begin());
  for (const double* c = from_the_highest.begin() + 1; c != from_the_highest.end(); ++c)
    sum = s_fma(sum, x, constant(x, *c));
  return sum;
}

}  // namespace

S formula::constant(S like, double value) { return like.graph->constant(like.type(), value); }

S formula::sign(S a) {
  if (a.type() == DType::bool_) return a;
  const S zero = constant(a, 0), one = constant(a, 1);
  const S positive = s_gt(a, zero);
  if (a.type() == DType::uint8) return select(positive, one, zero);
  return select(positive, one, select(s_lt(a, zero), constant(a, -1), zero));
}

S formula::pow(S a, S b) {
  if (is_floating(a.type())) return s_pow(a, b);
  const S zero = constant(a, 0),
          power = cast(s_pow(cast(a, DType::float64), cast(b, DType::float64)), a.type());
  return select(s_logical_and(s_eq(a, zero), s_lt(b, zero)), zero, power);
}

// max(a, 0) + log1p(exp(-|a|))
S formula::softplus(S a) { return s_max(a, constant(a, 0)) + s_log1p(s_exp(-s_abs(a))); }

// The remainder with the sign of the divisor, brought to that of a; exact.
S formula::fmod(S a, S b) {
  if (is_floating(a.type())) return s_copysign(s_mod(s_abs(a), s_abs(b)), a);
  const S m = s_mod(a, b), zero = constant(a, 0);
  const S other_sign = s_logical_xor(s_lt(a, zero), s_lt(m, zero));
  return select(s_logical_and(s_ne(m, zero), other_sign), m - b, m);
}

// floor(a / b) would round a quotient just below a whole number up to it (1 / 0.1): what a leaves is taken
// away first, and the quotient then is whole but for its rounding.
S formula::floor_divide(S a, S b) {
  if (!is_floating(a.type())) return s_idiv(a, b);
  const S zero = constant(a, 0), left = fmod(a, b), whole = s_round((a - left) / b);
  const S other_sign = s_logical_and(s_ne(left, zero), s_logical_xor(s_lt(left, zero), s_lt(b, zero)));
  return select(s_eq(b, zero), a / b, select(other_sign, whole - constant(a, 1), whole));
}

// The larger times sqrt(1 + r^2) with r the smaller over the larger; infinite if one is, whatever the other.
S formula::hypot(S a, S b) {
  const S x = s_abs(a), y = s_abs(b), zero = constant(a, 0), infinity = constant(a, kInfinity);
  const S large = s_max(x, y), r = s_min(x, y) / large;
  const S length = large * s_sqrt(s_fma(r, r, constant(a, 1)));
  const S infinite = s_logical_or(s_eq(x, infinity), s_eq(y, infinity));
  return select(infinite, infinity, select(s_eq(large, zero), zero, length));
}

// From the nearer end, so that both ends are exact.
S formula::lerp(S a, S b, S weight) {
  const S way = b - a;
  const S from_a = a + weight * way, from_b = b - way * (1.0 - weight);
  return select(s_lt(s_abs(weight), constant(weight, 0.5)), from_a, from_b);
}

S formula::logaddexp(S a, S b) {
  const S large = s_max(a, b);
  const S sum = large + s_log1p(s_exp(-s_abs(a - b)));
  return select(s_eq(s_abs(large), constant(a, kInfinity)), large, sum);
}

S formula::xlogy(S a, S b) {
  const S zero = constant(a, 0);
  return select(s_logical_and(s_eq(a, zero), s_eq(b, b)), zero, a * s_log(b));
}

S formula::other_leg(S a) { return s_sqrt((1.0 - a) * (1.0 + a)); }

// (e + e / (e + 1)) / 2 with e = expm1(|a|); from 20 on exp(|a| / 2) squared, which overflows where sinh
// does.
S formula::sinh(S a) {
  const S x = s_abs(a), e = s_expm1(x), root = s_exp(x * 0.5);
  const S near = (e + e / (e + 1.0)) * 0.5, far = root * 0.5 * root;
  return s_copysign(select(s_lt(x, constant(a, 20)), near, far), a);
}

S formula::cosh(S a) {
  const S root = s_exp(s_abs(a) * 0.5);
  return root * 0.5 * root + 0.5 / root / root;
}

// log1p(x + x^2 / (1 + sqrt(1 + x^2))) with x = |a|; log(2 x) where x^2 would overflow.
S formula::asinh(S a) {
  const S x = s_abs(a), square = x * x;
  const S near = s_log1p(x + square / (1.0 + s_sqrt(1.0 + square)));
  const S far = s_log(x) + std::numbers::ln2;
  return s_copysign(select(s_lt(x, constant(a, 1e9)), near, far), a);
}

S formula::acosh(S a) {
  const S t = a - 1.0;
  const S near = s_log1p(t + s_sqrt(t * (t + 2.0))), far = s_log(a) + std::numbers::ln2;
  const S y = select(s_lt(a, constant(a, 1e9)), near, far);
  return select(s_lt(a, constant(a, 1)), constant(a, kNan), y);
}

S formula::atanh(S a) {
  const S x = s_abs(a);
  return s_copysign(s_log1p((x + x) / (1.0 - x)) * 0.5, a);
}

// Giles's polynomials in w = -log(1 - a^2) are good to single precision; each step of Newton's method doubles
// the digits.
S formula::erfinv(S a) {
  const S w = -s_log1p(-(a * a)), root = s_sqrt(w) - 3.0;
  const S middle = horner(w - 2.5, {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06,
                                    0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941});
  const S tail = horner(root, {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                               -0.0076224613, 0.00943887047, 1.00167406, 2.83297682});
  S y = select(s_lt(w, constant(a, 5)), middle, tail) * a;
  const S size = s_abs(a), missing = 1.0 - size;  // exact where it is small
  const S small = s_lt(size, constant(a, 0.5));
  for (int step = 0; step < (a.type() == DType::float64 ? 2 : 1); ++step) {
    const S x = s_abs(y);
    const S excess = select(small, size - s_erf(x), s_erfc(x) - missing);
    y = s_copysign(x + excess * s_exp(x * x) * (0.5 / std::numbers::inv_sqrtpi), a);
  }
  const S edge = s_copysign(constant(a, kInfinity), a);
  return select(s_eq(s_abs(a), constant(a, 1)), edge, y);
}

S formula::hardsigmoid(S a) { return s_min(s_max(a + 3.0, constant(a, 0)), constant(a, 6)) / 6.0; }

S formula::elu(S a, S alpha) {
  const S zero = constant(a, 0);
  return select(s_gt(a, zero), a, alpha * s_expm1(s_min(a, zero)));
}

S formula::celu(S a, S alpha) {
  const S zero = constant(a, 0);
  return select(s_gt(a, zero), a, alpha * s_expm1(s_min(a, zero) / alpha));
}

namespace {
// Klambauer et al., Self-Normalizing Neural Networks, 2017.
constexpr double kSeluAlpha = 1.6732632423543772848170429916717,
                 kSeluScale = 1.0507009873554804934193349852946;
}  // namespace

S formula::selu(S a) { return elu(a, constant(a, kSeluAlpha)) * kSeluScale; }

Value gradient::selu(Emitter& e, Value g, Value a) {
  const Value alpha = e.number(kSeluAlpha), one = e.number(1);
  return e.mul(elu(e, g, a, alpha, one), kSeluScale);
}

S formula::fmax(S a, S b) {
  if (a.type() == DType::bool_) return s_logical_or(a, b);
  return select(is_nan(a), b, select(is_nan(b), a, s_max(a, b)));
}
S formula::fmin(S a, S b) {
  if (a.type() == DType::bool_) return s_logical_and(a, b);
  return select(is_nan(a), b, select(is_nan(b), a, s_min(a, b)));
}

S formula::heaviside(S a, S at_zero) {
  const S zero = constant(a, 0), one = constant(a, 1);
  return select(s_eq(a, zero), at_zero, select(s_lt(a, zero), zero, select(is_nan(a), a, one)));
}

S formula::is_infinite(S a, int sign) {
  if (!is_floating(a.type())) return is_nan(a);
  if (sign == 0) return s_eq(s_abs(a), constant(a, kInfinity));
  return s_eq(a, constant(a, sign * kInfinity));
}

S formula::signbit(S a) {
  if (a.type() == DType::bool_) return is_nan(a);
  return s_lt(is_floating(a.type()) ? s_copysign(constant(a, 1), a) : a, constant(a, 0));
}

}  // namespace tandem::ops
