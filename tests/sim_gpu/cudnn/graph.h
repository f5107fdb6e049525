// Graphs of several operations as the simulated cuDNN takes them: attention, forward and backward, in the
// order in which Tandem describes it. They are run operation by operation, in plain loops; values between
// operations are rounded to their types. Plain data and functions without state; any thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/sim_gpu/cudnn/convolution.h"

namespace sim_gpu {

struct Operation {
  int kind = 0;      // cudnnBackendDescriptorType_t
  int mode = 0;      // of a pointwise operation or reduction
  int64_t axis = 0;  // of an index
  std::vector<Tensor> in;
  Tensor out;
};

struct GraphData {
  std::vector<Operation> operations;
  std::map<int64_t, void*> memory;   // by tensor
  std::map<int64_t, float> numbers;  // those by value
  bool spoiled = false;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;

  /// Of all operations that are no values between them, each once.
  std::vector<Tensor> tensors() const;
};

/// "" if one operation holds together; else why not.
std::string check_operation(const Operation& op);
/// "" if they are a graph of attention; else why not.
std::string check_attention(const std::vector<Operation>& all);

void run_graph(const GraphData& g);

}  // namespace sim_gpu
