// Layers: Linear, Embedding, LayerNorm and Dropout (others stand in files beside it), with PyTorch's argument
// order, defaults, parameter names and initialisation. Each is called like a function or through forward().
// Ownership and threads as in module.h.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

/// x (..., in) -> (..., out): x times weight (out, in) transposed, plus bias (out). Both are drawn uniformly
/// within 1 / sqrt(in).
class Linear : public Module {
 public:
  Linear(int64_t in_features, int64_t out_features, bool with_bias = true, TensorOptions options = {},
         Location where = Location::here());
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    return linear(x, weight, bias, where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const Tensor weight, bias;  // bias undefined: none
};

/// Rows of weight (num_embeddings, embedding_dim), drawn normally, at indices of any shape. The row
/// `padding_idx` starts as zeros and gets no gradient; negative positions count from the end.
class Embedding : public Module {
 public:
  Embedding(int64_t num_embeddings, int64_t embedding_dim, std::optional<int64_t> padding_idx = {},
            std::optional<double> max_norm = {}, double norm_type = 2, TensorOptions options = {},
            Location where = Location::here());
  Tensor forward(const Tensor& index, Location where = Location::here()) const {
    if (max_norm) embedding_renorm_(weight, index, *max_norm, norm_type, where);
    return embedding(index, weight, padding_idx, where);
  }
  Tensor operator()(const Tensor& index, Location where = Location::here()) const {
    return forward(index, where);
  }

  const std::optional<int64_t> padding_idx;
  const std::optional<double> max_norm;
  const double norm_type;
  const Tensor weight;
};

/// Refuses x unless its last axes have the sizes that a layer was made for.
void check_last_axes(const char* layer, const Tensor& x, const Dims& expected, Location where);

/// Normalises over the last axes, which have sizes `normalized_shape`; weight starts as ones and bias as
/// zeros.
class LayerNorm : public Module {
 public:
  explicit LayerNorm(const Dims& normalized_shape, double eps = 1e-5, bool elementwise_affine = true,
                     bool with_bias = true, TensorOptions options = {}, Location where = Location::here());
  Tensor forward(const Tensor& x, Location where = Location::here()) const;
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const Dims normalized_shape;
  const double eps;
  const Tensor weight, bias;  // undefined: none
};

/// Zeroes elements with probability p while training and scales the others by 1 / (1 - p).
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5, Location where = Location::here());
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    return dropout(x, p, is_training(), where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const double p;
};

}  // namespace tandem::nn
