// Kernels of many graphs, compiled in few programs before any of the graphs is run. Any thread.
#pragma once

#include <span>

#include "tandem/jit/graph.h"

namespace tandem::jit {

/// Compiles the kernels of these graphs for a device together, so that executables made of them find them.
/// Returns how many different ones there are.
int precompile(std::span<const Graph> graphs, Device device);

}  // namespace tandem::jit
