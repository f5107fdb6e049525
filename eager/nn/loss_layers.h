// Losses as layers, with PyTorch's names, arguments and defaults: called with an input and a target. Weights
// are buffers, saved under PyTorch's names. What they compute: eager/losses.h. Ownership and threads as in
// module.h.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

#define TANDEM_PAIR(first, second, ...)                                                                   \
  Tensor forward(const Tensor& first, const Tensor& second, Location where = Location::here()) const {    \
    return __VA_ARGS__;                                                                                   \
  }                                                                                                       \
  Tensor operator()(const Tensor& first, const Tensor& second, Location where = Location::here()) const { \
    return forward(first, second, where);                                                                 \
  }
#define TANDEM_TRIPLE(first, second, third, ...)                                    \
  Tensor forward(const Tensor& first, const Tensor& second, const Tensor& third,    \
                 Location where = Location::here()) const {                         \
    return __VA_ARGS__;                                                             \
  }                                                                                 \
  Tensor operator()(const Tensor& first, const Tensor& second, const Tensor& third, \
                    Location where = Location::here()) const {                      \
    return forward(first, second, third, where);                                    \
  }

#define TANDEM_LOSS(Name, function)                                                \
  class Name : public Module {                                                     \
   public:                                                                         \
    explicit Name(Reduction reduction = Reduction::mean) : reduction(reduction) {} \
    TANDEM_PAIR(input, target, function(input, target, reduction, where))          \
                                                                                   \
    const Reduction reduction;                                                     \
  };
TANDEM_LOSS(MSELoss, mse_loss)
TANDEM_LOSS(L1Loss, l1_loss)
TANDEM_LOSS(SoftMarginLoss, soft_margin_loss)
#undef TANDEM_LOSS

class SmoothL1Loss : public Module {
 public:
  explicit SmoothL1Loss(Reduction reduction = Reduction::mean, double beta = 1)
      : reduction(reduction), beta(beta) {}
  TANDEM_PAIR(input, target, smooth_l1_loss(input, target, reduction, beta, where))

  const Reduction reduction;
  const double beta;
};

class HuberLoss : public Module {
 public:
  explicit HuberLoss(Reduction reduction = Reduction::mean, double delta = 1)
      : reduction(reduction), delta(delta) {}
  TANDEM_PAIR(input, target, huber_loss(input, target, reduction, delta, where))

  const Reduction reduction;
  const double delta;
};

class KLDivLoss : public Module {
 public:
  explicit KLDivLoss(Reduction reduction = Reduction::mean, bool log_target = false)
      : reduction(reduction), log_target(log_target) {}
  TANDEM_PAIR(input, target, kl_div(input, target, reduction, log_target, where))

  const Reduction reduction;
  const bool log_target;
};

class HingeEmbeddingLoss : public Module {
 public:
  explicit HingeEmbeddingLoss(double margin = 1, Reduction reduction = Reduction::mean)
      : margin(margin), reduction(reduction) {}
  TANDEM_PAIR(input, target, hinge_embedding_loss(input, target, margin, reduction, where))

  const double margin;
  const Reduction reduction;
};

class MarginRankingLoss : public Module {
 public:
  explicit MarginRankingLoss(double margin = 0, Reduction reduction = Reduction::mean)
      : margin(margin), reduction(reduction) {}
  TANDEM_TRIPLE(input1, input2, target, margin_ranking_loss(input1, input2, target, margin, reduction, where))

  const double margin;
  const Reduction reduction;
};

class CosineEmbeddingLoss : public Module {
 public:
  explicit CosineEmbeddingLoss(double margin = 0, Reduction reduction = Reduction::mean)
      : margin(margin), reduction(reduction) {}
  TANDEM_TRIPLE(input1, input2, target,
                cosine_embedding_loss(input1, input2, target, margin, reduction, where))

  const double margin;
  const Reduction reduction;
};

class PairwiseDistance : public Module {
 public:
  explicit PairwiseDistance(double p = 2, double eps = 1e-6, bool keepdim = false)
      : p(p), eps(eps), keepdim(keepdim) {}
  TANDEM_PAIR(x1, x2, pairwise_distance(x1, x2, p, eps, keepdim, where))

  const double p, eps;
  const bool keepdim;
};

class PoissonNLLLoss : public Module {
 public:
  explicit PoissonNLLLoss(bool log_input = true, bool full = false, double eps = 1e-8,
                          Reduction reduction = Reduction::mean)
      : log_input(log_input), full(full), eps(eps), reduction(reduction) {}
  TANDEM_PAIR(input, target, poisson_nll_loss(input, target, log_input, full, eps, reduction, where))

  const bool log_input, full;
  const double eps;
  const Reduction reduction;
};

class GaussianNLLLoss : public Module {
 public:
  explicit GaussianNLLLoss(bool full = false, double eps = 1e-6, Reduction reduction = Reduction::mean)
      : full(full), eps(eps), reduction(reduction) {}
  TANDEM_TRIPLE(input, target, var, gaussian_nll_loss(input, target, var, full, eps, reduction, where))

  const bool full;
  const double eps;
  const Reduction reduction;
};

class TripletMarginLoss : public Module {
 public:
  explicit TripletMarginLoss(double margin = 1, double p = 2, double eps = 1e-6,
                             Reduction reduction = Reduction::mean)
      : margin(margin), p(p), eps(eps), reduction(reduction) {}
  TANDEM_TRIPLE(anchor, positive, negative,
                triplet_margin_loss(anchor, positive, negative, margin, p, eps, reduction, where))

  const double margin, p, eps;
  const Reduction reduction;
};

/// Of logits (N, C, ...) and labels (N, ...) or probabilities (N, C, ...).
class CrossEntropyLoss : public Module {
 public:
  explicit CrossEntropyLoss(const CrossEntropyOptions& options = {}, Location where = Location::here());
  TANDEM_PAIR(input, target, cross_entropy(input, target, options, where))

  const CrossEntropyOptions options;
};

/// Of log-probabilities (N, C, ...) and labels (N, ...).
class NLLLoss : public Module {
 public:
  explicit NLLLoss(const Tensor& weight = {}, int64_t ignore_index = -100,
                   Reduction reduction = Reduction::mean, Location where = Location::here());
  TANDEM_PAIR(input, target, nll_loss(input, target, weight, reduction, ignore_index, where))

  const Tensor weight;  // (C), or undefined
  const int64_t ignore_index;
  const Reduction reduction;
};

/// Of probabilities.
class BCELoss : public Module {
 public:
  explicit BCELoss(const Tensor& weight = {}, Reduction reduction = Reduction::mean,
                   Location where = Location::here());
  TANDEM_PAIR(input, target, binary_cross_entropy(input, target, weight, reduction, where))

  const Tensor weight;
  const Reduction reduction;
};

/// Of logits.
class BCEWithLogitsLoss : public Module {
 public:
  explicit BCEWithLogitsLoss(const Tensor& weight = {}, Reduction reduction = Reduction::mean,
                             const Tensor& pos_weight = {}, Location where = Location::here());
  TANDEM_PAIR(input, target,
              binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight, where))

  const Tensor weight;
  const Reduction reduction;
  const Tensor pos_weight;
};

class MultiMarginLoss : public Module {
 public:
  explicit MultiMarginLoss(int64_t p = 1, double margin = 1, const Tensor& weight = {},
                           Reduction reduction = Reduction::mean, Location where = Location::here());
  TANDEM_PAIR(input, target, multi_margin_loss(input, target, p, margin, weight, reduction, where))

  const int64_t p;
  const double margin;
  const Tensor weight;
  const Reduction reduction;
};

/// Of logits.
class MultiLabelSoftMarginLoss : public Module {
 public:
  explicit MultiLabelSoftMarginLoss(const Tensor& weight = {}, Reduction reduction = Reduction::mean,
                                    Location where = Location::here());
  TANDEM_PAIR(input, target, multilabel_soft_margin_loss(input, target, weight, reduction, where))

  const Tensor weight;
  const Reduction reduction;
};

class CosineSimilarity : public Module {
 public:
  explicit CosineSimilarity(int64_t dim = 1, double eps = 1e-8) : dim(dim), eps(eps) {}
  TANDEM_PAIR(x1, x2, cosine_similarity(x1, x2, dim, eps, where))

  const int64_t dim;
  const double eps;
};

#undef TANDEM_PAIR
#undef TANDEM_TRIPLE

}  // namespace tandem::nn
