// Whether tensors are equal, or nearly so, under PyTorch's names. Included by functions.h. Stateless; any
// thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// bool, per element of the broadcast size: a and b are equal, or |a - b| <= atol + rtol |b|; two NaN only
/// with `equal_nan`. Of one dtype, an Error otherwise; integers are compared in float64. Tolerances must not
/// be negative. Without gradient.
Tensor isclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8,
               bool equal_nan = false, Location where = Location::here());
/// Whether all elements are close. Reads a value: in a traced call a host read.
bool allclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8,
              bool equal_nan = false, Location where = Location::here());
/// Whether sizes and all elements are the same; NaN equals nothing. Of one dtype. Reads a value.
bool equal(const Tensor& a, const Tensor& b, Location where = Location::here());

}  // namespace tandem
