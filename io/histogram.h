// Distributions as TensorBoard shows them. Values; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem::io {

/// Bins of a tensor's elements: bin i holds those of [limits[i - 1], limits[i]), the first bin none; only as
/// many bins as the elements need.
struct Histogram {
  double min = 0, max = 0, sum = 0, sum_squares = 0;
  int64_t count = 0;       // of finite elements, of which all else speaks
  int64_t not_finite = 0;  // elements besides
  std::vector<double> limits, counts;
};

/// TensorFlow's limits, which rise: 0, and +-1e-12 times powers of 1.1 below 1e20, then +-the largest double.
const std::vector<double>& histogram_limits();

/// Reads the tensor.
Histogram histogram(const Tensor& values, Location where);

}  // namespace tandem::io
