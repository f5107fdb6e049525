// NeuMF: neural collaborative filtering ("Neural Collaborative Filtering", He et al., 2017): whether a user
// likes an item, from the product of two embeddings and a network over two others. Parameter names are
// PyTorch's of the layers. Ownership and threads as in eager/nn/module.h.
#pragma once

#include <tandem/tandem.h>

#include <vector>

namespace samples {

struct NeuMfConfig {
  int64_t users = 138493, items = 26744;                  // of MovieLens 20M
  int64_t mf_width = 64;                                  // of each embedding of the product
  std::vector<int64_t> mlp_widths = {256, 256, 128, 64};  // the first: both embeddings, half each
  double dropout = 0.5;                                   // after each layer of the network
};

struct NeuMf : tandem::nn::Module {
  /// Embeddings are drawn normally with deviation 0.01, the network's weights after Glorot, those of the last
  /// layer uniformly within sqrt(3 / inputs). An Error for sizes below 1, a first width that is odd, and
  /// fewer than two widths.
  explicit NeuMf(const NeuMfConfig& config = {}, tandem::Location where = tandem::Location::here());

  /// Users and items (B) int64 -> logits (B).
  tandem::Tensor forward(const tandem::Tensor& users, const tandem::Tensor& items) const;
  /// Mean binary cross-entropy against labels (B), 0 or 1, floating; a scalar.
  tandem::Tensor loss(const tandem::Tensor& users, const tandem::Tensor& items,
                      const tandem::Tensor& labels) const;

  const NeuMfConfig config;
  tandem::nn::Embedding mf_user_embed, mf_item_embed, mlp_user_embed, mlp_item_embed;
  tandem::nn::Dropout dropout;
  tandem::nn::ModuleList<tandem::nn::Linear> mlp;
  tandem::nn::Linear final;
};

}  // namespace samples
