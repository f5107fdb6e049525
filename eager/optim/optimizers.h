// SGD, Adam and AdamW with PyTorch's option names, defaults and formulas. step() calls one in-place op per
// parameter; every option is a run-time number of it, so changing one never retraces. Ownership and threads
// as in optimizer.h.
#pragma once

#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};
struct AdamOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
};
struct AdamWOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;
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
  void check(const Numbers& numbers, Location where) const override;
  size_t moment_count(const Numbers& numbers) const override;
  BiasCorrection bias_[kMoments];
};
extern template class OptimizerOf<SGDOptions>;
extern template class OptimizerOf<AdamOptions>;
extern template class OptimizerOf<AdamWOptions>;

/// Stochastic gradient descent, with momentum (Polyak, 1964; Sutskever et al., 2013) if asked for.
using SGD = OptimizerOf<SGDOptions>;
/// Adam (Kingma and Ba, 2015); weight decay is added to the gradient.
using Adam = OptimizerOf<AdamOptions>;
/// AdamW (Loshchilov and Hutter, 2019); weight decay shrinks the parameter itself.
using AdamW = OptimizerOf<AdamWOptions>;

}  // namespace tandem::optim
