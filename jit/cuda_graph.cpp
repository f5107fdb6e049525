#include "tandem/jit/cuda_graph.h"

namespace tandem::jit {

using cuda::KernelNode;
using cuda::Pointer;

namespace {
KernelNode node_of(const CudaExecutable::Launch& l, void** parameters) {
  KernelNode k{};
  k.function = l.function;
  k.grid_x = l.shape.grid;
  k.block_x = l.shape.block;
  k.grid_y = k.grid_z = k.block_y = k.block_z = 1;
  k.shared_bytes = l.shape.shared_bytes;
  k.parameters = parameters;
  return k;
}
}  // namespace

void CudaGraph::clear() noexcept {
  const cuda::Driver& api = plan_.device().api();
  if (exec_) api.graph_exec_destroy(exec_);
  for (const Node& n : nodes_)
    if (n.child) api.graph_destroy(n.child);
  if (graph_) api.graph_destroy(graph_);
  exec_ = nullptr;
  graph_ = nullptr;
  nodes_.clear();
}

CudaGraph::~CudaGraph() {
  clear();
  if (capturing_) plan_.device().api().stream_destroy(capturing_);
}

// A product or a native op, as the graph of what it queues.
cuda::Graph CudaGraph::capture(const Entry& e, const CudaExecutable::Addresses& memory, Pointer error) {
  cuda::Runtime& device = plan_.device();
  if (!capturing_)
    device.check(device.api().stream_create(&capturing_, cuda::kStreamNonBlocking), "cuStreamCreate");
  device.check(device.api().capture_begin(capturing_, cuda::kCaptureThreadLocal), "cuStreamBeginCapture");
  cuda::Graph graph = nullptr;
  try {
    plan_.run_library(e, memory, error, capturing_);
  } catch (...) {
    if (device.api().capture_end(capturing_, &graph) == cuda::Result::success && graph)
      device.api().graph_destroy(graph);
    throw;
  }
  device.check(device.api().capture_end(capturing_, &graph), "cuStreamEndCapture");
  return graph;
}

void CudaGraph::build(const CudaExecutable::Addresses& memory, const int64_t* numbers) {
  cuda::Runtime& device = plan_.device();
  const cuda::Driver& api = device.api();
  device.check(api.graph_create(&graph_, 0), "cuGraphCreate");
  for (const Entry& e : plan_.plan().entries) {
    const auto last = [&] { return nodes_.empty() ? nullptr : &nodes_.back().node; };
    if (e.kind == EntryKind::kernel) {
      plan_.for_launches(e, memory, numbers, [&](const CudaExecutable::Launch& l) {
        void* parameters[] = {l.words};
        const KernelNode kernel = node_of(l, parameters);
        Node n;
        n.words.assign(l.words, l.words + l.n_words);
        device.check(api.graph_add_kernel(&n.node, graph_, last(), last() != nullptr, &kernel),
                     "cuGraphAddKernelNode");
        nodes_.push_back(std::move(n));
      });
      continue;
    }
    const Pointer error = plan_.error_word(e);
    Node n;
    n.addresses = plan_.addresses_of(e, memory);
    n.addresses.push_back(error);
    n.child = capture(e, memory, error);
    device.check(api.graph_add_child(&n.node, graph_, last(), last() != nullptr, n.child),
                 "cuGraphAddChildGraphNode");
    nodes_.push_back(std::move(n));
  }
  device.check(api.graph_instantiate(&exec_, graph_, 0), "cuGraphInstantiate");
}

void CudaGraph::patch(const CudaExecutable::Addresses& memory, const int64_t* numbers) {
  cuda::Runtime& device = plan_.device();
  const cuda::Driver& api = device.api();
  auto node = nodes_.begin();
  for (const Entry& e : plan_.plan().entries) {
    if (e.kind == EntryKind::kernel) {
      plan_.for_launches(e, memory, numbers, [&](const CudaExecutable::Launch& l) {
        Node& n = *node++;
        if (std::equal(n.words.begin(), n.words.end(), l.words)) return;
        void* parameters[] = {l.words};
        const KernelNode kernel = node_of(l, parameters);
        device.check(api.graph_set_kernel(exec_, n.node, &kernel), "cuGraphExecKernelNodeSetParams");
        n.words.assign(l.words, l.words + l.n_words);
      });
      continue;
    }
    Node& n = *node++;
    const Pointer error = plan_.error_word(e);
    std::vector<Pointer> now = plan_.addresses_of(e, memory);
    now.push_back(error);
    if (now == n.addresses) continue;
    const cuda::Graph child = capture(e, memory, error);
    api.graph_destroy(n.child);
    n.child = child;
    device.check(api.graph_set_child(exec_, n.node, child), "cuGraphExecChildGraphNodeSetParams");
    n.addresses = std::move(now);
  }
}

void CudaGraph::run(const CudaExecutable::Addresses& memory, const int64_t* numbers) {
  const std::lock_guard lock(mutex_);
  cuda::Runtime& device = plan_.device();
  try {
    if (exec_)
      patch(memory, numbers);
    else
      build(memory, numbers);
    device.check(device.api().graph_launch(exec_, device.stream()), "cuGraphLaunch");
  } catch (...) {
    clear();  // built again by the next run
    throw;
  }
}

}  // namespace tandem::jit
