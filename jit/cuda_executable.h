// A plan on a CUDA device: its entries as launches, in order, on the current stream; for a traced segment as
// one CUDA graph. Everything is compiled, loaded and computed that does not change from run to run when it is
// made; any thread, one run at a time where there is a graph.
#pragma once

#include <memory>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cuda_steps.h"

namespace tandem::jit {

class CudaGraph;

class CudaExecutable {
 public:
  /// `plan`, of `g`, outlives this. `graph`: runs are launches of one CUDA graph.
  CudaExecutable(const Graph& g, const Plan& plan, Device device, bool graph);
  ~CudaExecutable();
  CudaExecutable(const CudaExecutable&) = delete;
  CudaExecutable& operator=(const CudaExecutable&) = delete;

  /// Arguments as Executable::run's, addresses on the device. Queues the work and returns; an index out of
  /// range is told at the next synchronisation, at `where` if known, else at its op's line. `nothing`: all
  /// but the work.
  void run(void* const* inputs, const int64_t* numbers, void* const* outputs, Location where, bool nothing,
           int* reached) const;

  /// Queues what a library does for a product or a convolution.
  void run_product(const CudaProductStep& p, const int64_t* sources, cuda::StreamHandle stream) const;

  /// Calls `touch(cuda::Touch)` for all memory that a run works on.
  template <class F>
  void touches(const int64_t* sources, F&& touch) const {
    const auto at = [&](size_t source) { return static_cast<cuda::Pointer>(sources[source]); };
    for (size_t i = 0; i < steps_.operands.size(); ++i)
      touch({at(CudaSteps::kFirst + i), steps_.operands[i].written});
    touch({at(CudaSteps::kArena), true});
    touch({constants_.memory(), false});
    if (steps_.counters) touch({steps_.counters->memory(), true});
  }

  bool has_graph() const { return graph_ != nullptr; }
  const Plan& plan() const { return plan_; }
  const CudaSteps& steps() const { return steps_; }
  cuda::Runtime& device() const { return device_; }
  /// What is told of an entry that may fail; null for others.
  const cuda::ErrorText& error_text(size_t entry) const { return errors_[entry]; }

 private:
  void launch(const CudaStep& step, const int64_t* sources) const;
  void run_steps(int64_t* sources, Location where, int* reached) const;

  const Plan& plan_;
  cuda::Runtime& device_;
  cuda::Block constants_;
  CudaSteps steps_;
  std::vector<cuda::ErrorText> errors_;  // one an entry
  bool may_fail_ = false;                // some entry may
  std::unique_ptr<CudaGraph> graph_;
};

}  // namespace tandem::jit
