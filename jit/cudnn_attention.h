// Attention as graphs of cuDNN's, forward and backward: products, softmax and their gradients, which the
// library does in one pass over blocks of the scores. Plain data and functions without state; any thread.
#pragma once

#include "tandem/jit/cudnn_plan.h"

namespace tandem::jit {

/// y (B, Hq, L, Ev) = softmax(scale q k^T) v of q (B, Hq, L, E), k (B, Hk, S, E), v (B, Hk, S, Ev), and stats
/// (B, Hq, L, 1), in float32: each row's maximum and the logarithm of its sum, which is what the gradients
/// read instead of the softmax. `scale` is brought by each run. Heads of k and v serve Hq / Hk of q. What is
/// computed is contiguous, stats and y in the gradient too.
struct CudnnAttention {
  DType dtype = DType::float16;  // of all but stats
  bool backward = false;         // dq, dk, dv of q, k, v, y, stats and the gradient of y
  bool causal = false;           // row i sees columns 0 to i
  int64_t batch = 0, heads = 0, shared = 0, rows = 0, columns = 0, width = 0, out_width = 0;
  Dims q_strides, k_strides, v_strides, grad_strides;  // in elements, one an axis; the last is 1

  Dims q() const { return {batch, heads, rows, width}; }
  Dims k() const { return {batch, shared, columns, width}; }
  Dims v() const { return {batch, shared, columns, out_width}; }
  Dims y() const { return {batch, heads, rows, out_width}; }
  Dims stats() const { return {batch, heads, rows, 1}; }

  /// The tensors of the graph.
  static constexpr CudnnGraph::Tensor kQ = 1, kK = 2, kV = 3, kScale = 4, kY = 5, kStats = 6;
  static constexpr CudnnGraph::Tensor kGrad = 7, kDq = 8, kDk = 9, kDv = 10;  // backward alone
  static constexpr CudnnGraph::Tensor kLowest = 7, kLowestBackward = 11;      // causal: -infinity
  static constexpr CudnnGraph::Tensor kOne = 12, kRowSums = 13;
  friend bool operator==(const CudnnAttention&, const CudnnAttention&) = default;
};

/// Bytes that every address is a multiple of.
inline constexpr int64_t kAttentionAlignment = 16;

/// "backward float16 (8, 16 of 2, 512 x 1024, 64) causal", for logs.
std::string to_string(const CudnnAttention& shape);

CudnnGraph attention_graph(const cuda::Cudnn& api, const CudnnAttention& shape);
/// Which engines are taken: also those that are compiled first, and those whose workspace is not more than
/// the scores in float32 would be.
CudnnTerms attention_terms(const CudnnAttention& shape);

}  // namespace tandem::jit
