// Attention that cuDNN does: which calls of a graph, how their operands may lie in memory, and their
// execution. Which library call a program makes is a function of its shapes and dtypes alone, the same eager
// and traced. Free functions and values; any thread.
#pragma once

#include <memory>
#include <span>

#include "tandem/jit/cudnn.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

/// `g` with those calls of attention marked, and no others, that cuDNN does on this device (OpDef::library):
/// on CUDA halves, widths that are multiples of 8 up to 256, kLeastScores scores a head at least, and a plan
/// of the library's for them.
Graph with_library_calls(const Graph& g, Device device);
/// What is less is left to our own kernels: a block of the library's would be mostly empty.
inline constexpr int64_t kLeastScores = 64 * 64;

/// Whether a marked call reads operand `i` where it lies: rows of width one after another, other strides that
/// are multiples of 16 bytes, and leading axes that are one.
bool library_reads(const Node& n, int i, const ops::Layout& layout);
/// Whether there are plans for all marked calls with their operands' strides.
bool library_takes(const Prepared& p, Device device);

/// A marked call of a plan. Operands are q, k, v, y and stats, then, in the gradient, that of y and those of
/// q, k and v.
struct AttentionCall {
  CudnnAttention shape;
  std::shared_ptr<const CudnnPlan> plan;
  NumberWord scale;
  std::vector<Address> operands;
  std::vector<int64_t> bytes;  // of each operand, from the first element to the last
  std::vector<int64_t>
      spares;  // where in the workspace it is copied to if it is not aligned; -1: it always is
  int64_t workspace_bytes = 0;

  static constexpr size_t kForward = 5, kBackward = 9;  // operands; what is computed: y and stats, the last 3
  bool computed(size_t i) const { return shape.backward ? i >= 6 : i >= 3; }
};
std::shared_ptr<const AttentionCall> attention_call(cuda::Runtime& device, const NativeCallPlan& call);

/// Queues it, or, on a stream that is captured, adds it to the graph. `memory`: the operands'. `scale`: the
/// bits of a double; not looked at if the call says that it is 1 / sqrt(E).
void run_attention(cuda::Runtime& device, const AttentionCall& call, std::span<const cuda::Pointer> memory,
                   int64_t scale, cuda::Pointer workspace, cuda::StreamHandle stream);

}  // namespace tandem::jit
