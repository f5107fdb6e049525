// The numbers of a group lie in the order in which the ops of ops/composite.def take them.
#include "tandem/eager/optim/optimizers.h"

#include <cmath>

#include "tandem/eager/call.h"
#include "tandem/eager/interceptor.h"

namespace tandem::optim {

using eager::CallBuilder;
using ops::OpId;

namespace {

constexpr const char* kSgdNumbers[] = {"lr", "momentum", "dampening", "weight_decay", "nesterov"};
constexpr const char* kSgdMoments[] = {"momentum_buffer"};
enum Sgd : size_t { kLr, kMomentum, kDampening, kSgdDecay, kNesterov };

constexpr const char* kAdamNumbers[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};
constexpr const char* kAdamMoments[] = {"exp_avg", "exp_avg_sq"};
enum AdamNumber : size_t { kBeta1 = 1, kBeta2, kEps, kAdamDecay };

using Numbers = std::array<double, Optimizer::kNumbers>;

/// "name must be ..., found x", or nothing.
std::string unless(bool fine, const char* name, const char* rule, double found) {
  return fine ? "" : std::string(name) + " must " + rule + ", found " + std::to_string(found) + "; ";
}
std::string unless_size(const Numbers& n, size_t k, const char* const* names) {
  return unless(n[k] >= 0 && std::isfinite(n[k]), names[k], "be 0 or more", n[k]);
}

// What differs between the optimizers: names, options as numbers and back, and what is wrong with numbers.
template <class Options>
struct Traits;

template <>
struct Traits<SGDOptions> {
  static constexpr Optimizer::Names names() { return {"SGD", kSgdNumbers, kSgdMoments}; }
  static Numbers numbers(const SGDOptions& o) {
    return {o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov ? 1.0 : 0.0};
  }
  static SGDOptions options(const Numbers& n) {
    return {.lr = n[kLr],
            .momentum = n[kMomentum],
            .dampening = n[kDampening],
            .weight_decay = n[kSgdDecay],
            .nesterov = n[kNesterov] != 0};
  }
  static size_t moments(const Numbers& n) { return n[kMomentum] != 0 ? 1 : 0; }
  static std::string mistakes(const Numbers& n) {
    std::string text;
    for (const size_t k : {size_t{kLr}, size_t{kMomentum}, size_t{kSgdDecay}})
      text += unless_size(n, k, kSgdNumbers);
    text += unless(std::isfinite(n[kDampening]), "dampening", "be finite", n[kDampening]);
    text += unless(n[kNesterov] == 0 || n[kNesterov] == 1, "nesterov", "be 0 or 1", n[kNesterov]);
    if (n[kNesterov] != 0) {
      text += unless(n[kMomentum] > 0, "momentum", "be above 0 with nesterov", n[kMomentum]);
      text += unless(n[kDampening] == 0, "dampening", "be 0 with nesterov", n[kDampening]);
    }
    return text;
  }
};

template <class Options>
struct AdamTraits {
  static Numbers numbers(const Options& o) {
    return {o.lr, o.betas.first, o.betas.second, o.eps, o.weight_decay};
  }
  static Options options(const Numbers& n) {
    return {.lr = n[kLr], .betas = {n[kBeta1], n[kBeta2]}, .eps = n[kEps], .weight_decay = n[kAdamDecay]};
  }
  static size_t moments(const Numbers&) { return 2; }
  static std::string mistakes(const Numbers& n) {
    std::string text;
    for (const size_t k : {size_t{kLr}, size_t{kEps}, size_t{kAdamDecay}})
      text += unless_size(n, k, kAdamNumbers);
    for (const size_t k : {size_t{kBeta1}, size_t{kBeta2}})
      text += unless(n[k] >= 0 && n[k] < 1, kAdamNumbers[k], "lie in [0, 1)", n[k]);
    return text;
  }
};
template <>
struct Traits<AdamOptions> : AdamTraits<AdamOptions> {
  static constexpr OpId kOp = OpId::adam_update;
  static constexpr Optimizer::Names names() { return {"Adam", kAdamNumbers, kAdamMoments}; }
};
template <>
struct Traits<AdamWOptions> : AdamTraits<AdamWOptions> {
  static constexpr OpId kOp = OpId::adamw_update;
  static constexpr Optimizer::Names names() { return {"AdamW", kAdamNumbers, kAdamMoments}; }
};

/// One SGD step of one parameter.
void update_sgd(Optimizer::Slot& s, int64_t& step, const Tensor& gradient, const Numbers& n, Location where) {
  if (n[kMomentum] == 0) {
    CallBuilder(OpId::sgd_update, where)
        .in(s.parameter)
        .in(gradient)
        .floating(n[kLr])
        .floating(n[kSgdDecay])
        .run_in_place();
  } else {
    // The first step fills the buffer with the gradient, undampened. Without dampening a buffer of zeros does
    // the same, and the first step is an op like the later ones.
    const bool first = step == 0 && n[kDampening] != 0;
    CallBuilder(OpId::sgd_momentum_update, where)
        .in(s.parameter)
        .in(gradient)
        .in(s.moments[0])
        .floating(n[kLr])
        .floating(n[kMomentum])
        .floating(n[kDampening])
        .floating(n[kSgdDecay])
        .word(static_cast<int64_t>(n[kNesterov] != 0))
        .word(static_cast<int64_t>(first))
        .run_in_place();
  }
  ++step;
}

/// The corrections 1 - beta^t, computed once for parameters in a row that share group and step count, as
/// nearly all do.
struct Corrections {
  size_t group = 0;
  int64_t step = 0;  // 0: nothing computed yet
  double bias1 = 0, bias2 = 0;
  void compute(size_t slot_group, int64_t steps_before, const Numbers& n, BiasCorrection* known) {
    if (steps_before + 1 == step && slot_group == group) return;
    group = slot_group;
    step = steps_before + 1;
    bias1 = known[0].at(n[kBeta1], step);
    bias2 = known[1].at(n[kBeta2], step);
  }
};

/// One step of Adam or AdamW of one parameter.
void update_adam(OpId op, Optimizer::Slot& s, const Tensor& gradient, const Numbers& n, const Corrections& c,
                 Location where) {
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
      .floating(c.bias1)
      .floating(c.bias2)
      .run_in_place();
}

}  // namespace

double bias_correction(double beta, int64_t step) { return 1 - std::pow(beta, static_cast<double>(step)); }

double BiasCorrection::at(double beta, int64_t step) {
  if (beta == beta_ && step >= one_from_) return 1;
  const double correction = bias_correction(beta, step);
  if (correction == 1) beta_ = beta, one_from_ = step;
  return correction;
}

template <class O>
OptimizerOf<O>::OptimizerOf(const std::vector<Tensor>& parameters, const Options& options, Location where)
    : Optimizer(Traits<O>::names()) {
  add_group(parameters, options, where);
}
template <class O>
OptimizerOf<O>::OptimizerOf(const std::vector<Group<Options>>& groups, Location where)
    : Optimizer(Traits<O>::names()) {
  for (const Group<Options>& g : groups) add_group(g.parameters, g.options, where);
}
template <class O>
void OptimizerOf<O>::add_group(const std::vector<Tensor>& parameters, const Options& options,
                               Location where) {
  Optimizer::add_group(parameters, Traits<O>::numbers(options), where);
}
template <class O>
O OptimizerOf<O>::options(size_t group, Location where) const {
  return Traits<O>::options(numbers(group, where));
}
template <class O>
void OptimizerOf<O>::set_options(const Options& options, size_t group, Location where) {
  set_numbers(Traits<O>::numbers(options), group, where);
}
template <class O>
void OptimizerOf<O>::check(const Numbers& numbers, Location where) const {
  std::string mistakes = Traits<O>::mistakes(numbers);
  if (mistakes.empty()) return;
  mistakes.resize(mistakes.size() - 2);
  refuse(mistakes, where);
}
template <class O>
size_t OptimizerOf<O>::moment_count(const Numbers& numbers) const {
  return Traits<O>::moments(numbers);
}
template <class O>
void OptimizerOf<O>::update(Location where) {
  [[maybe_unused]] Corrections corrections;
  int64_t* step = steps_->count.data();
  for (Slot& s : slots_) {
    int64_t& steps = *step++;
    const Tensor& gradient = s.parameter.grad();
    if (!gradient.defined()) continue;
    const Numbers& n = groups_[s.group];
    if constexpr (std::is_same_v<O, SGDOptions>) {
      update_sgd(s, steps, gradient, n, where);
    } else {
      corrections.compute(s.group, steps, n, bias_);
      update_adam(Traits<O>::kOp, s, gradient, n, corrections, where);
      steps = corrections.step;
    }
  }
}

template class OptimizerOf<SGDOptions>;
template class OptimizerOf<AdamOptions>;
template class OptimizerOf<AdamWOptions>;

}  // namespace tandem::optim
