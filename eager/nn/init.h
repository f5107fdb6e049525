// Filling parameters, with PyTorch's names and formulas. Each function changes its tensor in place without
// noting a gradient and draws from `generator`, or from the default one.
#pragma once

#include "tandem/eager/functions.h"

namespace tandem::nn::init {

/// Which fan a bound is computed from: inputs per output or outputs per input.
enum class Fan : uint8_t { in, out };

/// Fans of a weight (out, in, ...); an Error for less than two axes.
int64_t fan(const Tensor& t, Fan which, Location where = Location::here());

void uniform_(const Tensor& t, double low = 0, double high = 1, Generator* generator = nullptr,
              Location where = Location::here());
void normal_(const Tensor& t, double mean = 0, double std = 1, Generator* generator = nullptr,
             Location where = Location::here());
void constant_(const Tensor& t, double value, Location where = Location::here());
void zeros_(const Tensor& t, Location where = Location::here());
void ones_(const Tensor& t, Location where = Location::here());
/// Uniform within sqrt(6 / ((1 + a^2) * fan)), for a leaky ReLU of slope `a` (He et al., 2015).
void kaiming_uniform_(const Tensor& t, double a = 0, Fan which = Fan::in, Generator* generator = nullptr,
                      Location where = Location::here());
/// Normal with standard deviation sqrt(2 / ((1 + a^2) * fan)).
void kaiming_normal_(const Tensor& t, double a = 0, Fan which = Fan::in, Generator* generator = nullptr,
                     Location where = Location::here());
/// Uniform within gain * sqrt(6 / (fan in + fan out)) (Glorot and Bengio, 2010).
void xavier_uniform_(const Tensor& t, double gain = 1, Generator* generator = nullptr,
                     Location where = Location::here());
/// Normal with standard deviation gain * sqrt(2 / (fan in + fan out)).
void xavier_normal_(const Tensor& t, double gain = 1, Generator* generator = nullptr,
                    Location where = Location::here());

}  // namespace tandem::nn::init
