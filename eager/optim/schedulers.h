// Schedulers: a learning rate as a function of the epoch, PyTorch's formulas in closed form. A scheduler
// points to its optimizer, which must outlive it; call step() after each epoch. One thread at a time.
#pragma once

#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Goes to the next epoch and sets the learning rate of every group.
  void step(Location where = Location::here());
  int64_t last_epoch() const { return epoch_; }

  /// Epoch ("last_epoch") and the groups' first learning rates ("base_lr.0").
  std::vector<NamedTensor> state() const;
  /// Takes back what state() gave; the optimizer's own state holds the current rates. An Error changes
  /// nothing.
  void load_state(const std::vector<NamedTensor>& state, Location where = Location::here());
  void check_state(const std::vector<NamedTensor>& state, Location where = Location::here()) const;

 protected:
  /// The optimizer's rates at this time are epoch 0's.
  explicit Scheduler(Optimizer& optimizer);
  virtual double lr_at(double base_lr, int64_t epoch) const = 0;

 private:
  std::pair<int64_t, std::vector<double>> read_state(const std::vector<NamedTensor>& state,
                                                     Location where) const;
  Optimizer& optimizer_;
  std::vector<double> base_;
  int64_t epoch_ = 0;
};

/// Times gamma after every `step_size` epochs.
class StepLR : public Scheduler {
 public:
  StepLR(Optimizer& optimizer, int64_t step_size, double gamma = 0.1, Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  int64_t step_size_;
  double gamma_;
};

/// Half a cosine from the first rate down to eta_min after t_max epochs (Loshchilov and Hutter, 2017, without
/// restarts).
class CosineAnnealingLR : public Scheduler {
 public:
  CosineAnnealingLR(Optimizer& optimizer, int64_t t_max, double eta_min = 0,
                    Location where = Location::here());

 private:
  double lr_at(double base_lr, int64_t epoch) const override;
  int64_t t_max_;
  double eta_min_;
};

}  // namespace tandem::optim
