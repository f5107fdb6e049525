// Graphs: nodes, parameters that change, children, capture.
#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Kernels;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;
using namespace tandem::cuda;

namespace {

constexpr char kText[] = R"(
  extern "C" __global__ void td_add(float* x, float by) { x[threadIdx.x] += by; }
  extern "C" __global__ void td_scale(float* x, float by) { x[threadIdx.x] *= by; })";

struct Parameters {
  Pointer x;
  float by;
  void* list[2] = {&x, &by};
  KernelNode node{};
  Parameters(Function f, const Memory<float>& memory, float value) : x(memory.address()), by(value) {
    node = {f, 1, 1, 1, 2, 1, 1, 0, list, nullptr, nullptr, nullptr};
  }
};

}  // namespace

TEST_CASE("a graph runs in the order of its dependencies, with the parameters set last") {
  const auto& d = sim().driver;
  const Device device;
  const Kernels kernels(kText);
  const Memory<float> x(std::vector<float>{1, 2}), y(std::vector<float>{1, 2});
  Graph graph = nullptr;
  GraphExec exec = nullptr;
  GraphNode add = nullptr, scale = nullptr;
  REQUIRE(d.graph_create(&graph, 0) == Result::success);
  {
    Parameters first(kernels.find("td_add"), x, 1), second(kernels.find("td_scale"), x, 10);
    REQUIRE(d.graph_add_kernel(&add, graph, nullptr, 0, &first.node) == Result::success);
    REQUIRE(d.graph_add_kernel(&scale, graph, &add, 1, &second.node) == Result::success);
    first.by = 50;  // copied above
  }
  REQUIRE(d.graph_instantiate(&exec, graph, 0) == Result::success);
  const long launches = sim().sim_gpu_count("launches"), graphs = sim().sim_gpu_count("graph_launches");
  for (int i = 0; i < 3; ++i) REQUIRE(d.graph_launch(exec, nullptr) == Result::success);
  CHECK(x.get() == std::vector<float>{2110, 3110});
  CHECK(sim().sim_gpu_count("launches") == launches + 6);
  CHECK(sim().sim_gpu_count("graph_launches") == graphs + 3);

  Parameters other(kernels.find("td_add"), y, 5);
  REQUIRE(d.graph_set_kernel(exec, add, &other.node) == Result::success);
  REQUIRE(d.graph_launch(exec, nullptr) == Result::success);
  CHECK(y.get() == std::vector<float>{6, 7});
  CHECK(x.get() == std::vector<float>{21100, 31100});

  CHECK(d.graph_add_kernel(&add, graph, reinterpret_cast<GraphNode*>(&exec), 1, &other.node) ==
        Result::invalid_value);
  CHECK(d.graph_destroy(graph) == Result::success);
  CHECK(d.graph_set_kernel(exec, scale, &other.node) == Result::invalid_value);  // its node is gone
  CHECK(d.graph_launch(exec, nullptr) == Result::success);
  CHECK(d.graph_exec_destroy(exec) == Result::success);
  CHECK(d.graph_launch(exec, nullptr) == Result{400});
}

TEST_CASE("a missing dependency shows") {
  const auto& d = sim().driver;
  const Device device;
  const Kernels kernels(kText);
  const Memory<float> x(std::vector<float>{1, 2});
  Graph graph = nullptr;
  GraphExec exec = nullptr;
  GraphNode node = nullptr;
  REQUIRE(d.graph_create(&graph, 0) == Result::success);
  Parameters first(kernels.find("td_add"), x, 1), second(kernels.find("td_scale"), x, 10);
  REQUIRE(d.graph_add_kernel(&node, graph, nullptr, 0, &first.node) == Result::success);
  REQUIRE(d.graph_add_kernel(&node, graph, nullptr, 0, &second.node) == Result::success);
  REQUIRE(d.graph_instantiate(&exec, graph, 0) == Result::success);
  bool seen[2] = {false, false};
  for (int i = 0; i < 3; ++i) {
    const Memory<float> fresh(std::vector<float>{1, 2});
    REQUIRE(d.copy_on_device(x.address(), fresh.address(), 8, nullptr) == Result::success);
    REQUIRE(d.graph_launch(exec, nullptr) == Result::success);
    seen[x.get()[0] == 20 ? 0 : 1] = true;
  }
  CHECK(seen[0]);
  CHECK(seen[1]);
  d.graph_destroy(graph);
  d.graph_exec_destroy(exec);
}

TEST_CASE("a captured stream becomes a child") {
  const auto& d = sim().driver;
  const Device device;
  const Kernels kernels(kText);
  const Memory<float> x(std::vector<float>{1, 2}), y(std::vector<float>{0, 0});
  StreamHandle stream = nullptr;
  REQUIRE(d.stream_create(&stream, 1) == Result::success);
  const auto captured = [&](const Memory<float>& target, float by) {
    Graph graph = nullptr;
    REQUIRE(d.capture_begin(stream, kCaptureThreadLocal) == Result::success);
    REQUIRE(d.fill_bytes(target.address(), 0, 8, stream) == Result::success);
    REQUIRE(kernels.launch_on(stream, "td_add", 1, 2, 0, target.pointer(), by) == Result::success);
    CHECK(d.stream_synchronize(stream) == Result{900});
    REQUIRE(d.capture_end(stream, &graph) == Result::success);
    return graph;
  };
  Graph child = captured(x, 4);
  CHECK(x.get() == std::vector<float>{1, 2});  // nothing ran
  Graph graph = nullptr;
  GraphExec exec = nullptr;
  GraphNode first = nullptr, node = nullptr;
  REQUIRE(d.graph_create(&graph, 0) == Result::success);
  REQUIRE(d.graph_add_child(&first, graph, nullptr, 0, child) == Result::success);
  Parameters scale(kernels.find("td_scale"), x, 10);
  REQUIRE(d.graph_add_kernel(&node, graph, &first, 1, &scale.node) == Result::success);
  REQUIRE(d.graph_destroy(child) == Result::success);  // the node has its own
  REQUIRE(d.graph_instantiate(&exec, graph, 0) == Result::success);
  for (const int lazy : {0, 1}) {
    sim().sim_gpu_set_lazy(lazy);
    REQUIRE(d.graph_launch(exec, stream) == Result::success);
    REQUIRE(d.stream_synchronize(stream) == Result::success);
    CHECK(x.get() == std::vector<float>{40, 40});
  }
  sim().sim_gpu_set_lazy(0);
  child = captured(y, 7);
  REQUIRE(d.graph_set_child(exec, first, child) == Result::success);
  REQUIRE(d.graph_launch(exec, stream) == Result::success);
  CHECK(y.get() == std::vector<float>{7, 7});
  CHECK(x.get() == std::vector<float>{400, 400});
  CHECK(d.graph_set_child(exec, first, graph) == Result{910});
  CHECK(d.graph_set_child(exec, node, child) == Result::invalid_value);
  d.graph_destroy(child);
  d.graph_destroy(graph);
  d.graph_exec_destroy(exec);
  CHECK(d.stream_destroy(stream) == Result::success);
  CHECK(d.capture_begin(nullptr, kCaptureThreadLocal) == Result{900});
}
