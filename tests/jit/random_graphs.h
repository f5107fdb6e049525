// Random graphs over the op table: kinds and ops are drawn from the table, operands and attributes until
// inference accepts the call. Everything follows from the seed. Values only, one thread.
#pragma once

#include "tests/jit/graph_runner.h"

namespace tandem::test {

struct RandomGraph {
  uint64_t seed = 0;
  jit::Graph graph;  // composites are single nodes; a node's line names the op that the generator drew (see
                     // drawn_op)
  GraphArguments arguments;
};

RandomGraph random_graph(uint64_t seed);

/// The op that a node comes from, through promotion and expansion.
const ops::OpDef& drawn_op(const jit::Node& n);

}  // namespace tandem::test
