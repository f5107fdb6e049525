// A tensor under a name: what modules and optimizers hand out as their state and take back. Plain values; any
// thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

namespace eager {

/// Compares what was given with what is expected: an Error of `who` that lists missing and unexpected names
/// (`strict`), names given twice, and, always, wrong shapes and dtypes. Returns per expected tensor the index
/// of the one given, or -1.
std::vector<int64_t> match_names(const std::vector<NamedTensor>& expected,
                                 const std::vector<NamedTensor>& given, bool strict, const std::string& who,
                                 Location where);

}  // namespace eager
}  // namespace tandem
