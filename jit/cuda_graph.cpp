#include "tandem/jit/cuda_graph.h"

#include <algorithm>
#include <utility>

#include "tandem/core/log.h"
#include "tandem/jit/cuda_native.h"
#include "tandem/jit/cuda_product.h"
#include "tandem/jit/cudnn.h"

namespace tandem::jit {

using cuda::KernelNode;
using cuda::Pointer;

namespace {

constexpr int64_t kOwnBytes = int64_t{64} << 20;  // of all blocks of a graph
constexpr int kMoves = 2;                         // after so many a tensor gets one

KernelNode kernel_node(cuda::Function function, const LaunchShape& shape, void** parameters) {
  KernelNode k{};
  k.function = function;
  k.grid_x = shape.grid;
  k.block_x = shape.block;
  k.grid_y = k.grid_z = k.block_y = k.block_z = 1;
  k.shared_bytes = shape.shared_bytes;
  k.parameters = parameters;
  return k;
}

}  // namespace

CudaGraph::CudaGraph(const CudaExecutable& plan) : plan_(plan), operands_(plan.steps().operands.size()) {
  error_of_.resize(plan.plan().entries.size());
  for (size_t e = 0; e < error_of_.size(); ++e)
    if (const cuda::ErrorText& text = plan.error_text(e)) {
      error_of_[e] = plan.device().keep_error_word(text, plan.plan().entries[e].where);
      errors_.push_back(error_of_[e]);
    }
  plan.device().order().hold(own_address(), 1);
  if (plan.steps().arena_bytes > 0) plan.device().add_arena_user();
}

void CudaGraph::clear() noexcept {
  const cuda::Driver& api = plan_.device().api();
  if (exec_) api.graph_exec_destroy(exec_);
  if (graph_) api.graph_destroy(graph_);
  exec_ = nullptr;
  graph_ = nullptr;
  nodes_.clear();
  words_.clear();
  uses_.clear();
  moved_.clear();
}

CudaGraph::~CudaGraph() {
  clear();
  plan_.device().order().drop(own_address());
  if (plan_.steps().arena_bytes > 0) plan_.device().remove_arena_user();
  for (const Pointer word : errors_) plan_.device().release_error_word(word);
  if (!capturing_) return;
  leave_stream(plan_.device(), capturing_);
  plan_.device().api().stream_destroy(capturing_);
}

/// The block of the graph's that stands for what a source brings; null for none.
const cuda::Block* CudaGraph::own(int32_t source) const {
  const int32_t operand = source - CudaSteps::kFirst;
  return operand < 0 || static_cast<size_t>(operand) >= operands_.size()
             ? nullptr
             : operands_[static_cast<size_t>(operand)].own.get();
}

/// A product, as the graph of what it queues. Relaxed: nothing else happens on the stream, and a library that
/// loads a kernel at its first call, or allocates, does so beside the graph.
cuda::Graph CudaGraph::capture(const CudaProductStep& p) {
  cuda::Runtime& device = plan_.device();
  if (!capturing_)
    device.check(device.api().stream_create(&capturing_, cuda::kStreamNonBlocking), "cuStreamCreate");
  device.check(device.api().capture_begin(capturing_, cuda::kCaptureRelaxed), "cuStreamBeginCapture");
  cuda::Graph graph = nullptr;
  const auto drop = [&] {
    if (device.api().capture_end(capturing_, &graph) == cuda::Result::success && graph)
      device.api().graph_destroy(graph);
  };
  try {
    plan_.run_product(p, known_.data(), capturing_);
  } catch (const OutOfMemory&) {
    drop();
    throw;
  } catch (const Error& e) {
    drop();
    refused_ = e.what();
    throw;
  } catch (...) {
    drop();
    throw;
  }
  if (const cuda::Result result = device.api().capture_end(capturing_, &graph);
      result != cuda::Result::success) {
    refused_ = "cuStreamEndCapture";
    device.check(result, "cuStreamEndCapture");
  }
  return graph;
}

/// A value now; what may move it is noted as a use by the node that is added next.
int64_t CudaGraph::resolve(const CudaValue& v, size_t word) {
  if (v.source >= CudaSteps::kFirst || v.source == CudaSteps::kArena)
    if (!own(v.source)) uses_.push_back({v.source, static_cast<int32_t>(nodes_.size()), word, v.offset});
  return v.in(known_.data());
}

void CudaGraph::add_kernel(Node n) {
  cuda::Runtime& device = plan_.device();
  const GraphNodes before = last();
  void* parameters[] = {words_.data() + n.first_word};
  const KernelNode kernel = kernel_node(n.function, n.shape, parameters);
  device.check(device.api().graph_add_kernel(&n.node, graph_, before.nodes, before.count, &kernel),
               "cuGraphAddKernelNode");
  nodes_.push_back(n);
}

void CudaGraph::add_step(const CudaStep& step) {
  const CudaSteps& all = plan_.steps();
  cuda::Runtime& device = plan_.device();
  Node n;
  n.function = step.function;
  n.shape = step.shape;
  n.product = step.product;
  n.first_word = words_.size();
  if (!step.function) {
    const CudaProductStep& p = all.products[static_cast<size_t>(step.product)];
    p.for_values([&](const CudaValue& v) { resolve(v, kNoWord); });
    const cuda::Graph child = capture(p);
    const GraphNodes before = last();
    const cuda::Result result =
        device.api().graph_add_child(&n.node, graph_, before.nodes, before.count, child);
    device.api().graph_destroy(child);  // the node has a copy
    device.check(result, "cuGraphAddChildGraphNode");
    nodes_.push_back(n);
    return;
  }
  known_[CudaSteps::kError] = static_cast<int64_t>(error_of_[static_cast<size_t>(step.entry)]);
  words_.insert(words_.end(), all.words.begin() + step.first_word,
                all.words.begin() + step.first_word + step.n_words);
  for (int32_t i = step.first_patch; i < step.first_patch + step.n_patches; ++i) {
    const CudaPatch& patch = all.patches[static_cast<size_t>(i)];
    const size_t word = n.first_word + static_cast<size_t>(patch.word);
    words_[word] = resolve(patch.value, word);
  }
  add_kernel(n);
}

/// Between a tensor that moves and the block that stands for it.
void CudaGraph::add_copy(size_t operand) {
  const CudaSteps& all = plan_.steps();
  const bool input = operand < static_cast<size_t>(all.n_inputs);
  const auto source = static_cast<int32_t>(operand) + CudaSteps::kFirst;
  const NativeLaunch copy =
      cuda_copy(plan_.device(), all.operands[operand].dtype, all.operands[operand].elements);
  Node n;
  n.function = copy.function;
  n.shape = copy.shape();
  n.first_word = words_.size();
  for (const NativeWord& w : copy.words) {
    int64_t value = w.value;
    if (w.operand != NativeWord::kNone) {
      if ((w.operand == NativeWord::kInput) == input) {
        value += last_[static_cast<size_t>(source)];
        uses_.push_back({source, static_cast<int32_t>(nodes_.size()), words_.size(), w.value});
      } else {
        value += static_cast<int64_t>(own(source)->memory());
      }
    }
    words_.push_back(value);
  }
  add_kernel(n);
}

void CudaGraph::build() {
  cuda::Runtime& device = plan_.device();
  const CudaSteps& all = plan_.steps();
  known_ = last_;
  for (size_t i = 0; i < operands_.size(); ++i)
    if (const cuda::Block* block = operands_[i].own.get())
      known_[CudaSteps::kFirst + i] = static_cast<int64_t>(block->memory());
  device.check(device.api().graph_create(&graph_, 0), "cuGraphCreate");
  const auto n_inputs = static_cast<size_t>(all.n_inputs);
  for (size_t i = 0; i < n_inputs; ++i)
    if (operands_[i].own) add_copy(i);
  for (const CudaStep& step : all.steps) add_step(step);
  for (size_t i = n_inputs; i < operands_.size(); ++i)
    if (operands_[i].own) add_copy(i);
  std::stable_sort(uses_.begin(), uses_.end(),
                   [](const Use& a, const Use& b) { return a.source < b.source; });
  first_use_.assign(static_cast<size_t>(all.n_sources()) + 1, 0);
  for (const Use& u : uses_) ++first_use_[static_cast<size_t>(u.source) + 1];
  for (size_t s = 1; s < first_use_.size(); ++s) first_use_[s] += first_use_[s - 1];
  device.check(device.api().graph_instantiate(&exec_, graph_, 0), "cuGraphInstantiate");
}

/// Gives a tensor that keeps moving a block of the graph's own, or takes it back; true if it did: the graph
/// is built again.
bool CudaGraph::settle(size_t operand) {
  const CudaOperand& type = plan_.steps().operands[operand];
  const bool input = operand < static_cast<size_t>(plan_.steps().n_inputs);
  const int64_t bytes = type.elements * itemsize(type.dtype);
  Operand& o = operands_[operand];
  if (!type.in_products || bytes == 0 || (input && type.written)) return false;
  // Which algorithm a product takes depends on the alignment, which a block of our own would change.
  if (last_[CudaSteps::kFirst + operand] % kProductAlignment != 0) {
    if (o.own) own_bytes_ -= bytes;
    return std::exchange(o.own, nullptr) != nullptr;
  }
  if (o.own) return false;
  if (++o.moves < kMoves || own_bytes_ + bytes > kOwnBytes) return false;
  try {
    o.own = std::make_unique<cuda::Block>(plan_.device(), bytes);
  } catch (const OutOfMemory&) {
    return false;  // captured again each time
  }
  own_bytes_ += bytes;
  return true;
}

void CudaGraph::patch() {
  cuda::Runtime& device = plan_.device();
  for (const int32_t i : moved_) {
    Node& n = nodes_[static_cast<size_t>(i)];
    n.moved = false;
    if (n.function) {
      void* parameters[] = {words_.data() + n.first_word};
      const KernelNode kernel = kernel_node(n.function, n.shape, parameters);
      device.check(device.api().graph_set_kernel(exec_, n.node, &kernel), "cuGraphExecKernelNodeSetParams");
      continue;
    }
    const cuda::Graph child = capture(plan_.steps().products[static_cast<size_t>(n.product)]);
    const cuda::Result result = device.api().graph_set_child(exec_, n.node, child);
    device.api().graph_destroy(child);
    device.check(result, "cuGraphExecChildGraphNodeSetParams");
  }
  moved_.clear();
}

/// Takes over what moved since the run before; false if the graph has to be built again.
bool CudaGraph::follow(const int64_t* sources) {
  bool same = true;
  const auto n = static_cast<size_t>(plan_.steps().n_sources());
  for (size_t s = 0; s < n; ++s) {
    if (sources[s] == last_[s]) [[likely]]
      continue;
    last_[s] = sources[s];
    const size_t operand = s - CudaSteps::kFirst;
    if (s >= CudaSteps::kFirst && operand < operands_.size()) {
      same &= !settle(operand);
      if (!operands_[operand].own) known_[s] = sources[s];
    } else {
      known_[s] = sources[s];
    }
    for (size_t u = first_use_[s]; u < first_use_[s + 1]; ++u) {
      const Use& use = uses_[u];
      if (use.word != kNoWord) words_[use.word] = sources[s] + use.offset;
      Node& node = nodes_[static_cast<size_t>(use.node)];
      if (!std::exchange(node.moved, true)) moved_.push_back(use.node);
    }
  }
  return same;
}

bool CudaGraph::run(int64_t* sources, bool several) {
  const std::lock_guard lock(mutex_);
  if (!refused_.empty()) return false;
  cuda::Runtime& device = plan_.device();
  std::shared_ptr<cuda::Block> arena;  // until the launch
  if (const int64_t bytes = plan_.steps().arena_bytes; bytes > 0) {
    arena = device.graph_arena(bytes, arena_);
    sources[CudaSteps::kArena] = static_cast<int64_t>(arena->memory());
  }
  try {
    if (exec_ && !follow(sources)) clear();
    if (exec_) try {
        patch();
      } catch (const Error&) {
        if (!refused_.empty()) throw;
        clear();  // a product in another form has other nodes
      }
    if (!exec_) {
      clear();
      last_.assign(sources, sources + plan_.steps().n_sources());
      build();
    }
    const cuda::Ordered order(device, several, [&](auto&& touch) {
      plan_.touches(sources, touch);
      for (const Operand& o : operands_)
        if (o.own) touch({o.own->memory(), true});
      touch({own_address(), true});  // launches of a graph follow one another
    });
    if (!errors_.empty()) device.expect_errors(errors_);
    device.check(device.api().graph_launch(exec_, device.stream()), "cuGraphLaunch");
    return true;
  } catch (...) {
    clear();  // built again by the next run
    if (refused_.empty()) throw;
  }
  core::log(core::LogArea::jit, core::LogLevel::warn,
            "a library's call could not be captured, so a traced segment is launched step by step, without a "
            "CUDA graph: " +
                refused_);
  return false;
}

}  // namespace tandem::jit
