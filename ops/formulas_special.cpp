// Formulas and gradients of special functions. But for sinc they are computed in float64, so that float32 and
// halves have errors of one rounding (below 1 ulp). In float64 they are good to some 10 ulp, but for lgamma
// and digamma near their zeros (of lgamma: other than 1 and 2), where the error is some 1e-15 absolute. sinc:
// 4 ulp of its type. No branch looks at a value: all sides of a select are computed.
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

using formula::constant;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kPi = std::numbers::pi;

/// c[0] + c[1] x + c[2] x^2 + ...
S polynomial(S x, const std::vector<double>& c) {
  S sum = constant(x, c.back());
  for (size_t i = c.size() - 1; i-- > 0;) sum = s_fma(sum, x, constant(x, c[i]));
  return sum;
}

/// sin(pi x), and cos(pi x) as the sine half a period on: the distance from the nearest integer is exact.
S sin_pi(S x) {
  const S n = s_round(x), half = n * 0.5;
  const S sine = s_sin((x - n) * kPi);
  return select(s_eq(half, s_floor(half)), sine, -sine);
}
S cos_pi(S x) {
  const S n = s_round(x), half = n * 0.5;
  const S cosine = s_cos((x - n) * kPi);
  return select(s_eq(half, s_floor(half)), cosine, -cosine);
}

/// B_2j / (2j)!, from j = 1 on: of the formula of Euler and Maclaurin.
constexpr double kMaclaurin[] = {1.0 / 12,
                                 -1.0 / 720,
                                 1.0 / 30240,
                                 -1.0 / 1209600,
                                 1.0 / 47900160,
                                 -691.0 / 1307674368000.0,
                                 1.0 / 74724249600.0,
                                 -3617.0 / 10670622842880000.0};
constexpr int kMaclaurinTerms = std::size(kMaclaurin);

/// The sum of n^-k over n = 2, 3, ..., for whole k from 2 on.
double zeta_less_one(int k) {
  constexpr int kDirect = 30;
  const auto power = [](int base, int exponent) {
    long double p = 1;
    for (int i = 0; i < exponent; ++i) p /= base;
    return p;
  };
  long double sum = 0;
  for (int n = 2; n < kDirect; ++n) sum += power(n, k);
  sum += power(kDirect, k - 1) / (k - 1) + power(kDirect, k) / 2;
  long double rising = k;
  for (int j = 1; j <= kMaclaurinTerms; ++j) {
    sum += static_cast<long double>(kMaclaurin[j - 1]) * rising * power(kDirect, k + 2 * j - 1);
    rising *= static_cast<long double>(k + 2 * j - 1) * (k + 2 * j);
  }
  return static_cast<double>(sum);
}

/// lgamma(2 + z) for |z| <= 1/2: its Taylor series (1 - gamma) z + sum of (-1)^k (zeta(k) - 1) z^k / k.
S lgamma_near_two(S z) {
  static const std::vector<double> series = [] {
    std::vector<double> c = {1 - std::numbers::egamma};
    for (int k = 2; k <= 28; ++k) c.push_back((k % 2 == 0 ? 1 : -1) * zeta_less_one(k) / k);
    return c;
  }();
  return polynomial(z, series) * z;
}

/// The sum of B_2j / (2j (2j - 1) w^(2j - 1)): Stirling's series of lgamma.
S stirling(S w) {
  static const std::vector<double> series = {1.0 / 12,   -1.0 / 360,        1.0 / 1260, -1.0 / 1680,
                                             1.0 / 1188, -691.0 / 360360.0, 1.0 / 156,  -3617.0 / 122400.0};
  const S inverse = 1.0 / w;
  return polynomial(inverse * inverse, series) * inverse;
}

/// For w > 0. From 8.5 on Stirling's formula; below, the nearest of w + 1, w, w - 1, ... to 2 by
/// lgamma(w + 1) = lgamma(w) + log w, whose logarithms are one of a product.
S lgamma_positive(S w) {
  const S near = s_lt(w, constant(w, 8.5));
  S v = w, product = constant(w, 1);
  for (int step = 0; step < 6; ++step) {
    const S above = s_ge(v, constant(w, 2.5)), below = v - 1.0;
    product = select(above, product * below, product);
    v = select(above, below, v);
  }
  const S small = s_lt(w, constant(w, 0.5)), middle = s_lt(w, constant(w, 1.5));
  const S z = select(small, v, select(middle, v - 1.0, v - 2.0));
  const S divided = select(small, w * (w + 1.0), w);
  const S factor = select(middle, divided, product);
  const S logarithm = s_log(select(near, factor, w));
  const S series = lgamma_near_two(z);
  const S low = select(middle, series - logarithm, series + logarithm);
  const S high = (w - 0.5) * (logarithm - 1.0) + (0.5 * std::log(2 * kPi) - 0.5) + stirling(w);
  return select(near, low, high);
}

/// In float64, and back.
template <class F>
S in_double(S a, F f) {
  return cast(f(cast(a, DType::float64)), a.type());
}

/// The terms of the power series of I_order in (a / 2)^2: 1 / (k! (k + order)!).
std::vector<double> power_terms(int order) {
  std::vector<double> c;
  long double term = 1;
  for (int k = 0; k <= 38; ++k) {
    c.push_back(static_cast<double>(term));
    term /= static_cast<long double>(k + 1) * (k + 1 + order);
  }
  return c;
}

/// Of exp(-a) sqrt(2 pi a) I_order(a) in 1 / a (Abramowitz and Stegun, 9.7.1).
std::vector<double> asymptotic_terms(int order) {
  std::vector<double> c;
  long double term = 1;
  for (int k = 1; k <= 32; ++k) {
    c.push_back(static_cast<double>(term));
    term *= static_cast<long double>((2 * k - 1) * (2 * k - 1) - 4 * order * order) / (8 * k);
  }
  return c;
}

}  // namespace

// Below 0 by reflection: lgamma(a) + lgamma(1 - a) = log(pi / |sin(pi a)|).
S formula::lgamma(S a) {
  return in_double(a, [](S x) {
    const S zero = constant(x, 0), negative = s_lt(x, zero), infinity = constant(x, kInfinity);
    const S positive = lgamma_positive(select(negative, 1.0 - x, x));
    const S reflected = s_log(kPi / s_abs(sin_pi(x))) - positive;
    const S y = select(negative, reflected, positive);
    return select(s_eq(s_abs(x), infinity), infinity, y);
  });
}

// By psi(w) = psi(w + 1) - 1 / w from w + 10 on, where its asymptotic series log w - 1 / (2 w) - sum of
// B_2j / (2j w^2j) is good; below 0 by reflection: psi(1 - a) - psi(a) = pi / tan(pi a).
S formula::digamma(S a) {
  return in_double(a, [](S x) {
    static const std::vector<double> series = {1.0 / 12,  -1.0 / 120,       1.0 / 252, -1.0 / 240,
                                               1.0 / 132, -691.0 / 32760.0, 1.0 / 12,  -3617.0 / 8160.0};
    const S zero = constant(x, 0), negative = s_lt(x, zero);
    S w = select(negative, 1.0 - x, x), sum = zero;
    for (int k = 0; k < 10; ++k) {
      sum = sum + 1.0 / w;
      w = w + 1.0;
    }
    const S inverse = 1.0 / w, square = inverse * inverse;
    const S rest = s_fma(polynomial(square, series), square, inverse * 0.5);
    const S positive = s_log(w) - rest - sum;
    const S reflected = positive - kPi * (cos_pi(x) / sin_pi(x));
    const S pole = s_logical_and(negative, s_eq(x, s_floor(x)));
    const S y = select(negative, reflected, positive);
    const S known = select(s_eq(x, zero), s_copysign(constant(x, kInfinity), -x), y);
    return select(s_eq(x, constant(x, kInfinity)), x, select(pole, constant(x, kNan), known));
  });
}

// The first 16 terms, then the formula of Euler and Maclaurin; for a = 2 and negative b by reflection:
// zeta(2, b) + zeta(2, 1 - b) = (pi / sin(pi b))^2. For other a it is good down to b = -6, and NaN below.
S formula::zeta(S a, S b) {
  const DType type = a.type();
  const S s = cast(a, DType::float64), q = cast(b, DType::float64);
  const S zero = constant(q, 0), one = constant(q, 1), nan = constant(q, kNan);
  const S reflects = s_logical_and(s_eq(s, constant(q, 2)), s_lt(q, zero));
  S w = select(reflects, 1.0 - q, q), sum = zero;
  for (int k = 0; k < 16; ++k) {
    sum = sum + s_pow(w, -s);
    w = w + 1.0;
  }
  const S last = s_pow(w, -s), inverse = 1.0 / w;
  S tail = last * w / (s - 1.0) + last * 0.5;
  S term = last * s * inverse;  // s (s + 1) ... (s + 2j - 2) w^(-s - 2j + 1)
  for (int j = 1; j <= kMaclaurinTerms; ++j) {
    tail = tail + term * kMaclaurin[j - 1];
    term = term * (s + (2.0 * j - 1)) * (s + 2.0 * j) * inverse * inverse;
  }
  const S direct = select(s_lt(w, constant(q, 10)), nan, sum + tail);
  const S pi_over_sine = kPi / sin_pi(q);
  const S y = select(reflects, pi_over_sine * pi_over_sine - direct, direct);
  const S known = select(s_lt(s, one), nan, select(s_eq(s, one), constant(q, kInfinity), y));
  return cast(known, type);
}

// Up to 20 the power series, whose terms are positive, above the asymptotic one.
S formula::bessel(S a, int order, bool scaled) {
  return in_double(a, [&](S x) {
    const S size = s_abs(x), half = size * 0.5, root = s_exp(scaled ? -half : half);
    S low = polynomial(half * half, power_terms(order));
    if (order == 1) low = low * half;
    if (scaled) low = low * root * root;
    S high = polynomial(1.0 / size, asymptotic_terms(order)) / s_sqrt(size * (2 * kPi));
    if (!scaled) high = high * root * root;
    const S infinite = s_eq(size, constant(x, kInfinity));
    const S known =
        select(infinite, constant(x, scaled ? 0 : kInfinity), select(s_lt(size, constant(x, 20)), low, high));
    return order == 1 ? s_copysign(known, x) : known;
  });
}

S formula::sinc(S a) {
  const S zero = constant(a, 0);
  return select(s_eq(a, zero), constant(a, 1), sin_pi(a) / (a * kPi));
}

Value gradient::zeta(Emitter& e, Value g, Value a, Value b) {
  if (e.type(a).number) {
    const Value zero = e.full({}, e.type(b).number ? DType::float64 : e.type(b).dtype, 0);
    a = e.add(zero, a);
  }
  const Value next = e.zeta(e.add(a, 1.0), b);
  return e.neg(e.mul(g, e.mul(a, next)));
}
Value gradient::zeta_exponent(Emitter& e) {
  fail("zeta: there is no gradient with respect to the first operand; detach it", e.location);
}

// i0(a) - i1(a) / a, and 1 / 2 at 0; scaled ones less sign(a) times themselves.
namespace {
Value i1_slope(Emitter& e, Value i0, Value a, Value y) {
  const Value at_zero = e.eq(a, 0.0);
  const Value divisor = e.where(at_zero, 1.0, a);
  const Value slope = e.sub(i0, e.div(y, divisor));
  return e.where(at_zero, 0.5, slope);
}
}  // namespace

Value gradient::i1(Emitter& e, Value g, Value a, Value y) {
  const Value i0 = e.i0(a);
  return e.mul(g, i1_slope(e, i0, a, y));
}
Value gradient::i0e(Emitter& e, Value g, Value a, Value y) {
  const Value shrinking = e.mul(y, e.sign(a));
  const Value slope = e.sub(e.i1e(a), shrinking);
  return e.mul(g, slope);
}
Value gradient::i1e(Emitter& e, Value g, Value a, Value y) {
  const Value shrinking = e.mul(y, e.sign(a));
  const Value i0 = e.i0e(a);
  const Value slope = e.sub(i1_slope(e, i0, a, y), shrinking);
  return e.mul(g, slope);
}

// (cos(pi a) - sinc(a)) / a; near 0, where that difference has no digits left, its Taylor series: the sum of
// (-1)^k 2k pi^2k a^(2k - 1) / (2k + 1)!.
Value gradient::sinc(Emitter& e, Value g, Value a) {
  const Value near = e.lt(e.abs(a), 0.3);
  const Value divisor = e.where(near, 1.0, a);
  const Value cosine = e.cos(e.mul(divisor, kPi));
  const Value far = e.div(e.sub(cosine, e.sinc(divisor)), divisor);
  const Value inner = e.where(near, a, 0.0);
  const Value square = e.square(inner);
  constexpr int kTerms = 10;
  double c[kTerms], factor = 1;
  for (int k = 1; k <= kTerms; ++k) {
    factor *= -kPi * kPi / (2.0 * k * (2 * k + 1));
    c[k - 1] = 2 * k * factor;
  }
  Value sum = e.add(e.mul(square, c[kTerms - 1]), c[kTerms - 2]);
  for (int k = kTerms - 3; k >= 0; --k) sum = e.add(e.mul(sum, square), c[k]);
  const Value series = e.mul(sum, inner);
  return e.mul(g, e.where(near, series, far));
}

}  // namespace tandem::ops
