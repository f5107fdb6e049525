// Special functions that are a few lines over ops.
#include "tandem/eager/special.h"

#include <cmath>
#include <numbers>

#include "tandem/eager/functions.h"

namespace tandem {

namespace {

Tensor times(const Tensor& a, double factor, Location where) {
  return mul(Operand(a, where), Operand(factor, where));
}
Tensor plus(const Tensor& a, double summand, Location where) {
  return add(Operand(a, where), Operand(summand, where));
}

}  // namespace

// (-1)^(n + 1) n! zeta(n + 1, a)
Tensor polygamma(int64_t n, const Tensor& a, Location where) {
  if (n < 0) fail("polygamma: n must not be negative, found " + std::to_string(n), where);
  if (n == 0) return digamma(a, where);
  const auto order = static_cast<double>(n);
  const double factor = (n % 2 == 0 ? -1 : 1) * std::tgamma(order + 1);
  return times(zeta(Operand(order + 1, where), Operand(a, where)), factor, where);
}

Tensor mvlgamma(const Tensor& a, int64_t p, Location where) {
  if (p < 1) fail("mvlgamma: p must be at least 1, found " + std::to_string(p), where);
  Tensor sum = lgamma(a, where);
  for (int64_t j = 1; j < p; ++j) {
    const Tensor next = lgamma(plus(a, -0.5 * static_cast<double>(j), where), where);
    sum = add(Operand(sum, where), Operand(next, where));
  }
  return plus(sum, static_cast<double>(p * (p - 1)) / 4 * std::log(std::numbers::pi), where);
}

namespace special {

#define TANDEM_SPECIAL1(name, function) \
  Tensor name(const Tensor& a, Location where) { return tandem::function(a, where); }
#define TANDEM_SPECIAL2(name, function) \
  Tensor name(const Operand& a, const Operand& b) { return tandem::function(a, b); }
#include "tandem/eager/special.inc"
#undef TANDEM_SPECIAL1
#undef TANDEM_SPECIAL2

Tensor polygamma(int64_t n, const Tensor& a, Location where) { return tandem::polygamma(n, a, where); }
Tensor multigammaln(const Tensor& a, int64_t p, Location where) { return mvlgamma(a, p, where); }
Tensor softmax(const Tensor& a, int64_t axis, Location where) { return tandem::softmax(a, axis, where); }
Tensor log_softmax(const Tensor& a, int64_t axis, Location where) {
  return tandem::log_softmax(a, axis, where);
}
Tensor logsumexp(const Tensor& a, const Dims& axes, bool keepdim, Location where) {
  return a.logsumexp(axes, keepdim, where);
}

// At 0 the root stands in, which is 0 and as steep there.
Tensor entr(const Tensor& a, Location where) {
  const Tensor zero = eq(Operand(a, where), Operand(0, where));
  const Tensor inner = tandem::where(Operand(zero, where), Operand(1.0, where), Operand(a, where));
  const Tensor logarithm = log(inner, where);
  const Tensor inside = neg(mul(Operand(inner, where), Operand(logarithm, where)), where);
  const Tensor start = tandem::where(Operand(zero, where), Operand(a, where), Operand(1.0, where));
  const Tensor root = pow(Operand(start, where), Operand(0.5, where));
  const Tensor above = tandem::where(Operand(zero, where), Operand(root, where), Operand(inside, where));
  const Tensor below = lt(Operand(a, where), Operand(0, where));
  return tandem::where(Operand(below, where), Operand(-HUGE_VAL, where), Operand(above, where));
}

// Where a is 0 and log1p(b) not finite, b is taken for 0: so the product is 0, and its gradients are.
Tensor xlog1py(const Operand& a, const Tensor& b) {
  const Location at = a.where;
  const Tensor zero = eq(a, Operand(0, at));
  const Tensor below = le(Operand(b, at), Operand(-1, at));
  const Tensor endless = eq(Operand(b, at), Operand(HUGE_VAL, at));
  const Tensor wild = logical_or(Operand(below, at), Operand(endless, at));
  const Tensor free = logical_and(Operand(zero, at), Operand(wild, at));
  const Tensor inner = tandem::where(Operand(free, at), Operand(0.0, at), Operand(b, at));
  const Tensor logarithm = tandem::log1p(inner, at);
  return mul(a, Operand(logarithm, at));
}

Tensor ndtr(const Tensor& a, Location where) {
  return times(tandem::erfc(times(a, -std::numbers::sqrt2 / 2, where), where), 0.5, where);
}

// Below -5 by the continued fraction of Mills' ratio (Abramowitz and Stegun, 26.2.14): the logarithm of
// phi(a) / (x + 1 / (x + 2 / (x + 3 / ...))) with x = -a. Operands of the branch that is not taken are moved
// to where it has a finite gradient.
Tensor log_ndtr(const Tensor& a, Location where) {
  const auto pick = [&](const Tensor& mask, const Operand& yes, const Operand& no) {
    return tandem::where(Operand(mask, where), yes, no);
  };
  const Tensor far = lt(Operand(a, where), Operand(-5, where));
  const Tensor near_a = pick(far, Operand(0.0, where), Operand(a, where));
  const Tensor negative = lt(Operand(near_a, where), Operand(0, where));
  const Tensor above = tandem::log1p(neg(ndtr(neg(near_a, where), where), where), where);
  const Tensor below = log(ndtr(near_a, where), where);
  const Tensor near = pick(negative, Operand(below, where), Operand(above, where));
  const Tensor x = pick(far, Operand(neg(a, where), where), Operand(5.0, where));
  Tensor fraction = x;
  for (int k = 24; k >= 1; --k)
    fraction = add(Operand(x, where),
                   Operand(div(Operand(static_cast<double>(k), where), Operand(fraction, where)), where));
  const Tensor bell =
      plus(times(square(x, where), -0.5, where), -0.5 * std::log(2 * std::numbers::pi), where);
  const Tensor tail = sub(Operand(bell, where), Operand(log(fraction, where), where));
  return pick(far, Operand(tail, where), Operand(near, where));
}

}  // namespace special
}  // namespace tandem
