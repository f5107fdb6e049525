// The numbers of a group lie in the order in which the ops of ops/composite.def take them.
#include "tandem/eager/optim/optimizers.h"

#include <cmath>

#include "tandem/eager/call.h"

namespace tandem::optim {

using eager::CallBuilder;
using ops::OpId;

namespace {

constexpr const char* kSgdNumbers[] = {"lr", "momentum", "dampening", "weight_decay", "nesterov"};
constexpr const char* kSgdMoments[] = {"momentum_buffer"};
enum { kLr, kMomentum, kDampening, kDecay, kNesterov };

constexpr const char* kAdamNumbers[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};
constexpr const char* kAdamMoments[] = {"exp_avg", "exp_avg_sq"};
enum { kBeta1 = 1, kBeta2, kEps, kAdamDecay };

bool is_finite_not_negative(double x) { return x >= 0 && std::isfinite(x); }

template <class Numbers>
Numbers sgd_numbers(const SGDOptions& o) {
  return {o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov ? 1.0 : 0.0};
}
template <class Numbers, class Options>
Numbers adam_numbers(const Options& o) {
  return {o.lr, o.betas.first, o.betas.second, o.eps, o.weight_decay};
}
template <class Options, class Numbers>
Options adam_options(const Numbers& n) {
  return {.lr = n[kLr], .betas = {n[kBeta1], n[kBeta2]}, .eps = n[kEps], .weight_decay = n[kAdamDecay]};
}

/// What is wrong with the numbers of an Adam, or an empty text.
template <class Numbers>
std::string adam_mistake(const Numbers& n) {
  for (const int k : {+kLr, +kEps, +kAdamDecay})
    if (!is_finite_not_negative(n[static_cast<size_t>(k)]))
      return std::string(kAdamNumbers[k]) + " must be 0 or more, found " + std::to_string(n[static_cast<size_t>(k)]);
  for (const int k : {+kBeta1, +kBeta2})
    if (!(n[static_cast<size_t>(k)] >= 0 && n[static_cast<size_t>(k)] < 1))
      return std::string(kAdamNumbers[k]) + " must lie in [0, 1), found " + std::to_string(n[static_cast<size_t>(k)]);
  return {};
}

/// One Adam step of every parameter with a gradient. The corrections 1 - beta^t are computed once for parameters in a row
/// that share group and step count, as nearly all do.
template <class Slots, class Groups>
void adam_update(OpId op, Slots& slots, const Groups& groups, Location where) {
  const double* n = nullptr;
  size_t group = 0;
  int64_t step = 0;
  double bias1 = 0, bias2 = 0;
  for (auto& s : slots) {
    const Tensor& gradient = s.parameter.grad();
    if (!gradient.defined()) continue;
    if (!n || s.group != group || s.step + 1 != step) {
      group = s.group;
      step = s.step + 1;
      n = groups[group].data();
      bias1 = 1 - std::pow(n[kBeta1], static_cast<double>(step));
      bias2 = 1 - std::pow(n[kBeta2], static_cast<double>(step));
    }
    CallBuilder(op, where)
        .in(s.parameter)
        .in(gradient)
        .in(s.moments[0])
        .in(s.moments[1])
        .floating(n[kLr])
        .floating(n[kBeta1])
        .floating(n[kBeta2])
        .floating(n[kEps])
        .floating(n[kAdamDecay])
        .floating(bias1)
        .floating(bias2)
        .run_in_place();
    s.step = step;
  }
}

}  // namespace

SGD::SGD(const std::vector<Tensor>& parameters, const Options& options, Location where)
    : Optimizer({"SGD", kSgdNumbers, kSgdMoments}) {
  add_group(parameters, options, where);
}
SGD::SGD(const std::vector<Group<Options>>& groups, Location where) : Optimizer({"SGD", kSgdNumbers, kSgdMoments}) {
  for (const Group<Options>& g : groups) add_group(g.parameters, g.options, where);
}
void SGD::add_group(const std::vector<Tensor>& parameters, const Options& options, Location where) {
  Optimizer::add_group(parameters, sgd_numbers<Numbers>(options), where);
}
SGD::Options SGD::options(size_t group) const {
  const Numbers& n = numbers(group);
  return {.lr = n[kLr], .momentum = n[kMomentum], .dampening = n[kDampening], .weight_decay = n[kDecay], .nesterov = n[kNesterov] != 0};
}
void SGD::set_options(const Options& options, size_t group, Location where) {
  set_numbers(sgd_numbers<Numbers>(options), group, where);
}

void SGD::check(const Numbers& n, Location where) const {
  for (const int k : {+kLr, +kMomentum, +kDecay})
    if (!is_finite_not_negative(n[static_cast<size_t>(k)]))
      refuse(std::string(kSgdNumbers[k]) + " must be 0 or more, found " + std::to_string(n[static_cast<size_t>(k)]), where);
  if (!std::isfinite(n[kDampening])) refuse("dampening must be finite", where);
  if (n[kNesterov] != 0 && n[kNesterov] != 1) refuse("nesterov must be 0 or 1", where);
  if (n[kNesterov] != 0 && (n[kMomentum] == 0 || n[kDampening] != 0))
    refuse("nesterov needs momentum above 0 and no dampening, found momentum " + std::to_string(n[kMomentum]) + " and dampening " +
               std::to_string(n[kDampening]),
           where);
}
size_t SGD::moment_count(const Numbers& n) const { return n[kMomentum] != 0 ? 1 : 0; }

void SGD::update(Location where) {
  for (Slot& s : slots_) {
    const Tensor& gradient = s.parameter.grad();
    if (!gradient.defined()) continue;
    const Numbers& n = groups_[s.group];
    if (n[kMomentum] == 0) {
      CallBuilder(OpId::sgd_update, where).in(s.parameter).in(gradient).floating(n[kLr]).floating(n[kDecay]).run_in_place();
    } else {
      // The first step fills the buffer with the gradient, undampened. Without dampening a buffer of zeros does the same, and
      // the first step is an op like the later ones.
      const bool first = s.step == 0 && n[kDampening] != 0;
      CallBuilder(OpId::sgd_momentum_update, where)
          .in(s.parameter)
          .in(gradient)
          .in(s.moments[0])
          .floating(n[kLr])
          .floating(n[kMomentum])
          .floating(n[kDampening])
          .floating(n[kDecay])
          .word(static_cast<int64_t>(n[kNesterov] != 0))
          .word(static_cast<int64_t>(first))
          .run_in_place();
    }
    ++s.step;
  }
}

#define TANDEM_ADAM(Class, name, op)                                                                            \
  Class::Class(const std::vector<Tensor>& parameters, const Options& options, Location where)                   \
      : Optimizer({name, kAdamNumbers, kAdamMoments}) {                                                         \
    add_group(parameters, options, where);                                                                      \
  }                                                                                                             \
  Class::Class(const std::vector<Group<Options>>& groups, Location where) : Optimizer({name, kAdamNumbers, kAdamMoments}) { \
    for (const Group<Options>& g : groups) add_group(g.parameters, g.options, where);                           \
  }                                                                                                             \
  void Class::add_group(const std::vector<Tensor>& parameters, const Options& options, Location where) {        \
    Optimizer::add_group(parameters, adam_numbers<Numbers>(options), where);                                    \
  }                                                                                                             \
  Class::Options Class::options(size_t group) const { return adam_options<Options>(numbers(group)); }           \
  void Class::set_options(const Options& options, size_t group, Location where) {                               \
    set_numbers(adam_numbers<Numbers>(options), group, where);                                                  \
  }                                                                                                             \
  void Class::check(const Numbers& n, Location where) const {                                                   \
    const std::string mistake = adam_mistake(n);                                                                \
    if (!mistake.empty()) refuse(mistake, where);                                                               \
  }                                                                                                             \
  void Class::update(Location where) { adam_update(OpId::op, slots_, groups_, where); }
TANDEM_ADAM(Adam, "Adam", adam_update)
TANDEM_ADAM(AdamW, "AdamW", adamw_update)
#undef TANDEM_ADAM

}  // namespace tandem::optim
