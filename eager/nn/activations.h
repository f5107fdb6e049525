// Activations as layers, with PyTorch's names, arguments and defaults. Parameters of a layer are public
// members. Ownership and threads as in module.h.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

/// A function of one tensor as a layer.
template <Tensor (*kFunction)(const Tensor&, Location)>
class Activation : public Module {
 public:
  Tensor forward(const Tensor& x, Location where = Location::here()) const { return kFunction(x, where); }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }
};
using ReLU = Activation<relu>;
using Tanh = Activation<tanh>;
using Sigmoid = Activation<sigmoid>;
using ReLU6 = Activation<relu6>;
using SELU = Activation<selu>;
using Mish = Activation<mish>;
using LogSigmoid = Activation<logsigmoid>;
using Softsign = Activation<softsign>;
using Hardsigmoid = Activation<hardsigmoid>;
using Hardswish = Activation<hardswish>;
using Tanhshrink = Activation<tanhshrink>;
/// x * sigmoid(x)
using SiLU = Activation<silu>;

#include "tandem/eager/nn/layer.inc"

/// x * Phi(x), exactly or by the tanh approximation.
TANDEM_LAYER1(GELU, bool, tanh_approximation, = false, gelu(x, tanh_approximation, where))
/// x where positive, else alpha * (exp(x) - 1).
TANDEM_LAYER1(ELU, double, alpha, = 1, elu(x, alpha, where))
/// x where positive, else alpha * (exp(x / alpha) - 1).
TANDEM_LAYER1(CELU, double, alpha, = 1, celu(x, alpha, where))
/// x where positive, else negative_slope * x.
TANDEM_LAYER1(LeakyReLU, double, negative_slope, = 0.01, leaky_relu(x, negative_slope, where))
/// log(1 + exp(beta * x)) / beta, and x where beta * x exceeds the threshold.
TANDEM_LAYER2(Softplus, double, beta, = 1, threshold, = 20, softplus(x, beta, threshold, where))
/// x where positive, else times a slope drawn from [lower, upper) per element while training, else their
/// mean.
TANDEM_LAYER2(RReLU, double, lower, = 1.0 / 8, upper, = 1.0 / 3, rrelu(x, lower, upper, is_training(), where))
/// min(max(x, min_val), max_val)
TANDEM_LAYER2(Hardtanh, double, min_val, = -1, max_val, = 1, hardtanh(x, min_val, max_val, where))
/// x moved by lambd towards 0, 0 within lambd of it.
TANDEM_LAYER1(Softshrink, double, lambd, = 0.5, softshrink(x, lambd, where))
/// x, 0 within lambd of 0.
TANDEM_LAYER1(Hardshrink, double, lambd, = 0.5, hardshrink(x, lambd, where))
/// x where above the threshold, else value.
TANDEM_LAYER2(Threshold, double, threshold, , value, , tandem::threshold(x, threshold, value, where))
/// exp(x) over its sum along an axis; of -x; and the logarithm.
TANDEM_LAYER1(Softmax, int64_t, dim, , softmax(x, dim, where))
TANDEM_LAYER1(Softmin, int64_t, dim, , softmax(neg(x, where), dim, where))
TANDEM_LAYER1(LogSoftmax, int64_t, dim, , log_softmax(x, dim, where))
/// The first half along an axis times sigmoid of the second.
TANDEM_LAYER1(GLU, int64_t, dim, = -1, glu(x, dim, where))

/// x where positive, else x times the parameter weight: one, or one per channel of x (N, C, ...).
class PReLU : public Module {
 public:
  explicit PReLU(int64_t num_parameters = 1, double init = 0.25, TensorOptions options = {},
                 Location where = Location::here());
  TANDEM_FORWARD(prelu(x, weight, where))

  const Tensor weight;
};

#include "tandem/eager/nn/layer_end.inc"

}  // namespace tandem::nn
