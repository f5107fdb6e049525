// A plan as launches on a CUDA device, with all that does not change from run to run computed once:
// functions, launch shapes, words. What a run brings (addresses, numbers) are *sources*; each launch lists
// the words that come from them. Immutable once made, any thread.
#pragma once

#include <memory>
#include <vector>

#include "tandem/jit/cuda_product.h"
#include "tandem/jit/graph.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

/// `offset` from source `source`; the value `offset` itself if there is none.
struct CudaValue {
  int32_t source = -1;
  int64_t offset = 0;
  int64_t in(const int64_t* sources) const { return source < 0 ? offset : sources[source] + offset; }
};

/// A word of a launch that comes from a source.
struct CudaPatch {
  int32_t word = 0;  // of the launch
  CudaValue value;
};

struct AttentionCall;
struct CudnnConvolution;

/// One launch: a kernel's, or what a library queues for a product, a convolution or attention.
struct CudaStep {
  int32_t entry = 0;                  // of the plan
  cuda::Function function = nullptr;  // null: a product
  LaunchShape shape;
  int32_t first_word = 0, n_words = 0, first_patch = 0, n_patches = 0;
  int32_t product = -1;  // index into `products`
};

struct CudaProductStep {
  const ProductCallPlan* call = nullptr;
  const LibraryProduct* library = nullptr;
  // Instead of them: a, b and c are its x, w and y, or the operands are `values`, with the scale behind them.
  std::shared_ptr<const CudnnConvolution> convolution = {};
  std::shared_ptr<const AttentionCall> attention = {};
  CudaValue a, b, bias, c, workspace;
  std::vector<CudaValue> values = {};

  /// Of all that comes from a source.
  template <class F>
  void for_values(F&& f) const {
    for (const CudaValue& v : {a, b, bias, c, workspace}) f(v);
    for (const CudaValue& v : values) f(v);
  }
};

/// Memory that comes from a source: a tensor of the graph's.
struct CudaOperand {
  DType dtype = DType::float32;
  int64_t elements = 0;      // from the first to the last
  bool written = false;      // an input that the plan writes
  bool in_products = false;  // a library works on it
};

struct CudaSteps {
  static constexpr int32_t kArena = 0, kError = 1, kFirst = 2;  // sources; then inputs, outputs, numbers

  std::vector<CudaStep> steps;
  std::vector<int64_t> words;
  std::vector<CudaPatch> patches;
  std::vector<CudaProductStep> products;
  std::vector<CudaOperand> operands;      // inputs, then outputs
  std::unique_ptr<cuda::Block> counters;  // of kernels whose rows are split: 0 between launches
  int32_t n_inputs = 0, n_outputs = 0, n_numbers = 0;
  int64_t arena_bytes = 0;  // with the workspace of products and split rows behind the plan's own
  int32_t launches = 0;     // of a run: products of several parts count each

  int32_t n_sources() const { return kFirst + n_inputs + n_outputs + n_numbers; }
};

/// Compiles, loads and prepares everything. `plan` outlives the result. `constants`: where Plan::constants
/// lie.
CudaSteps cuda_steps(cuda::Runtime& device, const Graph& graph, const Plan& plan, cuda::Pointer constants);

}  // namespace tandem::jit
