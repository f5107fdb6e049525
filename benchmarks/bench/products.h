// What a step cannot do without: its matrix products and convolutions alone, each by the provider that is
// fastest for its shape here. The operands' memory is shared by all shapes. Single-threaded callers.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "tandem/ops/convolutions/convolutions.h"
#include "tandem/ops/products/products.h"

namespace bench {

/// (m, k) x (k, n), operands row-major or stored transposed.
struct Product {
  int64_t m, n, k;
  bool a_transposed = false, b_transposed = false;
  int64_t batch = 1;
  int times = 1;
};
/// The three products of a linear layer, y = x W^T: forward, of the weight, and of the input if it is wanted.
void add_linear(std::vector<Product>& list, int64_t rows, int64_t in, int64_t out, bool input_gradient,
                int times = 1);

/// A function that runs them all once; providers are chosen by timing them with as many threads as are set.
std::function<void()> alone(const std::vector<Product>& products,
                            const std::vector<tandem::ops::ConvolutionShape>& convolutions = {});

}  // namespace bench
