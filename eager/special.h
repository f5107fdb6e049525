// Special functions under PyTorch's names, most of them rows of ops/pointwise.def. Included by functions.h,
// whose comments on arguments hold. Stateless; any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// The n-th derivative of digamma, n from 0 on. From n = 2 on a must be above -6.
Tensor polygamma(int64_t n, const Tensor& a, Location where = Location::here());
/// log of the multivariate gamma function of dimension p: p (p - 1) / 4 log(pi) + the sum of
/// lgamma(a - j / 2) over j = 0 ... p - 1; a above (p - 1) / 2.
Tensor mvlgamma(const Tensor& a, int64_t p, Location where = Location::here());

namespace special {

#define TANDEM_SPECIAL1(name, function) Tensor name(const Tensor& a, Location where = Location::here());
#define TANDEM_SPECIAL2(name, function) Tensor name(const Operand& a, const Operand& b);
#include "tandem/eager/special.inc"
#undef TANDEM_SPECIAL1
#undef TANDEM_SPECIAL2

Tensor polygamma(int64_t n, const Tensor& a, Location where = Location::here());
Tensor multigammaln(const Tensor& a, int64_t p, Location where = Location::here());
/// -a log(a); 0 at 0, -infinity below.
Tensor entr(const Tensor& a, Location where = Location::here());
/// a log1p(b), and 0 where a is 0 and b is a number.
Tensor xlog1py(const Operand& a, const Tensor& b);
/// The normal distribution's integral up to a, and its logarithm (without loss far below 0).
Tensor ndtr(const Tensor& a, Location where = Location::here());
Tensor log_ndtr(const Tensor& a, Location where = Location::here());
Tensor softmax(const Tensor& a, int64_t axis, Location where = Location::here());
Tensor log_softmax(const Tensor& a, int64_t axis, Location where = Location::here());
Tensor logsumexp(const Tensor& a, const Dims& axes, bool keepdim = false, Location where = Location::here());

}  // namespace special
}  // namespace tandem
