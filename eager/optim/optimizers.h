// PyTorch's optimizers, with its option names, defaults and formulas, and Lion. step() calls one in-place op
// per parameter; every option that is no switch is a run-time number of it, so changing one never retraces.
// Ownership and threads as in optimizer.h.
#pragma once

#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

// `maximize`, of all but Lion, goes up the gradient instead of down. `amsgrad` divides by the largest second
// moment so far (Reddi, Kale and Kumar, 2018).
struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
};
struct AdamOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool amsgrad = false;
  bool maximize = false;
};
struct AdamWOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;
  bool amsgrad = false;
  bool maximize = false;
};

struct AdamaxOptions {
  double lr = 2e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool maximize = false;
};
struct NAdamOptions {
  double lr = 2e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  double momentum_decay = 4e-3;
  bool maximize = false;
};
struct RAdamOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
  bool maximize = false;
};
struct AdagradOptions {
  double lr = 1e-2;
  double lr_decay = 0;
  double weight_decay = 0;
  double initial_accumulator_value = 0;
  double eps = 1e-10;
  bool maximize = false;
};
struct RMSpropOptions {
  double lr = 1e-2;
  double alpha = 0.99;
  double eps = 1e-8;
  double weight_decay = 0;
  double momentum = 0;
  bool centered = false;
  bool maximize = false;
};
struct LionOptions {
  double lr = 1e-4;
  std::pair<double, double> betas = {0.9, 0.99};
  double weight_decay = 0;
};

/// Parameters of one group: `{head, {.lr = 1e-3}}`.
template <class Options>
struct Group {
  std::vector<Tensor> parameters;
  Options options = {};
};

/// 1 - beta^t, as Adam corrects a moment.
double bias_correction(double beta, int64_t step);

/// The same, remembered: once it is 1, it is 1 in every later step, and is not computed.
class BiasCorrection {
 public:
  double at(double beta, int64_t step);

 private:
  double beta_ = 0;  // of which it is 1 from step one_from_ on
  int64_t one_from_ = 1;
};

/// What a step has of those before it, beside their number.
struct Corrections {
  BiasCorrection bias[2];
  double product = 1;  // of NAdam's momenta up to the step before; an update makes it that up to its own
};

/// An optimizer by its options: `AdamW opt(net.parameters(), {.lr = 1e-3})`, or with groups
/// `AdamW opt({{head, {.lr = 1e-3}}, {body, {.lr = 1e-4}}})`. Errors: parameters that are no floating leaves
/// or are given twice, and impossible numbers.
template <class O>
class OptimizerOf final : public Optimizer {
 public:
  using Options = O;
  explicit OptimizerOf(const std::vector<Tensor>& parameters, const Options& options = {},
                       Location where = Location::here());
  explicit OptimizerOf(const std::vector<Group<Options>>& groups, Location where = Location::here());
  void add_group(const std::vector<Tensor>& parameters, const Options& options = {},
                 Location where = Location::here());
  Options options(size_t group = 0, Location where = Location::here()) const;
  void set_options(const Options& options, size_t group = 0, Location where = Location::here());

 private:
  void update(Location where) override;
  void update_unless(const Tensor& skip, Location where) override;
  void check(const Numbers& numbers, Location where) const override;
  uint32_t moments(const Numbers& numbers) const override;
  double initial_moment(const Numbers& numbers) const override;
  double product_of(const Numbers& numbers, int64_t steps) const override;
  Corrections corrections_;
};
extern template class OptimizerOf<SGDOptions>;
extern template class OptimizerOf<AdamOptions>;
extern template class OptimizerOf<AdamWOptions>;
extern template class OptimizerOf<AdamaxOptions>;
extern template class OptimizerOf<NAdamOptions>;
extern template class OptimizerOf<RAdamOptions>;
extern template class OptimizerOf<AdagradOptions>;
extern template class OptimizerOf<RMSpropOptions>;
extern template class OptimizerOf<LionOptions>;

/// Stochastic gradient descent, with momentum (Polyak, 1964; Sutskever et al., 2013) if asked for.
using SGD = OptimizerOf<SGDOptions>;
/// Adam (Kingma and Ba, 2015); weight decay is added to the gradient.
using Adam = OptimizerOf<AdamOptions>;
/// AdamW (Loshchilov and Hutter, 2019); weight decay shrinks the parameter itself.
using AdamW = OptimizerOf<AdamWOptions>;
/// Adam by the largest magnitude of the gradients (Kingma and Ba, 2015).
using Adamax = OptimizerOf<AdamaxOptions>;
/// Adam with Nesterov's momentum (Dozat, 2016).
using NAdam = OptimizerOf<NAdamOptions>;
/// Adam with a rectified rate (Liu et al., 2020). The step at which rectification begins is a new trace.
using RAdam = OptimizerOf<RAdamOptions>;
/// By the root of the sum of squared gradients (Duchi, Hazan and Singer, 2011).
using Adagrad = OptimizerOf<AdagradOptions>;
/// By the root of the mean of squared gradients (Tieleman and Hinton, 2012), centered as Graves, 2013.
using RMSprop = OptimizerOf<RMSpropOptions>;
/// By the sign of a momentum (Chen et al., 2023); weight decay shrinks the parameter itself.
using Lion = OptimizerOf<LionOptions>;

}  // namespace tandem::optim
