#include "tandem/eager/optim/optimizers.h"

#include <cmath>

#include "tandem/eager/optim/rules.h"
#include "tandem/eager/tape.h"

namespace tandem::optim {

double bias_correction(double beta, int64_t step) { return 1 - std::pow(beta, static_cast<double>(step)); }

double BiasCorrection::at(double beta, int64_t step) {
  if (beta == beta_ && step >= one_from_) return 1;
  const double correction = bias_correction(beta, step);
  if (correction == 1) beta_ = beta, one_from_ = step;
  return correction;
}

double MomentumProduct::momentum(double beta, double decay, int64_t step) {
  return beta * (1 - 0.5 * std::pow(0.96, static_cast<double>(step) * decay));
}

double MomentumProduct::at(double beta, double decay, int64_t step) {
  if (beta != beta_ || decay != decay_ || step < step_) beta_ = beta, decay_ = decay, product_ = 1, step_ = 0;
  while (step_ < step) product_ *= momentum(beta, decay, ++step_);
  return product_;
}

template <class O>
OptimizerOf<O>::OptimizerOf(const std::vector<Tensor>& parameters, const Options& options, Location where)
    : Optimizer(Rules<O>::names()) {
  add_group(parameters, options, where);
}
template <class O>
OptimizerOf<O>::OptimizerOf(const std::vector<Group<Options>>& groups, Location where)
    : Optimizer(Rules<O>::names()) {
  for (const Group<Options>& g : groups) add_group(g.parameters, g.options, where);
}
template <class O>
void OptimizerOf<O>::add_group(const std::vector<Tensor>& parameters, const Options& options,
                               Location where) {
  Optimizer::add_group(parameters, Rules<O>::numbers(options), where);
}
template <class O>
O OptimizerOf<O>::options(size_t group, Location where) const {
  return Rules<O>::options(numbers(group, where));
}
template <class O>
void OptimizerOf<O>::set_options(const Options& options, size_t group, Location where) {
  set_numbers(Rules<O>::numbers(options), group, where);
}
template <class O>
void OptimizerOf<O>::check(const Numbers& numbers, Location where) const {
  std::string mistakes = Rules<O>::mistakes(numbers);
  if (mistakes.empty()) return;
  mistakes.resize(mistakes.size() - 2);
  refuse(mistakes, where);
}
template <class O>
uint32_t OptimizerOf<O>::moments(const Numbers& numbers) const {
  return Rules<O>::moments(numbers);
}
template <class O>
double OptimizerOf<O>::initial_moment(const Numbers& numbers) const {
  return Rules<O>::initial_moment(numbers);
}
template <class O>
void OptimizerOf<O>::update(Location where) {
  const eager::Interceptor* listener = eager::interceptor();
  // Who observes is told of each gradient right before its update.
  const bool together = listener && !listener->observes;
  UpdateRun run(together ? UpdateRun::kMost : 1, where);
  int64_t* count = steps_->count.data();
  for (Slot& s : slots_) {
    int64_t& steps = *count++;
    if (!together) s.parameter.grad();
    const eager::AutogradState* state = eager::autograd_state(s.parameter.impl());
    TensorImpl* gradient = state ? state->grad.get() : nullptr;
    if (!gradient) continue;
    if (!run.goes_on(s.group, steps)) {
      run.flush();
      run.start(s.group, steps);
      Rules<O>::update(run, groups_[s.group], steps, corrections_);
    }
    run.add(s, gradient, steps);
  }
  run.flush();
}

template class OptimizerOf<SGDOptions>;
template class OptimizerOf<AdamOptions>;
template class OptimizerOf<AdamWOptions>;
template class OptimizerOf<AdamaxOptions>;
template class OptimizerOf<NAdamOptions>;
template class OptimizerOf<RAdamOptions>;
template class OptimizerOf<AdagradOptions>;
template class OptimizerOf<RMSpropOptions>;
template class OptimizerOf<LionOptions>;

}  // namespace tandem::optim
