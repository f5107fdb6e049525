// A plan as one CUDA graph: a node a kernel launch, a child graph a product of cuBLASLt, in a chain. Each run
// compares what it brings with what the run before brought, patches the nodes that use what moved, and
// launches once. A child graph cannot be patched, only captured again: a tensor of a product's that keeps
// moving gets a block of the graph's own, and a node that copies. Owned by its CudaExecutable; any thread,
// one run at a time.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tandem/jit/cuda_executable.h"

namespace tandem::jit {

class CudaGraph {
 public:
  explicit CudaGraph(const CudaExecutable& plan);
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  /// `sources` but for the arena and the error words, which are filled in. `several`: there are several
  /// streams, and Runtime::launching() is held. False, with nothing done, if a library's call cannot be
  /// captured.
  bool run(int64_t* sources, bool several);

 private:
  struct Node {
    cuda::GraphNode node = nullptr;
    cuda::Function function = nullptr;  // null: a product
    LaunchShape shape;
    size_t first_word = 0;
    int32_t product = -1;
    bool moved = false;
  };
  /// A node's word that comes from a source; kNoWord: an address of a product.
  struct Use {
    int32_t source = 0, node = 0;
    size_t word = 0;
    int64_t offset = 0;
  };
  /// An input or output of the graph.
  struct Operand {
    int moves = 0;
    std::unique_ptr<cuda::Block> own;
  };

  struct GraphNodes {
    const cuda::GraphNode* nodes;
    size_t count;
  };
  static constexpr size_t kNoWord = ~size_t{0};

  void build();
  void add_step(const CudaStep& step);
  void add_copy(size_t operand);
  void add_kernel(Node n);
  int64_t resolve(const CudaValue& v, size_t word);
  cuda::Graph capture(const CudaProductStep& p);
  bool follow(const int64_t* sources);
  bool settle(size_t operand);
  void patch();
  void clear() noexcept;
  const cuda::Block* own(int32_t source) const;
  cuda::Pointer own_address() const { return reinterpret_cast<cuda::Pointer>(this); }
  GraphNodes last() const {
    return nodes_.empty() ? GraphNodes{nullptr, 0} : GraphNodes{&nodes_.back().node, 1};
  }

  const CudaExecutable& plan_;
  std::mutex mutex_;
  cuda::Graph graph_ = nullptr;
  cuda::GraphExec exec_ = nullptr;
  cuda::StreamHandle capturing_ = nullptr;
  std::weak_ptr<cuda::Block> arena_;
  std::vector<Node> nodes_;
  std::vector<int64_t> words_;         // of all nodes
  std::vector<int64_t> last_, known_;  // the sources of the run before; with the graph's own blocks in place
  std::vector<Use> uses_;              // by source
  std::vector<size_t> first_use_;      // of each source, and the end
  std::vector<int32_t> moved_;         // nodes
  std::vector<Operand> operands_;
  int64_t own_bytes_ = 0;
  std::string refused_;                           // why a capture failed; "" while none has
  std::vector<cuda::Pointer> errors_, error_of_;  // words: those there are; by entry
};

}  // namespace tandem::jit
