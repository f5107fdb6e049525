#include "tandem/eager/optim/grad_scaler.h"

#include <cmath>

#include "tandem/eager/functions.h"

namespace tandem::optim {

void GradScaler::check(const GradScalerOptions& o, Location where) {
  const auto need = [&](bool fine, const char* what, const char* rule, double found) {
    if (!fine)
      fail(std::string("GradScaler: ") + what + " must " + rule + ", found " + std::to_string(found), where);
  };
  need(o.init_scale > 0 && std::isfinite(o.init_scale), "init_scale", "be positive", o.init_scale);
  need(o.growth_factor > 1 && std::isfinite(o.growth_factor), "growth_factor", "be above 1", o.growth_factor);
  need(o.backoff_factor > 0 && o.backoff_factor < 1, "backoff_factor", "lie between 0 and 1",
       o.backoff_factor);
  need(o.growth_interval >= 1, "growth_interval", "be 1 or more", static_cast<double>(o.growth_interval));
}

GradScaler::GradScaler(const GradScalerOptions& options, Location where) : options_(options) {
  check(options, where);
  const Device device = options.device.value_or(default_device());
  scale_ = scalar_tensor(options.init_scale, {.dtype = float32, .device = device}, where);
  tracker_ = scalar_tensor(int64_t{0}, {.dtype = int64, .device = device}, where);
}

Tensor GradScaler::scale(const Tensor& loss, Location where) const {
  if (!options_.enabled) return loss;
  const bool narrow = loss.dtype(where) == float16 || loss.dtype() == bfloat16;
  const Tensor wide = narrow ? loss.to(float32, where) : loss;
  return mul(Operand(wide, where), Operand(scale_, where));
}

GradScaler::Seen* GradScaler::seen(const Optimizer& optimizer) {
  for (Seen& s : seen_)
    if (s.optimizer == optimizer.id()) return &s;
  return nullptr;
}

Tensor GradScaler::found_inf(const Optimizer& optimizer) const {
  for (const Seen& s : seen_)
    if (s.optimizer == optimizer.id()) return s.found_inf;
  return {};
}

void GradScaler::unscale_(Optimizer& optimizer, Location where) {
  if (!options_.enabled) return;
  if (const Seen* s = seen(optimizer))
    fail(std::string("GradScaler.unscale_: the gradients of this optimizer ") +
             (s->stepped ? "have been used for a step" : "are unscaled already") + "; update() comes first",
         where);
  const NoGrad no_grad;
  std::vector<Tensor> gradients;
  for (const Tensor& p : optimizer.parameters())
    if (const Tensor g = p.grad(); g.defined()) {
      if (g.dtype() == float16)
        fail(
            "GradScaler.unscale_: a gradient is float16, whose range is what scaling is for; keep the "
            "weights "
            "in float32 and run the forward under autocast",
            where);
      gradients.push_back(g);
    }
  if (gradients.empty()) fail("GradScaler.unscale_: the optimizer's parameters have no gradients", where);
  const Tensor inverse = reciprocal(scale_, where);
  // Each gradient by itself, then all of these at once: traced, one launch each.
  std::vector<Tensor> found;
  for (const Tensor& g : gradients) {
    found.push_back(logical_not(isfinite(g, where), where).any({}, false, where));
    g.mul_(Operand(inverse, where));
  }
  seen_.push_back({optimizer.id(), stack(found, 0, where).any({}, false, where)});
}

void GradScaler::step(Optimizer& optimizer, Location where) {
  if (!options_.enabled) return optimizer.step(where);
  if (const Seen* s = seen(optimizer); s && s->stepped)
    fail("GradScaler.step: this optimizer has made a step since the last update()", where);
  if (!seen(optimizer)) unscale_(optimizer, where);
  Seen& s = *seen(optimizer);
  optimizer.step_unless(s.found_inf, where);
  s.stepped = true;
}

void GradScaler::update(Location where) {
  if (!options_.enabled) return;
  if (seen_.empty())
    fail("GradScaler.update: no gradients were unscaled since the last update; call step() first", where);
  const NoGrad no_grad;
  Tensor found = seen_[0].found_inf;
  for (size_t i = 1; i < seen_.size(); ++i)
    found = logical_or(Operand(found, where), Operand(seen_[i].found_inf, where));
  seen_.clear();
  const auto choose = [&](const Tensor& condition, const Operand& yes, const Operand& no) {
    return tandem::where(Operand(condition, where), yes, no);
  };
  const Tensor counted = add(Operand(tracker_, where), Operand(1, where));
  const Tensor grows = ge(Operand(counted, where), Operand(options_.growth_interval, where));
  Tensor grown = mul(Operand(scale_, where), Operand(options_.growth_factor, where));
  grown = choose(isfinite(grown, where), Operand(grown, where), Operand(scale_, where));
  const Tensor kept = choose(grows, Operand(grown, where), Operand(scale_, where));
  const Tensor reduced = mul(Operand(scale_, where), Operand(options_.backoff_factor, where));
  const Tensor next = choose(grows, Operand(0, where), Operand(counted, where));
  scale_.copy_(choose(found, Operand(reduced, where), Operand(kept, where)), where);
  tracker_.copy_(choose(found, Operand(0, where), Operand(next, where)), where);
}

void GradScaler::set_scale(double scale, Location where) {
  GradScalerOptions o = options_;
  o.init_scale = scale;
  check(o, where);
  const NoGrad no_grad;
  scale_.fill_(Operand(scale, where));
}

double GradScaler::get_scale(Location where) const {
  return options_.enabled ? scale_.item<double>(where) : 1.0;
}

std::vector<NamedTensor> GradScaler::state() const {
  return {{"scale", scale_},
          {"growth_factor", scalar_tensor(options_.growth_factor)},
          {"backoff_factor", scalar_tensor(options_.backoff_factor)},
          {"growth_interval", scalar_tensor(options_.growth_interval)},
          {"growth_tracker", tracker_}};
}

GradScaler::Loaded GradScaler::read_state(const std::vector<NamedTensor>& state, Location where) const {
  const std::vector<int64_t> found = eager::match_names(this->state(), state, true, "GradScaler", where);
  const auto given = [&](size_t i) -> const Tensor& { return state[static_cast<size_t>(found[i])].tensor; };
  Loaded out{options_, given(0), given(4)};
  GradScalerOptions& o = out.options;
  o.growth_factor = given(1).item<double>(where);
  o.backoff_factor = given(2).item<double>(where);
  o.growth_interval = given(3).item<int64_t>(where);
  check(o, where);
  const double scale = out.scale.item<double>(where);  // 0 after many overflows
  if (!(scale >= 0) || std::isinf(scale))
    fail("GradScaler: the state's scale is " + std::to_string(scale), where);
  if (out.tracker.item<int64_t>(where) < 0) fail("GradScaler: the state's growth_tracker is negative", where);
  return out;
}

void GradScaler::check_state(const std::vector<NamedTensor>& state, Location where) const {
  read_state(state, where);
}

void GradScaler::load_state(const std::vector<NamedTensor>& state, Location where) {
  const Loaded loaded = read_state(state, where);
  const NoGrad no_grad;
  scale_.copy_(loaded.scale, where);
  tracker_.copy_(loaded.tracker, where);
  options_ = loaded.options;
}

}  // namespace tandem::optim
