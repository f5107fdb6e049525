#include "tandem/eager/nn/init.h"

#include <cmath>

namespace tandem::nn::init {

namespace {

/// 1 / sqrt of a fan; 0 for an empty weight.
double over_root(double fan) { return fan > 0 ? 1 / std::sqrt(fan) : 0; }

double both_fans(const Tensor& t, Location where) {
  return static_cast<double>(fan(t, Fan::in, where)) + static_cast<double>(fan(t, Fan::out, where));
}

}  // namespace

int64_t fan(const Tensor& t, Fan which, Location where) {
  const Dims& d = t.sizes(where);
  if (d.rank() < 2)
    fail("init: a fan needs at least two axes (out, in, ...), found shape " + to_string(d), where);
  int64_t n = d[which == Fan::in ? 1 : 0];
  for (int i = 2; i < d.rank(); ++i) n *= d[i];
  return n;
}

void uniform_(const Tensor& t, double low, double high, Generator* generator, Location where) {
  const NoGrad no_grad;
  t.uniform_(low, high, generator, where);
}
void normal_(const Tensor& t, double mean, double std, Generator* generator, Location where) {
  const NoGrad no_grad;
  t.normal_(mean, std, generator, where);
}
void constant_(const Tensor& t, double value, Location where) {
  const NoGrad no_grad;
  t.fill_(Operand(value, where));
}
void zeros_(const Tensor& t, Location where) { constant_(t, 0, where); }
void ones_(const Tensor& t, Location where) { constant_(t, 1, where); }

void kaiming_uniform_(const Tensor& t, double a, Fan which, Generator* generator, Location where) {
  const double bound = std::sqrt(6 / (1 + a * a)) * over_root(static_cast<double>(fan(t, which, where)));
  uniform_(t, -bound, bound, generator, where);
}
void kaiming_normal_(const Tensor& t, double a, Fan which, Generator* generator, Location where) {
  const double std = std::sqrt(2 / (1 + a * a)) * over_root(static_cast<double>(fan(t, which, where)));
  normal_(t, 0, std, generator, where);
}
void xavier_uniform_(const Tensor& t, double gain, Generator* generator, Location where) {
  const double bound = gain * std::sqrt(6.0) * over_root(both_fans(t, where));
  uniform_(t, -bound, bound, generator, where);
}
void xavier_normal_(const Tensor& t, double gain, Generator* generator, Location where) {
  normal_(t, 0, gain * std::sqrt(2.0) * over_root(both_fans(t, where)), generator, where);
}

}  // namespace tandem::nn::init
