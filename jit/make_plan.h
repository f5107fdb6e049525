// The way from a graph to a plan: choose layouts of channels, prepare, group, let readers compute again what
// they would load, lay out. A function of values; any thread.
#pragma once

#include "tandem/jit/non_temporal.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// What is done to a graph for its device before the passes: calls that the device's libraries do as a whole
/// are marked, and biases that they do not add are parted from their convolutions.
Graph for_device(const Graph& g, Device device);

/// `prepare`, with packed operands where the device's library does not take them as they lie.
Prepared prepared_for(const Graph& g, Device device);

struct MadePlan {
  Prepared prepared;
  Grouping grouping;
  Plan plan;
};

/// Of a graph after the passes. `fused`: else each op is a kernel of its own. Changes `g` for the device:
/// values may lie in its library's blocks of channels, and kernels have copies of nodes that they compute
/// again instead of loading. `non_temporal_nbytes`: as ExecutableOptions has it.
MadePlan make_plan(Graph& g, bool fused, Device device,
                   int64_t non_temporal_nbytes = host_non_temporal_nbytes());

}  // namespace tandem::jit
