// Building blocks of passes and lowering: copying nodes between graphs, casts (also used as plain copies),
// composites replaced by their bodies. Free functions over values, any thread.
#pragma once

#include <functional>
#include <vector>

#include "tandem/jit/graph.h"

namespace tandem::jit {

/// Every composite replaced by the ops of its body, to the ground. Names stay stable: inputs and numbers keep
/// their order.
Graph expand_composites(const Graph& g);

/// The same, level by level, but for those that `keep` wants kept: they stay nodes.
Graph expand_composites(Graph g, const std::function<bool(const Graph&, const Node&)>& keep);

/// Appends a cast of `value` to `type`; with its own type a plain copy, which the planner uses to make
/// memory.
int32_t add_cast(Graph& g, int32_t value, DType type, Location where);

/// Appends a node of another graph with its operands renamed; returns its first result (the others follow),
/// -1 for none.
int32_t copy_node(Graph& to, const Graph& from, const Node& node, const std::vector<int32_t>& renamed);

}  // namespace tandem::jit
