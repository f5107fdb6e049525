// Streams, events and graphs. Work runs when it is given or, lazily, when somebody waits for it: as late as
// the real device might, so that a missing wait shows. Used under the driver's lock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "tests/sim_gpu/driver/launch.h"
#include "tests/sim_gpu/driver/state.h"

namespace sim_gpu {

/// One node of a graph, and what must come before it.
struct Step {
  std::vector<size_t> after;
  std::shared_ptr<const Launch> launch;            // or
  std::shared_ptr<const std::vector<Step>> child;  // or
  std::function<Result()> host;
};
using Steps = std::vector<Step>;

/// All steps, in one of the orders that their dependencies allow, another at each call.
Result run_steps(const Steps& steps);

struct StreamState {
  int device = 0;
  bool blocking = true;  // waits for the null stream, and it for this one
  std::deque<std::function<Result()>> pending;
  uint64_t given = 0, done = 0;
  Graph capture = nullptr;  // owned until capture_end
  int capture_mode = 0;
  bool capture_broken = false;
};

}  // namespace sim_gpu

namespace tandem::cuda {

struct StreamOfDriver {
  std::shared_ptr<sim_gpu::StreamState> state;
};

struct EventOfDriver {
  std::shared_ptr<sim_gpu::StreamState> stream;  // where it was recorded last; null: never
  uint64_t at = 0;
  bool timing = true;
  std::shared_ptr<double> time_ms;  // when that was reached
};

struct GraphNodeOfDriver {
  size_t index;
};

struct GraphOfDriver {
  sim_gpu::Steps steps;
  std::vector<std::unique_ptr<GraphNodeOfDriver>> nodes;
};

struct GraphExecOfDriver {
  sim_gpu::Steps steps;
  Graph source;
};

}  // namespace tandem::cuda

namespace sim_gpu {

/// The state of a stream, null for the default one; an error for one that does not exist.
Result find_stream(StreamHandle stream, const char* function, std::shared_ptr<StreamState>* state);
/// Gives work to a stream: runs it, keeps it for later, or adds it to the graph that captures the stream.
Result give(StreamState& stream, std::function<Result()> work);
Result give_launch(StreamState& stream, std::shared_ptr<const Launch> launch);
/// Runs what waits in a stream up to its `upto`-th work.
void run_until(StreamState& stream, uint64_t upto);
/// Runs all that waits anywhere on a device.
void run_all(int device);
/// What failed late, on any stream, since the last call.
Result take_late_error();

GraphNode append(tandem::cuda::GraphOfDriver& graph, Step step);
void destroy_graph(Graph graph);

}  // namespace sim_gpu
