// Clipping of gradients, PyTorch's nn.utils. Nothing is read by the host, so a traced step stays whole. Free
// functions on the gradients' tensors, any thread.
#pragma once

#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem::nn::utils {

/// Scales the gradients of `parameters` in place so that the norm of all of them together is at most
/// `max_norm`: by max_norm / (norm + 1e-6) where that is below 1. `norm_type` is above 0, infinity for the
/// largest magnitude. Parameters without a gradient are passed over. Gives the norm before, float32 (float64
/// if a gradient is), a scalar: 0 without gradients. Errors: max_norm below 0, another norm_type.
Tensor clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm, double norm_type = 2,
                       Location where = Location::here());

/// Clamps every element of the gradients to [-clip_value, clip_value] in place.
void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value,
                      Location where = Location::here());

}  // namespace tandem::nn::utils
