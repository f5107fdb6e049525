#include "tandem/eager/close.h"

#include <string>

#include "tandem/core/error.h"
#include "tandem/eager/functions.h"

namespace tandem {

namespace {

void check_pair(const char* who, const Tensor& a, const Tensor& b, Location where) {
  if (a.checked(where).dtype != b.checked(where).dtype)
    fail(std::string(who) + ": operands of one dtype are wanted, not " + name(a.dtype()) + " and " +
             name(b.dtype()),
         where);
}

Tensor close(const char* who, const Tensor& a, const Tensor& b, double rtol, double atol, bool equal_nan,
             Location where) {
  check_pair(who, a, b, where);
  if (!(rtol >= 0) || !(atol >= 0))
    fail(std::string(who) + ": tolerances must not be negative, not rtol " + std::to_string(rtol) +
             ", atol " + std::to_string(atol),
         where);
  const NoGrad no_grad;
  Tensor result = eq(Operand(a, where), Operand(b, where));
  if (equal_nan && is_floating(a.dtype()))
    result = logical_or(result, logical_and(isnan(a, where), isnan(b, where)));
  if (rtol == 0 && atol == 0) return result;
  const bool exact = !is_floating(a.dtype());
  const Tensor x = exact ? a.to(float64, where) : a, y = exact ? b.to(float64, where) : b;
  const Tensor apart = abs(x - y, where);
  // With an infinite b the bound is infinite, too: such a pair is close only if it is equal.
  const Tensor within = logical_and(isfinite(apart, where), apart <= abs(y, where) * rtol + atol);
  return logical_or(result, within);
}

}  // namespace

Tensor isclose(const Tensor& a, const Tensor& b, double rtol, double atol, bool equal_nan, Location where) {
  return close("isclose", a, b, rtol, atol, equal_nan, where);
}

bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol, bool equal_nan, Location where) {
  return close("allclose", a, b, rtol, atol, equal_nan, where).all({}, false, where).item<bool>(where);
}

bool equal(const Tensor& a, const Tensor& b, Location where) {
  check_pair("equal", a, b, where);
  if (!(a.sizes() == b.sizes())) return false;
  const NoGrad no_grad;
  return eq(Operand(a, where), Operand(b, where)).all({}, false, where).item<bool>(where);
}

}  // namespace tandem
