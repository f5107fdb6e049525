// The graph functions of the simulated driver.
#include <unordered_set>

#include "tests/sim_gpu/driver/streams.h"

namespace sim_gpu {

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA

namespace {

/// Which step of `graph` a node is; false if it is none of its.
bool index_of(Graph graph, GraphNode node, size_t* index) {
  for (const auto& own : graph->nodes) {
    if (own.get() != node) continue;
    *index = own->index;
    return true;
  }
  return false;
}

Result read_dependencies(Graph graph, const GraphNode* nodes, size_t n, std::vector<size_t>* out) {
  if (n > 0 && nodes == nullptr) return Result::invalid_value;
  for (size_t i = 0; i < n; ++i) {
    size_t index = 0;
    if (!index_of(graph, nodes[i], &index)) {
      say("a dependency that is no node of this graph");
      return Result::invalid_value;
    }
    out->push_back(index);
  }
  return Result::success;
}

/// The step of an instantiated graph that came from `node`.
Result find_step(GraphExec exec, GraphNode node, const char* function, Step** step) {
  if (exec == nullptr || !handle_is(exec, "graph exec", function)) return kInvalidHandle;
  if (!handle_is(exec->source, "graph", function)) return Result::invalid_value;
  size_t index = 0;
  if (!index_of(exec->source, node, &index) || index >= exec->steps.size()) {
    say(std::string(function) + ": a node that is not of the graph this one was made from");
    return Result::invalid_value;
  }
  *step = &exec->steps[index];
  return Result::success;
}

bool same_structure(const Steps& a, const Steps& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].after != b[i].after || (a[i].launch == nullptr) != (b[i].launch == nullptr)) return false;
    if ((a[i].child == nullptr) != (b[i].child == nullptr)) return false;
    if (a[i].child && !same_structure(*a[i].child, *b[i].child)) return false;
  }
  return true;
}

}  // namespace

Result cuGraphCreate(Graph* graph, unsigned flags) {
  const Lock lock(mutex());
  if (graph == nullptr || flags != 0) return Result::invalid_value;
  if (take_failure("cuGraphCreate")) return Result::out_of_memory;
  *graph = new tandem::cuda::GraphOfDriver;
  handle_made(*graph, "graph");
  return Result::success;
}

Result cuGraphDestroy(Graph graph) {
  const Lock lock(mutex());
  if (graph == nullptr || !handle_is(graph, "graph", "cuGraphDestroy")) return Result::invalid_value;
  destroy_graph(graph);
  return Result::success;
}

Result cuGraphAddKernelNode_v2(GraphNode* node, Graph graph, const GraphNode* dependencies,
                               size_t n_dependencies, const KernelNode* parameters) {
  const Lock lock(mutex());
  if (node == nullptr || parameters == nullptr) return Result::invalid_value;
  if (graph == nullptr || !handle_is(graph, "graph", "cuGraphAddKernelNode")) return Result::invalid_value;
  if (current_device() < 0) return kInvalidContext;
  Step step;
  Result result = read_dependencies(graph, dependencies, n_dependencies, &step.after);
  if (result == Result::success) result = make_launch(*parameters, "cuGraphAddKernelNode", &step.launch);
  if (result != Result::success) return result;
  if (take_failure("cuGraphAddKernelNode")) return Result::out_of_memory;
  *node = append(*graph, std::move(step));
  return Result::success;
}

Result cuGraphAddChildGraphNode(GraphNode* node, Graph graph, const GraphNode* dependencies,
                                size_t n_dependencies, Graph child) {
  const Lock lock(mutex());
  if (node == nullptr) return Result::invalid_value;
  for (const Graph g : {graph, child})
    if (g == nullptr || !handle_is(g, "graph", "cuGraphAddChildGraphNode")) return Result::invalid_value;
  Step step;
  const Result result = read_dependencies(graph, dependencies, n_dependencies, &step.after);
  if (result != Result::success) return result;
  if (take_failure("cuGraphAddChildGraphNode")) return Result::out_of_memory;
  step.child = std::make_shared<const Steps>(child->steps);  // as it is now
  *node = append(*graph, std::move(step));
  return Result::success;
}

Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long flags) {
  const Lock lock(mutex());
  if (exec == nullptr || flags > 15) return Result::invalid_value;
  if (graph == nullptr || !handle_is(graph, "graph", "cuGraphInstantiate")) return Result::invalid_value;
  if (current_device() < 0) return kInvalidContext;
  if (take_failure("cuGraphInstantiate")) return Result::out_of_memory;
  *exec = new tandem::cuda::GraphExecOfDriver{graph->steps, graph};
  handle_made(*exec, "graph exec");
  return Result::success;
}

Result cuGraphExecDestroy(GraphExec exec) {
  const Lock lock(mutex());
  if (exec == nullptr || !handle_is(exec, "graph exec", "cuGraphExecDestroy")) return kInvalidHandle;
  handle_gone(exec, "graph exec");
  delete exec;  // what was launched goes on: it has copies
  return Result::success;
}

Result cuGraphExecKernelNodeSetParams_v2(GraphExec exec, GraphNode node, const KernelNode* parameters) {
  if (only_counted("patches")) return Result::success;
  const Lock lock(mutex());
  if (parameters == nullptr) return Result::invalid_value;
  Step* step = nullptr;
  Result result = find_step(exec, node, "cuGraphExecKernelNodeSetParams", &step);
  if (result != Result::success) return result;
  if (!step->launch) return Result::invalid_value;
  std::shared_ptr<const Launch> launch;
  result = make_launch(*parameters, "cuGraphExecKernelNodeSetParams", &launch);
  if (result != Result::success) return result;
  if (take_failure("cuGraphExecKernelNodeSetParams")) return Result::out_of_memory;
  step->launch = std::move(launch);
  return Result::success;
}

Result cuGraphExecChildGraphNodeSetParams(GraphExec exec, GraphNode node, Graph child) {
  const Lock lock(mutex());
  Step* step = nullptr;
  const Result result = find_step(exec, node, "cuGraphExecChildGraphNodeSetParams", &step);
  if (result != Result::success) return result;
  if (child == nullptr || !handle_is(child, "graph", "cuGraphExecChildGraphNodeSetParams"))
    return Result::invalid_value;
  if (!step->child) return Result::invalid_value;
  if (!same_structure(*step->child, child->steps)) {
    say("cuGraphExecChildGraphNodeSetParams: the graph has other nodes than the one it replaces");
    return kUpdateFailure;
  }
  if (take_failure("cuGraphExecChildGraphNodeSetParams")) return Result::out_of_memory;
  step->child = std::make_shared<const Steps>(child->steps);
  return Result::success;
}

Result cuGraphLaunch(GraphExec exec, StreamHandle stream) {
  if (only_counted("graph_launches")) return Result::success;
  const Lock lock(mutex());
  if (exec == nullptr || !handle_is(exec, "graph exec", "cuGraphLaunch")) return kInvalidHandle;
  std::shared_ptr<StreamState> state;
  const Result found = find_stream(stream, "cuGraphLaunch", &state);
  if (found != Result::success) return found;
  if (take_failure("cuGraphLaunch")) return Result::launch_failed;
  add("graph_launches", 1);
  if (state->capture == nullptr && settings().lazy == 0 && state->pending.empty())
    return run_steps(exec->steps);
  return give(*state, [steps = exec->steps] { return run_steps(steps); });
}

}  // namespace sim_gpu
