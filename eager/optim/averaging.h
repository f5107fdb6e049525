// Exponential moving averages of parameters. Owns the averages and handles to the parameters; neither moves
// nor copies. One thread at a time.
#pragma once

#include "tandem/eager/named_tensor.h"

namespace tandem::optim {

/// One average a parameter: a copy of it at the first update, and average += (1 - decay) * (parameter -
/// average) at each later one (Polyak and Juditsky, 1992; PyTorch's AveragedModel with get_ema_multi_avg_fn).
/// Before the first update it has the values that the parameter had when the average was made.
class ExponentialMovingAverage {
 public:
  /// Errors: parameters that are not floating or undefined, a decay outside [0, 1].
  explicit ExponentialMovingAverage(const std::vector<Tensor>& parameters, double decay = 0.999,
                                    Location where = Location::here());
  ExponentialMovingAverage(const ExponentialMovingAverage&) = delete;
  ExponentialMovingAverage& operator=(const ExponentialMovingAverage&) = delete;

  /// After an optimizer's step.
  void update(Location where = Location::here());
  double decay() const { return decay_; }
  /// A plain number, read at each update.
  void set_decay(double decay, Location where = Location::here());

  /// In the order of the parameters.
  const std::vector<Tensor>& averages() const { return averages_; }
  /// Exchanges the values of parameters and averages: before an evaluation with the averages, and after it.
  void swap(Location where = Location::here());

  /// The averages by the parameters' indices, "0", "1", and "updated": 1 if there was an update, else 0.
  std::vector<NamedTensor> state() const;
  /// Takes back what state() gave. An Error lists missing and unexpected names, wrong shapes and dtypes;
  /// nothing is changed then. A state without "updated", as older versions gave it, is of averages that were.
  void load_state(const std::vector<NamedTensor>& state, Location where = Location::here());

 private:
  std::vector<Tensor> parameters_, averages_;
  double decay_ = 0;
  bool updated_ = false;
};

}  // namespace tandem::optim
