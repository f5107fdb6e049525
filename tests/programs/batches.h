// The data that a saved training step and the program that goes on with it have in common. Pure function.
#pragma once

#include <utility>

#include "tandem/tandem.h"

namespace saved_test {

inline std::pair<tandem::Tensor, tandem::Tensor> batch(int i) {
  tandem::Generator g(static_cast<uint64_t>(i) + 1);
  const tandem::Tensor x = tandem::randn({5, 6}, {}, &g);
  return {x, tandem::randint(0, 3, {5}, {.dtype = tandem::int64}, &g)};
}

}  // namespace saved_test
