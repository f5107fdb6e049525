// Judges a graph by all ways to run it: one kernel per node against the float64 reference; fused, fused
// without some passes, and compiled against one kernel per node, bit for bit. Values only, one thread.
#pragma once

#include "tests/jit/graph_runner.h"

namespace tandem::test {

struct Tally {
  int nodes = 0, checked = 0, skipped = 0, compiled = 0, interpreted = 0;
};

/// Empty if all ways agree; else what was found. The seed chooses the passes that are left out.
std::string judge(const jit::Graph& g, const GraphArguments& arguments, bool compile, uint64_t seed,
                  Tally& tally);

/// Inputs and numbers for a graph that was written by hand: floating values in [-2, 2], integers in [0, 3).
GraphArguments some_arguments(const jit::Graph& g, uint64_t seed);

}  // namespace tandem::test
