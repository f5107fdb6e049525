// Public losses and normalisations. Names and defaults are PyTorch's; the reduction comes behind the
// operands. Included by functions.h. Stateless; any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// What becomes of a loss per element or row; batchmean divides the sum by the first axis and is kl_div's
/// alone.
enum class Reduction : uint8_t { none, mean, sum, batchmean };

/// Of logits (C), (N, C) or (N, C, d1, ...) and a target of one of two kinds: labels of that shape without C,
/// integers, of which those that are `ignore_index` count nothing; or probabilities of the classes, floating
/// and of the logits' shape, where an `ignore_index` of 0 or more is an Error. Without a reduction the result
/// has the labels' shape.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, Reduction reduction = Reduction::mean,
                     int64_t ignore_index = -100, Location where = Location::here());
struct CrossEntropyOptions {
  Tensor weight = {};  // (C), one per class
  Reduction reduction = Reduction::mean;
  int64_t ignore_index = -100;
  double label_smoothing = 0;  // in [0, 1]: how much of each target is spread over all classes
};
/// The mean of labels divides by the sum of their classes' weights, that of probabilities by their rows.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options,
                     Location where = Location::here());
/// Of log-probabilities (C), (N, C) or (N, C, d1, ...) and labels of that shape without C, weighted by
/// `weight` (C); the mean divides by the sum of the weights.
Tensor nll_loss(const Tensor& logp, const Tensor& labels, const Tensor& weight = {},
                Reduction reduction = Reduction::mean, int64_t ignore_index = -100,
                Location where = Location::here());
/// Losses of two floating tensors of one size.
Tensor mse_loss(const Tensor& a, const Tensor& b, Reduction reduction = Reduction::mean,
                Location where = Location::here());
Tensor l1_loss(const Tensor& a, const Tensor& b, Reduction reduction = Reduction::mean,
               Location where = Location::here());
/// Quadratic where |a - b| is below beta (0: l1_loss).
Tensor smooth_l1_loss(const Tensor& a, const Tensor& b, Reduction reduction = Reduction::mean,
                      double beta = 1, Location where = Location::here());
/// Quadratic where |a - b| is at most delta.
Tensor huber_loss(const Tensor& a, const Tensor& b, Reduction reduction = Reduction::mean, double delta = 1,
                  Location where = Location::here());
/// Of probabilities and targets in [0, 1]; each element times `weight`, if given.
Tensor binary_cross_entropy(const Tensor& p, const Tensor& target, const Tensor& weight = {},
                            Reduction reduction = Reduction::mean, Location where = Location::here());
/// Of logits and targets in [0, 1]; `pos_weight` weighs the cases of target 1.
Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& target, const Tensor& weight = {},
                                        Reduction reduction = Reduction::mean, const Tensor& pos_weight = {},
                                        Location where = Location::here());
/// Of log-probabilities and probabilities (log_target: their logarithms).
Tensor kl_div(const Tensor& logp, const Tensor& target, Reduction reduction = Reduction::mean,
              bool log_target = false, Location where = Location::here());
/// log(1 + exp(-target * a)), targets -1 and 1.
Tensor soft_margin_loss(const Tensor& a, const Tensor& target, Reduction reduction = Reduction::mean,
                        Location where = Location::here());
/// a where the target is 1, max(0, margin - a) where it is -1.
Tensor hinge_embedding_loss(const Tensor& a, const Tensor& target, double margin = 1,
                            Reduction reduction = Reduction::mean, Location where = Location::here());
/// max(0, -target * (a - b) + margin)
Tensor margin_ranking_loss(const Tensor& a, const Tensor& b, const Tensor& target, double margin = 0,
                           Reduction reduction = Reduction::mean, Location where = Location::here());
Tensor cosine_similarity(const Tensor& a, const Tensor& b, int64_t axis = 1, double eps = 1e-8,
                         Location where = Location::here());
/// Of rows (N, D), or one (D): 1 - cosine where the target, (N) or (), is 1, max(0, cosine - margin) where
/// -1.
Tensor cosine_embedding_loss(const Tensor& a, const Tensor& b, const Tensor& target, double margin = 0,
                             Reduction reduction = Reduction::mean, Location where = Location::here());
/// The p-norms of a - b + eps along the last axis.
Tensor pairwise_distance(const Tensor& a, const Tensor& b, double p = 2, double eps = 1e-6,
                         bool keepdim = false, Location where = Location::here());
/// max(0, |anchor - positive| - |anchor - negative| + margin) of rows (..., D), distances by the p-norm of a
/// - b + eps.
Tensor triplet_margin_loss(const Tensor& anchor, const Tensor& positive, const Tensor& negative,
                           double margin = 1, double p = 2, double eps = 1e-6,
                           Reduction reduction = Reduction::mean, Location where = Location::here());
/// exp(a) - target * a, or with log_input off a - target * log(a + eps): the negative log-likelihood of
/// counts but for a constant, which `full` adds by Stirling's formula for targets above 1.
Tensor poisson_nll_loss(const Tensor& a, const Tensor& target, bool log_input = true, bool full = false,
                        double eps = 1e-8, Reduction reduction = Reduction::mean,
                        Location where = Location::here());
/// (log(var) + (a - target)^2 / var) / 2, and log(2 pi) / 2 with `full`; var, taken as at least eps, has a's
/// sizes, or 1 as the last one or lacks it.
Tensor gaussian_nll_loss(const Tensor& a, const Tensor& target, const Tensor& var, bool full = false,
                         double eps = 1e-6, Reduction reduction = Reduction::mean,
                         Location where = Location::here());
/// Of scores (N, C) or (C) and labels (N) or (): the mean over the classes of max(0, margin - a[label] +
/// a[i]) to the power p (1 or 2), without the label's own, times weight[label] of `weight` (C).
Tensor multi_margin_loss(const Tensor& a, const Tensor& labels, int64_t p = 1, double margin = 1,
                         const Tensor& weight = {}, Reduction reduction = Reduction::mean,
                         Location where = Location::here());
/// The mean over the classes, (..., C), of binary_cross_entropy_with_logits, each times `weight` (C).
Tensor multilabel_soft_margin_loss(const Tensor& a, const Tensor& target, const Tensor& weight = {},
                                   Reduction reduction = Reduction::mean, Location where = Location::here());

/// A sample of the classes along an axis, softened (Jang et al., 2017): softmax((logits + g) / tau) with g
/// drawn from Gumbel's distribution; `hard`: one-hot, with the gradient of the soft one.
Tensor gumbel_softmax(const Tensor& logits, double tau = 1, bool hard = false, int64_t axis = -1,
                      Generator* generator = nullptr, Location where = Location::here());

/// Over the last `normalized_rank` axes; weight and bias of those sizes, or undefined.
Tensor layer_norm(const Tensor& x, int normalized_rank, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5, Location where = Location::here());
/// x / sqrt(mean(x^2) + eps) over the last `normalized_rank` axes, times weight; eps, unless said, is from 1
/// to the next number of float64, or float32 for all other types.
Tensor rms_norm(const Tensor& x, int normalized_rank, const Tensor& weight = {},
                std::optional<double> eps = {}, Location where = Location::here());
/// Of x (N, C, ...), over each of `groups` groups of channels; weight and bias (C), or undefined.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5, Location where = Location::here());
/// x over its p-norm along an axis, which counts as eps if it is less.
Tensor normalize(const Tensor& x, double p = 2, int64_t axis = 1, double eps = 1e-12,
                 Location where = Location::here());

}  // namespace tandem
