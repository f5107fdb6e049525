#include "tandem/eager/nn/normalisation.h"

#include <limits>

#include "tandem/eager/checkpoint.h"
#include "tandem/eager/nn/layers.h"

namespace tandem::nn {

namespace {

TensorOptions untracked(TensorOptions options) {
  options.requires_grad = false;
  return options;
}

TensorOptions counting(TensorOptions options) {
  options.dtype = int64;
  return untracked(options);
}

}  // namespace

RunningNorm::RunningNorm(const char* name, int64_t num_features, double eps, std::optional<double> momentum,
                         bool affine, bool track_running_stats, TensorOptions options, Location where)
    : num_features(num_features),
      eps(eps),
      momentum(momentum),
      weight(affine ? parameter("weight", ones({num_features}, untracked(options), made_at(where)),
                                made_at(where))
                    : Tensor()),
      bias(affine
               ? parameter("bias", zeros({num_features}, untracked(options), made_at(where)), made_at(where))
               : Tensor()),
      running_mean(track_running_stats
                       ? buffer("running_mean", zeros({num_features}, untracked(options), made_at(where)),
                                true, made_at(where))
                       : Tensor()),
      running_var(track_running_stats
                      ? buffer("running_var", ones({num_features}, untracked(options), made_at(where)), true,
                               made_at(where))
                      : Tensor()),
      num_batches_tracked(track_running_stats
                              ? buffer("num_batches_tracked", zeros({}, counting(options), made_at(where)),
                                       true, made_at(where))
                              : Tensor()) {
  if (!(eps >= 0))
    fail(std::string(name) + ": eps must not be negative, found " + std::to_string(eps), made_at(where));
}

void RunningNorm::check_rank(const Tensor& x, int rank, int other, int unbatched, const char* name,
                             Location where) const {
  const int found = x.dim(where);
  if (found != rank && found != other)
    fail(std::string(name) + ": x must have " + std::to_string(std::min(rank, other)) +
             (rank == other ? "" : " or " + std::to_string(std::max(rank, other))) + " axes, found shape " +
             to_string(x.sizes()),
         where);
  if (x.size(found == unbatched ? 0 : 1) != num_features)
    fail(std::string(name) + ": made for " + std::to_string(num_features) + " channels, found shape " +
             to_string(x.sizes()),
         where);
}

Tensor BatchNorm::normalised(const Tensor& x, Location where) const {
  const bool tracked = running_mean.defined();
  if (!is_training() || !tracked)
    return batch_norm(x, running_mean, running_var, weight, bias, !tracked, Operand(0.0, where), eps, where);
  Operand share(momentum.value_or(0), where);
  Tensor of_all;  // without a momentum: 1 / number of batches
  if (!momentum) {
    const DType type = running_mean.dtype() == float64 ? float64 : float32;
    of_all = num_batches_tracked.add(Operand(1, where)).to(type, where).reciprocal(where);
    share = Operand(of_all, where);
  }
  const Tensor y = batch_norm(x, running_mean, running_var, weight, bias, true, share, eps, where);
  if (!autograd::recomputing()) num_batches_tracked.add_(Operand(1, where));
  return y;
}

Tensor InstanceNorm::normalised(const Tensor& x, int rank, Location where) const {
  if (x.dim(where) < rank) return normalised(x.unsqueeze(0, where), rank, where).squeeze(0, where);
  const bool own = is_training() || !running_mean.defined();
  return instance_norm(x, running_mean, running_var, weight, bias, own, Operand(momentum.value_or(0), where),
                       eps, where);
}

GroupNorm::GroupNorm(int64_t num_groups, int64_t num_channels, double eps, bool affine, TensorOptions options,
                     Location where)
    : num_groups(num_groups),
      num_channels(num_channels),
      eps(eps),
      weight(affine ? parameter("weight", ones({num_channels}, untracked(options), made_at(where)),
                                made_at(where))
                    : Tensor()),
      bias(affine
               ? parameter("bias", zeros({num_channels}, untracked(options), made_at(where)), made_at(where))
               : Tensor()) {
  if (num_groups < 1 || num_channels % num_groups != 0)
    fail("GroupNorm: " + std::to_string(num_groups) + " groups do not divide " +
             std::to_string(num_channels) + " channels",
         made_at(where));
}

RMSNorm::RMSNorm(const Dims& normalized_shape, std::optional<double> eps, bool elementwise_affine,
                 TensorOptions options, Location where)
    : normalized_shape(normalized_shape),
      eps(eps),
      weight(elementwise_affine
                 ? parameter("weight", ones(normalized_shape, untracked(options), made_at(where)),
                             made_at(where))
                 : Tensor()) {
  if (normalized_shape.empty())
    fail("RMSNorm: at least one axis to normalise over is needed", made_at(where));
}

Tensor RMSNorm::forward(const Tensor& x, Location where) const {
  check_last_axes("RMSNorm", x, normalized_shape, where);
  return rms_norm(x, normalized_shape.rank(), weight, eps, where);
}

}  // namespace tandem::nn
