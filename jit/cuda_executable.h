// A plan on a CUDA device: its entries as launches, in order, on the device's stream; for a traced segment as
// one CUDA graph. Everything is compiled and loaded when it is made; any thread, one run at a time where
// there is a graph.
#pragma once

#include <memory>
#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

class CudaGraph;

class CudaExecutable {
 public:
  /// `plan` outlives this. `graph`: runs are launches of one CUDA graph.
  CudaExecutable(const Plan& plan, Device device, bool graph);
  ~CudaExecutable();
  CudaExecutable(const CudaExecutable&) = delete;
  CudaExecutable& operator=(const CudaExecutable&) = delete;

  /// Arguments as Executable::run's, addresses on the device. Queues the work and returns; an index out of
  /// range is told at the next synchronisation. `entries`: how many of the plan's, from the first.
  void run(void* const* inputs, const int64_t* numbers, void* const* outputs, size_t entries) const;

  /// Where a run's values lie.
  struct Addresses {
    cuda::Pointer arena;
    void* const* inputs;
    void* const* outputs;
    cuda::Pointer constants, workspace;
    cuda::Pointer at(const Address& a) const;
  };
  /// One kernel's launch, of one or several calls.
  struct Launch {
    cuda::Function function;
    LaunchShape shape;
    int64_t* words;
    int n_words;
  };
  /// Calls `f(Launch)` for each launch of a kernel entry.
  template <class F>
  void for_launches(const Entry& e, const Addresses& memory, const int64_t* numbers, F&& f) const;
  /// Queues a product or native entry on `stream`. `error`: of natives that may fail.
  void run_library(const Entry& e, const Addresses& memory, cuda::Pointer error, cuda::Stream stream) const;
  /// The addresses that such an entry works on.
  std::vector<cuda::Pointer> addresses_of(const Entry& e, const Addresses& memory) const;
  /// The error word of an entry that may fail; 0 for others.
  cuda::Pointer error_word(const Entry& e) const;

  const Plan& plan() const { return plan_; }
  cuda::Runtime& device() const { return device_; }

 private:
  void run_entries(const Addresses& memory, const int64_t* numbers, size_t entries) const;

  const Plan& plan_;
  cuda::Runtime& device_;
  std::vector<cuda::Function> functions_;  // of Plan::entries that are kernels
  std::vector<cuda::Function> splits_;     // of those with calls whose rows are split
  cuda::Block counters_, parts_;           // for those, which run one after another
  cuda::Block constants_;
  int64_t workspace_bytes_ = 0;
  std::unique_ptr<CudaGraph> graph_;
};

}  // namespace tandem::jit

#include "tandem/jit/cuda_executable.inc"
