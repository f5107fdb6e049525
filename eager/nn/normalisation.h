// Normalising layers, with PyTorch's names, arguments, defaults, parameter and buffer names and initial
// values: weight is ones, bias zeros, running_mean zeros, running_var ones, num_batches_tracked 0 (int64).
// Ownership and threads as in module.h; a forward in training changes the buffers in place.
#pragma once

#include "tandem/eager/nn/module.h"

namespace tandem::nn {

#include "tandem/eager/nn/layer.inc"

/// What batch and instance norm have in common. Without a momentum running statistics are the means over all
/// batches (batch norm), or stay (instance norm, as in PyTorch).
class RunningNorm : public Module {
 public:
  const int64_t num_features;
  const double eps;
  const std::optional<double> momentum;
  const Tensor weight, bias;                                    // (C); undefined unless affine
  const Tensor running_mean, running_var, num_batches_tracked;  // undefined unless tracked

 protected:
  RunningNorm(const char* name, int64_t num_features, double eps, std::optional<double> momentum, bool affine,
              bool track_running_stats, TensorOptions options, Location where);
  /// Refuses x unless its rank is one of the two and its channels, the first axis where it has rank
  /// `unbatched`, fit.
  void check_rank(const Tensor& x, int rank, int other, int unbatched, const char* name,
                  Location where) const;
};

/// Statistics over the batch while training, the running ones in evaluation. Of x (N, C, ...).
class BatchNorm : public RunningNorm {
 protected:
  using RunningNorm::RunningNorm;
  Tensor normalised(const Tensor& x, Location where) const;
};
/// With so many spatial axes; with one or none where that is 1.
template <int kAxes>
class BatchNormOver : public BatchNorm {
 public:
  explicit BatchNormOver(int64_t num_features, double eps = 1e-5, std::optional<double> momentum = 0.1,
                         bool affine = true, bool track_running_stats = true, TensorOptions options = {},
                         Location where = Location::here())
      : BatchNorm(kName, num_features, eps, momentum, affine, track_running_stats, options, where) {}
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    check_rank(x, kAxes == 1 ? 2 : kAxes + 2, kAxes + 2, 0, kName, where);
    return normalised(x, where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

 private:
  static constexpr const char* kName = kAxes == 1   ? "BatchNorm1d"
                                       : kAxes == 2 ? "BatchNorm2d"
                                                    : "BatchNorm3d";
};
using BatchNorm1d = BatchNormOver<1>;
using BatchNorm2d = BatchNormOver<2>;
using BatchNorm3d = BatchNormOver<3>;

/// Statistics of each channel of each example; running ones, if tracked, are used in evaluation. Neither
/// affine nor tracked unless said.
class InstanceNorm : public RunningNorm {
 protected:
  using RunningNorm::RunningNorm;
  Tensor normalised(const Tensor& x, int rank, Location where) const;
};
/// Of x (N, C, ...) or (C, ...) with so many spatial axes.
template <int kAxes>
class InstanceNormOver : public InstanceNorm {
 public:
  explicit InstanceNormOver(int64_t num_features, double eps = 1e-5, std::optional<double> momentum = 0.1,
                            bool affine = false, bool track_running_stats = false, TensorOptions options = {},
                            Location where = Location::here())
      : InstanceNorm(kName, num_features, eps, momentum, affine, track_running_stats, options, where) {}
  Tensor forward(const Tensor& x, Location where = Location::here()) const {
    check_rank(x, kAxes + 2, kAxes + 1, kAxes + 1, kName, where);
    return normalised(x, kAxes + 2, where);
  }
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

 private:
  static constexpr const char* kName = kAxes == 1   ? "InstanceNorm1d"
                                       : kAxes == 2 ? "InstanceNorm2d"
                                                    : "InstanceNorm3d";
};
using InstanceNorm1d = InstanceNormOver<1>;
using InstanceNorm2d = InstanceNormOver<2>;
using InstanceNorm3d = InstanceNormOver<3>;

/// Over each of num_groups groups of channels of x (N, C, ...).
class GroupNorm : public Module {
 public:
  GroupNorm(int64_t num_groups, int64_t num_channels, double eps = 1e-5, bool affine = true,
            TensorOptions options = {}, Location where = Location::here());
  TANDEM_FORWARD(group_norm(x, num_groups, weight, bias, eps, where))

  const int64_t num_groups, num_channels;
  const double eps;
  const Tensor weight, bias;  // (C); undefined unless affine
};

/// x / sqrt(mean(x^2) + eps) over the last axes, which have sizes `normalized_shape`, times weight. Without
/// eps that of x's type: the distance from 1 to the next number.
class RMSNorm : public Module {
 public:
  explicit RMSNorm(const Dims& normalized_shape, std::optional<double> eps = {},
                   bool elementwise_affine = true, TensorOptions options = {},
                   Location where = Location::here());
  Tensor forward(const Tensor& x, Location where = Location::here()) const;
  Tensor operator()(const Tensor& x, Location where = Location::here()) const { return forward(x, where); }

  const Dims normalized_shape;
  const std::optional<double> eps;
  const Tensor weight;  // undefined: none
};

#include "tandem/eager/nn/layer_end.inc"

}  // namespace tandem::nn
