// Schedulers: learning rates that follow the epochs by PyTorch's formulas. A scheduler points to its
// optimizer, which must outlive it; call step() after each epoch (OneCycleLR: after each batch). One thread
// at a time.
//
// Several of one optimizer work together: where a rate is not what a scheduler has made of the group's
// initial one, because another or the program has changed it too, a step changes it in the proportion in
// which the scheduler's own would. LambdaLR, OneCycleLR and CosineAnnealingWarmRestarts set it whatever it
// is.
#pragma once

#include <functional>
#include <limits>
#include <optional>

#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  int64_t last_epoch() const { return epoch_; }

  /// Epoch ("last_epoch"), the groups' first learning rates ("base_lr.0") and a scheduler's own numbers.
  std::vector<NamedTensor> state() const;
  /// Takes back what state() gave; the optimizer's own state holds the current rates. An Error changes
  /// nothing.
  void load_state(const std::vector<NamedTensor>& state, Location where = Location::here());
  void check_state(const std::vector<NamedTensor>& state, Location where = Location::here()) const;

 protected:
  struct Number {
    const char* name;
    double value;
  };
  /// `own`: what else the state holds.
  explicit Scheduler(Optimizer& optimizer, std::vector<Number> own = {});

  Optimizer& optimizer_;
  std::vector<double> base_;  // the groups' initial rates
  int64_t epoch_ = 0;
  std::vector<Number> own_;

 private:
  struct Loaded;
  Loaded read_state(const std::vector<NamedTensor>& state, Location where) const;
};

/// A rate that depends on the epoch and the group's initial rate alone, but for what others change.
class EpochScheduler : public Scheduler {
 public:
  /// Goes to the next epoch and sets the learning rate of every group.
  void step(Location where = Location::here());

 protected:
  using Scheduler::Scheduler;
  virtual double lr_at(double base_lr, int64_t epoch) const = 0;
  /// Proportions are those of the distances from this rate.
  virtual double lowest() const { return 0; }
  /// Whether changes by others are passed over.
  virtual bool absolute() const { return false; }
  /// Epochs beyond this one are an Error.
  virtual int64_t end() const { return std::numeric_limits<int64_t>::max(); }
  /// For constructors of schedulers whose epoch 0 has other rates than the initial ones.
  void begin(Location where) { go_to({}, 0, where); }

 private:
  void go_to(std::optional<int64_t> from, int64_t epoch, Location where);
};

/// Times gamma after every `step_size` epochs.
class StepLR : public EpochScheduler {
 public:
  StepLR(Optimizer& optimizer, int64_t step_size, double gamma = 0.1, Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  int64_t step_size_;
  double gamma_;
};

/// Times gamma at each of the milestones, which are epochs in any order; one named twice counts twice.
class MultiStepLR : public EpochScheduler {
 public:
  MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma = 0.1,
              Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  std::vector<int64_t> milestones_;
  double gamma_;
};

/// Times gamma after every epoch.
class ExponentialLR : public EpochScheduler {
 public:
  ExponentialLR(Optimizer& optimizer, double gamma, Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  double gamma_;
};

/// Times `factor` until epoch `total_iters`.
class ConstantLR : public EpochScheduler {
 public:
  ConstantLR(Optimizer& optimizer, double factor = 1.0 / 3, int64_t total_iters = 5,
             Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  double factor_;
  int64_t total_iters_;
};

/// Times a factor that goes in a straight line from `start_factor` to `end_factor` in `total_iters` epochs.
class LinearLR : public EpochScheduler {
 public:
  LinearLR(Optimizer& optimizer, double start_factor = 1.0 / 3, double end_factor = 1,
           int64_t total_iters = 5, Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  double start_factor_, end_factor_;
  int64_t total_iters_;
};

/// (1 - epoch / total_iters) to the power; from epoch `total_iters` on as at that one.
class PolynomialLR : public EpochScheduler {
 public:
  PolynomialLR(Optimizer& optimizer, int64_t total_iters = 5, double power = 1,
               Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  int64_t total_iters_;
  double power_;
};

/// Half a cosine from the first rate down to eta_min after t_max epochs (Loshchilov and Hutter, 2017, without
/// restarts).
class CosineAnnealingLR : public EpochScheduler {
 public:
  CosineAnnealingLR(Optimizer& optimizer, int64_t t_max, double eta_min = 0,
                    Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  double lowest() const override { return eta_min_; }
  int64_t t_max_;
  double eta_min_;
};

/// The same with restarts: the first after t_0 epochs, each later one after t_mult times as many as the one
/// before (Loshchilov and Hutter, 2017).
class CosineAnnealingWarmRestarts : public EpochScheduler {
 public:
  CosineAnnealingWarmRestarts(Optimizer& optimizer, int64_t t_0, int64_t t_mult = 1, double eta_min = 0,
                              Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  bool absolute() const override { return true; }
  int64_t t_0_, t_mult_;
  double eta_min_;
};

/// Times a function of the epoch. The function is not part of the state.
class LambdaLR : public EpochScheduler {
 public:
  LambdaLR(Optimizer& optimizer, std::function<double(int64_t epoch)> factor,
           Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  bool absolute() const override { return true; }
  std::function<double(int64_t)> factor_;
};

struct OneCycleOptions {
  double max_lr;
  int64_t total_steps;
  double pct_start = 0.3;         // part of the steps in which the rate rises
  double div_factor = 25;         // first rate: max_lr / div_factor
  double final_div_factor = 1e4;  // last rate: first rate / final_div_factor
};

/// One rise to max_lr and one fall far below the first rate, each half a cosine (Smith and Topin, 2019), over
/// total_steps batches; a step beyond them is an Error. All groups have the same rate; momentum stays as it
/// is (PyTorch's cycle_momentum=False).
class OneCycleLR : public EpochScheduler {
 public:
  OneCycleLR(Optimizer& optimizer, const OneCycleOptions& options, Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  bool absolute() const override { return true; }
  int64_t end() const override { return o_.total_steps; }
  OneCycleOptions o_;
};

enum class PlateauMode : uint8_t { min, max };
enum class PlateauThreshold : uint8_t { rel, abs };
struct PlateauOptions {
  PlateauMode mode = PlateauMode::min;  // whether a lower or a higher value is better
  double factor = 0.1;
  int64_t patience = 10;  // so many epochs without a better value are borne
  double threshold = 1e-4;
  PlateauThreshold threshold_mode = PlateauThreshold::rel;
  int64_t cooldown = 0;  // epochs after a change in which none is counted
  double min_lr = 0;
  double eps = 1e-8;  // smaller changes of a rate are not made
};

/// Times `factor` when a value that the caller watches has not become better for more than `patience` epochs.
class ReduceLROnPlateau : public Scheduler {
 public:
  explicit ReduceLROnPlateau(Optimizer& optimizer, const PlateauOptions& options = {},
                             Location where = Location::here());
  /// After an epoch, with its value.
  void step(double value, Location where = Location::here());

 private:
  bool better(double value) const;
  PlateauOptions o_;
};

}  // namespace tandem::optim
