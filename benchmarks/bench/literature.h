// Networks of the literature as training steps (protocol 5.d to 5.f), each in a size for two processors and,
// with "_b<batch>" behind its name, in the sizes of a card. Values.
#pragma once

#include <optional>

#include "benchmarks/bench/training.h"
#include "benchmarks/bench/workload.h"

namespace bench {

struct Literature {
  Recipe recipe;
  std::string what, unit;  // what `units` of a step are: "images"
  double units = 0;
  double flop = 0, bytes = 0;  // of a step, counted by hand, in float32
  double results = 0;          // of these, what layers give: under autocast half as many
  std::string counted;         // how
  /// Gradients of the gate's first step against the reference's, in float32 (workload.h).
  double gradient_tolerance = 2e-2, gradient_floor = 0;
};
/// Of a name without precision: "resnet50", "resnet50_b128"; nothing if it is none of these.
std::optional<Literature> literature(const std::string& name);

}  // namespace bench
