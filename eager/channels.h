// Functions of the channels of x (N, C, ...): normalisation with running statistics, dropout of whole
// channels, and their order. Names, argument order and defaults are PyTorch's. Included by functions.h.
// Statistics that are passed in are changed in place while training; any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// (x - mean) / sqrt(var + eps), times weight, plus bias, per channel of x (N, C, ...). In training with mean
/// and variance of the batch, and the running ones (C), if given, become
/// (1 - momentum) * running + momentum * those of the batch (the variance unbiased); else with the running
/// ones. Momentum is a number or a tensor of one element. In a traced call the statistics are slots: nothing
/// is read by the host.
/// Errors: no running statistics outside of training, one of them alone, one value per channel in training.
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight = {}, const Tensor& bias = {}, bool training = false,
                  const Operand& momentum = 0.1, double eps = 1e-5, Location where = Location::here());
/// A number in the place of `training` would count as true.
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, double eps) = delete;
/// The same over each channel of each example of x (N, C, L, ...); running statistics take the means over the
/// examples, and are used instead if use_input_stats is off.
Tensor instance_norm(const Tensor& x, const Tensor& running_mean = {}, const Tensor& running_var = {},
                     const Tensor& weight = {}, const Tensor& bias = {}, bool use_input_stats = true,
                     const Operand& momentum = 0.1, double eps = 1e-5, Location where = Location::here());

/// Zeroes whole channels of x (N, C, ...) with probability p and scales the others by 1 / (1 - p); x itself
/// when not training or p == 0. dropout1d takes (N, C, L) or (C, L), dropout2d (N, C, H, W) or (N, C, L),
/// dropout3d (N, C, D, H, W) or (C, D, H, W).
Tensor dropout1d(const Tensor& x, double p = 0.5, bool training = true, Location where = Location::here());
Tensor dropout2d(const Tensor& x, double p = 0.5, bool training = true, Location where = Location::here());
Tensor dropout3d(const Tensor& x, double p = 0.5, bool training = true, Location where = Location::here());
/// Sets elements to SELU's limit at minus infinity with probability p, and scales and shifts all of them so
/// that mean 0 and variance 1 stay (Klambauer et al., 2017). feature_alpha_dropout: whole channels of x (N,
/// C, ...).
Tensor alpha_dropout(const Tensor& x, double p = 0.5, bool training = false,
                     Location where = Location::here());
Tensor feature_alpha_dropout(const Tensor& x, double p = 0.5, bool training = false,
                             Location where = Location::here());
/// x where positive, else x times a slope, drawn for each element between the bounds while training, else
/// their mean.
Tensor rrelu(const Tensor& x, double lower = 1.0 / 8, double upper = 1.0 / 3, bool training = false,
             Location where = Location::here());

/// Channels as places: (..., C * r * r, H, W) -> (..., C, H * r, W * r) (Shi et al., 2016), and back.
Tensor pixel_shuffle(const Tensor& x, int64_t upscale_factor, Location where = Location::here());
Tensor pixel_unshuffle(const Tensor& x, int64_t downscale_factor, Location where = Location::here());
/// Channels of x (N, C, ...) in another order: one of each of `groups` groups, then the next of each.
Tensor channel_shuffle(const Tensor& x, int64_t groups, Location where = Location::here());

}  // namespace tandem
