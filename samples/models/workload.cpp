#include "samples/models/workload.h"

#include <algorithm>
#include <cmath>

namespace samples {

int64_t scaled(int64_t n, double scale, int64_t multiple) {
  if (!(scale > 0 && scale <= 1))
    tandem::fail("scale: " + std::to_string(scale) + " is not above 0 and at most 1");
  const auto times =
      static_cast<int64_t>(std::lround(static_cast<double>(n) * scale / static_cast<double>(multiple)));
  return std::min(n, std::max<int64_t>(times, 1) * multiple);
}

}  // namespace samples
