// Arguments of windows (kernel sizes, strides, paddings, ...) that are one number or one an axis. Stateless.
#pragma once

#include <limits>
#include <string>

#include "tandem/core/dims.h"
#include "tandem/core/error.h"

namespace tandem::eager {

/// One number an axis, each at least `least`; else an Error that names op and argument.
inline Dims per_axis(const char* op, const char* what, const Dims& given, int axes, Location where,
                     int64_t least = std::numeric_limits<int64_t>::min()) {
  const Dims d = given.rank() == 1 ? Dims::filled(axes, given[0]) : given;
  bool fits = d.rank() == axes;
  for (const int64_t v : d) fits = fits && v >= least;
  if (fits) return d;
  const bool bounded = least != std::numeric_limits<int64_t>::min();
  fail(std::string(op) + ": " + what + " must be one number" +
           (bounded ? " of at least " + std::to_string(least) : "") +
           (axes == 1 ? "" : " or " + std::to_string(axes) + " of them") + ", found " + to_string(given),
       where);
}

}  // namespace tandem::eager
