// MultiheadAttention, with PyTorch's parameter names, initialisation and meaning of masks (true: not seen,
// the opposite of scaled_dot_product_attention). Ownership and threads as in module.h.
#pragma once

#include "tandem/eager/nn/layers.h"

namespace tandem::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  // of the attention weights, while training
  bool bias = true;
  int64_t kdim = 0, vdim = 0;  // widths of key and value; 0: embed_dim
  bool batch_first = false;
  bool add_bias_kv = false;    // a learnt key and value behind the others, which every query sees
  bool add_zero_attn = false;  // another one of zeros, behind that
};

/// What forward takes beside query, key and value.
struct AttentionMasks {
  Tensor key_padding_mask = {};  // (N, S), or (S): bool, true where a key is not seen, or floating, added
  bool need_weights = true;
  Tensor attn_mask = {};  // (L, S) or (N * num_heads, L, S), likewise
  bool average_attn_weights = true;
  bool is_causal = false;  // position i sees keys 0 to i, whether or not a mask says so as well
};

struct AttentionOutput {
  Tensor output;   // as the query, of width embed_dim
  Tensor weights;  // before dropout: (N, L, S and what was added), one more axis of heads before L unless
                   // averaged; undefined unless asked for
};

/// Attention in `num_heads` heads of projections of query (L, N, E), key (S, N, kdim) and value (S, N, vdim),
/// or (N, L, E), ... with batch_first, or without N. Parameters: in_proj_weight (3E, E), or q_proj_weight,
/// k_proj_weight and v_proj_weight where the widths differ; in_proj_bias (3E); bias_k and bias_v (1, 1, E)
/// with add_bias_kv; out_proj.
class MultiheadAttention : public Module {
 public:
  MultiheadAttention(int64_t embed_dim, int64_t num_heads, MultiheadAttentionOptions options = {},
                     TensorOptions tensors = {}, Location where = Location::here());
  AttentionOutput forward(const Tensor& query, const Tensor& key, const Tensor& value,
                          const AttentionMasks& masks = {}, Location where = Location::here()) const;
  AttentionOutput operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                             const AttentionMasks& masks = {}, Location where = Location::here()) const {
    return forward(query, key, value, masks, where);
  }

  const int64_t embed_dim, num_heads;
  const MultiheadAttentionOptions options;
  // Undefined: none.
  const Tensor in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, bias_k, bias_v;
  Linear out_proj;

 private:
  std::vector<Tensor> projected(const Tensor& query, const Tensor& key, const Tensor& value,
                                Location where) const;
};

}  // namespace tandem::nn
