#include "tandem/eager/nn/clip.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "tandem/core/modes.h"
#include "tandem/eager/functions.h"

namespace tandem::nn::utils {

namespace {

std::vector<Tensor> gradients(const std::vector<Tensor>& parameters) {
  std::vector<Tensor> out;
  for (const Tensor& p : parameters)
    if (const Tensor g = p.grad(); g.defined()) out.push_back(g);
  return out;
}

/// The norm to the power p, or for infinity the norm itself.
Tensor power_sum(const Tensor& gradient, double p, Location where) {
  const Tensor g = gradient.dtype() == float64 ? gradient : gradient.to(float32, where);
  if (p == 2) return square(g, where).sum({}, false, where);
  const Tensor size = abs(g, where);
  if (std::isinf(p)) return size.amax({}, false, where);
  return (p == 1 ? size : pow(Operand(size, where), Operand(p, where))).sum({}, false, where);
}

}  // namespace

Tensor clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm, double norm_type,
                       Location where) {
  if (!(max_norm >= 0))
    fail("clip_grad_norm_: max_norm must be 0 or more, found " + std::to_string(max_norm), where);
  if (!(norm_type > 0))
    fail("clip_grad_norm_: norm_type must be above 0, found " + std::to_string(norm_type), where);
  const NoGrad no_grad;
  const std::vector<Tensor> all = gradients(parameters);
  if (all.empty()) return zeros({}, {}, where);
  // Each gradient's share by itself, then all of these at once: traced, one launch each.
  const bool wide = std::any_of(all.begin(), all.end(), [](const Tensor& g) { return g.dtype() == float64; });
  std::vector<Tensor> shares;
  for (const Tensor& g : all) {
    const Tensor share = power_sum(g, norm_type, where);
    shares.push_back(wide ? share.to(float64, where) : share);
  }
  const Tensor joined = stack(shares, 0, where);
  Tensor norm = std::isinf(norm_type) ? joined.amax({}, false, where) : joined.sum({}, false, where);
  if (norm_type == 2)
    norm = sqrt(norm, where);
  else if (norm_type != 1 && !std::isinf(norm_type))
    norm = pow(Operand(norm, where), Operand(1 / norm_type, where));
  const Tensor factor =
      clamp(div(Operand(max_norm, where), Operand(add(Operand(norm, where), Operand(1e-6, where)), where)),
            std::nullopt, 1.0, where);
  for (const Tensor& g : all) g.mul_(Operand(factor, where));
  return norm;
}

void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value, Location where) {
  if (!(clip_value >= 0))
    fail("clip_grad_value_: clip_value must be 0 or more, found " + std::to_string(clip_value), where);
  const NoGrad no_grad;
  for (const Tensor& g : gradients(parameters)) g.copy_(clamp(g, -clip_value, clip_value, where), where);
}

}  // namespace tandem::nn::utils
