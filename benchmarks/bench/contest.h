// A training step as a workload: eagerly, traced with every call compared, and frozen, beside its products
// alone. Main thread.
#pragma once

#include "benchmarks/bench/products.h"
#include "benchmarks/bench/workload.h"
#include "tandem/core/dtype.h"

namespace bench {

/// What a step cannot do without, if it was counted.
struct Work {
  std::vector<Product> products;
  std::vector<tandem::ops::ConvolutionShape> convolutions;
};

/// The step of that name's recipe (training.h), without its counts and bars; the reference is eager mode's
/// losses in `reference_dtype`.
Workload training_workload(const std::string& name, const std::string& section, const std::string& what,
                           tandem::DType reference_dtype, const Work& work);

}  // namespace bench
