// SGD, Adam and AdamW with PyTorch's option names, defaults and formulas. step() calls one in-place op per parameter; every
// option is a run-time number of it, so changing one never retraces. Ownership and threads as in optimizer.h.
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

/// Stochastic gradient descent, with momentum if asked for.
class SGD : public Optimizer {
 public:
  using Options = SGDOptions;
  explicit SGD(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  explicit SGD(const std::vector<Group<Options>>& groups, Location where = Location::here());
  void add_group(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  Options options(size_t group = 0) const;
  void set_options(const Options& options, size_t group = 0, Location where = Location::here());

 private:
  void update(Location where) override;
  void check(const Numbers& numbers, Location where) const override;
  size_t moment_count(const Numbers& numbers) const override;
};

struct AdamOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0;
};

/// Adam (Kingma and Ba, 2015); weight decay is added to the gradient.
class Adam : public Optimizer {
 public:
  using Options = AdamOptions;
  explicit Adam(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  explicit Adam(const std::vector<Group<Options>>& groups, Location where = Location::here());
  void add_group(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  Options options(size_t group = 0) const;
  void set_options(const Options& options, size_t group = 0, Location where = Location::here());

 private:
  void update(Location where) override;
  void check(const Numbers& numbers, Location where) const override;
  size_t moment_count(const Numbers&) const override { return 2; }
};

struct AdamWOptions {
  double lr = 1e-3;
  std::pair<double, double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 1e-2;
};

/// AdamW (Loshchilov and Hutter, 2019); weight decay shrinks the parameter itself.
class AdamW : public Optimizer {
 public:
  using Options = AdamWOptions;
  explicit AdamW(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  explicit AdamW(const std::vector<Group<Options>>& groups, Location where = Location::here());
  void add_group(const std::vector<Tensor>& parameters, const Options& options = {}, Location where = Location::here());
  Options options(size_t group = 0) const;
  void set_options(const Options& options, size_t group = 0, Location where = Location::here());

 private:
  void update(Location where) override;
  void check(const Numbers& numbers, Location where) const override;
  size_t moment_count(const Numbers&) const override { return 2; }
};

}  // namespace tandem::optim
