// A plan as one CUDA graph: a node a kernel launch, a child graph a product or native op, in a chain. Each
// run compares addresses and numbers with those of the run before, patches what moved, and launches once.
// Owned by its CudaExecutable; any thread, one run at a time.
#pragma once

#include <mutex>
#include <vector>

#include "tandem/jit/cuda_executable.h"

namespace tandem::jit {

class CudaGraph {
 public:
  explicit CudaGraph(const CudaExecutable& plan) : plan_(plan) {}
  ~CudaGraph();
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  void run(const CudaExecutable::Addresses& memory, const int64_t* numbers);

 private:
  struct Node {
    cuda::GraphNode node = nullptr;
    std::vector<int64_t> words;            // of a kernel's launch
    std::vector<cuda::Pointer> addresses;  // of what was captured, with its error word last
    cuda::Graph child = nullptr;
  };
  void build(const CudaExecutable::Addresses& memory, const int64_t* numbers);
  void patch(const CudaExecutable::Addresses& memory, const int64_t* numbers);
  cuda::Graph capture(const Entry& e, const CudaExecutable::Addresses& memory, cuda::Pointer error);
  void clear() noexcept;

  const CudaExecutable& plan_;
  std::mutex mutex_;
  cuda::Graph graph_ = nullptr;
  cuda::GraphExec exec_ = nullptr;
  cuda::Stream capturing_ = nullptr;
  std::vector<Node> nodes_;
};

}  // namespace tandem::jit
