#include "tandem/eager/nn/layers.h"

#include <cmath>

#include "tandem/eager/nn/init.h"

namespace tandem::nn {

namespace {

TensorOptions untracked(TensorOptions options) {
  options.requires_grad = false;
  return options;
}

Tensor initial_weight(const Dims& sizes, const TensorOptions& options, Location where) {
  Tensor w = empty(sizes, untracked(options), where);
  init::kaiming_uniform_(w, std::sqrt(5.0), init::Fan::in, nullptr, where);
  return w;
}

Tensor initial_bias(int64_t in_features, int64_t out_features, const TensorOptions& options, Location where) {
  Tensor b = empty({out_features}, untracked(options), where);
  const double bound = in_features > 0 ? 1 / std::sqrt(static_cast<double>(in_features)) : 0;
  init::uniform_(b, -bound, bound, nullptr, where);
  return b;
}

Tensor initial_normal(const Dims& sizes, const TensorOptions& options, Location where) {
  Tensor w = empty(sizes, untracked(options), where);
  init::normal_(w, 0, 1, nullptr, where);
  return w;
}

}  // namespace

Linear::Linear(int64_t in_features, int64_t out_features, bool with_bias, TensorOptions options,
               Location where)
    : weight(parameter("weight", initial_weight({out_features, in_features}, options, made_at(where)),
                       made_at(where))),
      bias(with_bias ? parameter("bias", initial_bias(in_features, out_features, options, made_at(where)),
                                 made_at(where))
                     : Tensor()) {}

Embedding::Embedding(int64_t num_embeddings, int64_t embedding_dim, std::optional<int64_t> padding_idx,
                     std::optional<double> max_norm, double norm_type, TensorOptions options, Location where)
    : padding_idx(padding_idx),
      max_norm(max_norm),
      norm_type(norm_type),
      weight(parameter("weight", initial_normal({num_embeddings, embedding_dim}, options, made_at(where)),
                       made_at(where))) {
  if (!padding_idx) return;
  if (*padding_idx < -num_embeddings || *padding_idx >= num_embeddings)
    fail("Embedding: padding_idx " + std::to_string(*padding_idx) + " is no row of " +
             std::to_string(num_embeddings),
         made_at(where));
  const NoGrad no_grad;
  weight.select(0, *padding_idx, made_at(where)).zero_(made_at(where));
}

LayerNorm::LayerNorm(const Dims& normalized_shape, double eps, bool elementwise_affine, bool with_bias,
                     TensorOptions options, Location where)
    : normalized_shape(normalized_shape),
      eps(eps),
      weight(elementwise_affine
                 ? parameter("weight", ones(normalized_shape, untracked(options), made_at(where)),
                             made_at(where))
                 : Tensor()),
      bias(
          elementwise_affine && with_bias
              ? parameter("bias", zeros(normalized_shape, untracked(options), made_at(where)), made_at(where))
              : Tensor()) {
  if (normalized_shape.empty())
    fail("LayerNorm: at least one axis to normalise over is needed", made_at(where));
}

void check_last_axes(const char* layer, const Tensor& x, const Dims& expected, Location where) {
  const Dims& d = x.sizes(where);
  const int rank = expected.rank();
  bool fits = d.rank() >= rank;
  for (int i = 0; fits && i < rank; ++i) fits = d[d.rank() - rank + i] == expected[i];
  if (!fits)
    fail(std::string(layer) + ": the last axes must have sizes " + to_string(expected) + ", found shape " +
             to_string(d),
         where);
}

Tensor LayerNorm::forward(const Tensor& x, Location where) const {
  check_last_axes("LayerNorm", x, normalized_shape, where);
  return layer_norm(x, normalized_shape.rank(), weight, bias, eps, where);
}

Dropout::Dropout(double p, Location where) : p(p) {
  if (!(p >= 0 && p <= 1)) fail("Dropout: p must lie in [0, 1], found " + std::to_string(p), made_at(where));
}

}  // namespace tandem::nn
