// Loss scaling for float16: keeps gradients from underflowing, skips steps whose gradients overflowed. All
// decisions are the device's, so that the host reads nothing and a traced step has one path. Owns the scale;
// keeps no optimizer alive. One thread at a time.
#pragma once

#include <optional>

#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

struct GradScalerOptions {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int64_t growth_interval = 2000;  // steps in a row without overflow before the scale grows
  bool enabled = true;  // false: scale() gives what it gets, step() is the optimizer's, the rest nothing
  std::optional<Device> device = {};  // of losses and parameters; default: default_device()
};

/// Dynamic loss scaling (Micikevicius et al., 2018; PyTorch's torch.amp.GradScaler, with its defaults and
/// order of calls):
///   scaler.scale(loss).backward();
///   scaler.unscale_(opt);            // only if gradients are looked at or clipped before the step
///   scaler.step(opt);
///   scaler.update();
class GradScaler {
 public:
  /// Errors: a scale or backoff factor that is not positive, a growth factor of 1 or less, a backoff factor
  /// of 1 or more, an interval below 1.
  explicit GradScaler(const GradScalerOptions& options = {}, Location where = Location::here());
  GradScaler(const GradScaler&) = delete;
  GradScaler& operator=(const GradScaler&) = delete;

  /// The loss times the scale; of float16 and bfloat16 losses in float32.
  Tensor scale(const Tensor& loss, Location where = Location::here()) const;
  /// Divides the optimizer's gradients by the scale, in place, and notes whether any element is infinite or
  /// NaN. Errors: gradients of float16 (weights shall be float32), no gradients at all, a second call before
  /// update().
  void unscale_(Optimizer& optimizer, Location where = Location::here());
  /// optimizer.step_unless(an overflow was found), after unscale_ if that was not called.
  void step(Optimizer& optimizer, Location where = Location::here());
  /// Once after the steps: where a gradient overflowed the scale is multiplied by the backoff factor, else
  /// after `growth_interval` such calls by the growth factor, unless that overflows. Errors: nothing was
  /// unscaled since the last update.
  void update(Location where = Location::here());
  /// Sets the scale instead.
  void set_scale(double scale, Location where = Location::here());

  /// Reads the device.
  double get_scale(Location where = Location::here()) const;
  /// float32, a scalar, that changes in place.
  const Tensor& scale_tensor() const { return scale_; }
  /// Whether the last unscale_ of this optimizer found an overflow: bool, a scalar; undefined after update().
  Tensor found_inf(const Optimizer& optimizer) const;
  const GradScalerOptions& options() const { return options_; }

  /// "scale", "growth_factor", "backoff_factor", "growth_interval" and "growth_tracker".
  std::vector<NamedTensor> state() const;
  /// Takes back what state() gave. An Error lists missing and unexpected names and wrong shapes, or names an
  /// impossible number; nothing is changed then.
  void load_state(const std::vector<NamedTensor>& state, Location where = Location::here());
  /// The Error that load_state would throw, and no change.
  void check_state(const std::vector<NamedTensor>& state, Location where = Location::here()) const;

 private:
  struct Loaded {
    GradScalerOptions options;
    Tensor scale, tracker;
  };
  Loaded read_state(const std::vector<NamedTensor>& state, Location where) const;
  struct Seen {
    uint64_t optimizer;  // its id: another may stand at its address by and by
    Tensor found_inf;
    bool stepped = false;
  };
  Seen* seen(const Optimizer& optimizer);
  static void check(const GradScalerOptions& options, Location where);

  GradScalerOptions options_;
  Tensor scale_, tracker_;  // float32 and int64, scalars
  std::vector<Seen> seen_;  // since the last update
};

}  // namespace tandem::optim
