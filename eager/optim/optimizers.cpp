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
double OptimizerOf<O>::product_of(const Numbers& numbers, int64_t steps) const {
  if constexpr (Rules<O>::names().product != nullptr) return Rules<O>::product_of(numbers, steps);
  return 1;
}
/// Whether a group of these numbers goes up its gradients.
template <class O>
bool maximizes(const Optimizer::Numbers& n) {
  if constexpr (requires { Rules<O>::kMaximize; })
    return n[Rules<O>::kMaximize] != 0;
  else
    return false;
}
template <class O>
void OptimizerOf<O>::update(Location where) {
  const eager::Interceptor* listener = eager::interceptor();
  // Who observes is told of each gradient right before its update.
  const bool together = listener && !listener->observes;
  UpdateRun run(together ? UpdateRun::kMost : 1, where);
  constexpr bool multiplies = Rules<O>::names().product != nullptr;
  int64_t* count = steps_->count.data();
  double* next_product = products_.data();
  for (Slot& s : slots_) {
    int64_t& steps = *count++;
    double* const product = multiplies ? next_product++ : nullptr;
    if (!together) s.parameter.grad();
    const eager::AutogradState* state = eager::autograd_state(s.parameter.impl());
    TensorImpl* gradient = state ? state->grad.get() : nullptr;
    if (!gradient) continue;
    const UpdateRun::Before before{s.group, steps, product ? *product : 1};
    if (!run.goes_on(before)) {
      run.flush();
      corrections_.product = before.product;
      Rules<O>::update(run, groups_[s.group], steps, corrections_);
      run.start(before, corrections_.product);
    }
    if (maximizes<O>(groups_[s.group]))
      run.add_up(s, gradient, &steps, product);
    else
      run.add(s, gradient, &steps, product);
  }
  run.flush();
}

// Per count of the device: the numbers of this step, computed there, make a guard; then the updates with it;
// then the count moves.
template <class O>
void OptimizerOf<O>::update_unless(const Tensor& skip, Location where) {
  std::vector<size_t> taking_part;
  for (size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].parameter.grad().defined()) taking_part.push_back(i);
  device_counts_.take_over(taking_part, group_of(), steps_->count, products_);
  struct Guards {
    Tensor narrow, wide;  // float32, float64
    Tensor product;       // after this step; undefined: it does not move
  };
  std::vector<Guards> guards(device_counts_.size());
  const Tensor skipped = ne(Operand(skip, where), Operand(0, where)).to(float64, where);
  const auto guard_of = [&](int c, DType type) -> const Tensor& {
    Guards& g = guards[static_cast<size_t>(c)];
    if (!g.wide.defined()) {
      DeviceCounts::Count& count = device_counts_[c];
      std::vector<Tensor> numbers{skipped};
      const Tensor now = add(Operand(count.steps, where), Operand(1.0, where));
      g.product = Rules<O>::step_numbers(groups_[count.group], {now, count.product, where}, numbers);
      g.wide = numbers.size() == 1 ? skipped : cat(numbers, 0, where);
    }
    if (type == float64) return g.wide;
    if (!g.narrow.defined()) g.narrow = g.wide.to(float32, where);
    return g.narrow;
  };
  UpdateRun run(UpdateRun::kMost, where);
  for (const size_t i : taking_part) {
    const Slot& s = slots_[i];
    const int c = device_counts_.of(i);
    const Tensor& guard = guard_of(c, s.parameter.dtype());
    if (const UpdateRun::Before before{s.group, c}; !run.goes_on(before)) {
      run.flush();
      run.start(before);
      Corrections unused;  // the guard has them
      Rules<O>::update(run, groups_[s.group], 1, unused);
    }
    TensorImpl* const gradient = s.parameter.grad().impl();
    if (maximizes<O>(groups_[s.group]))
      run.add_up(s, gradient, nullptr, nullptr, guard.impl());
    else
      run.add(s, gradient, nullptr, nullptr, guard.impl());
  }
  run.flush();
  const Tensor moved = sub(Operand(1.0, where), Operand(skipped.reshape({}, where), where));
  for (size_t c = 0; c < guards.size(); ++c) {
    if (!guards[c].wide.defined()) continue;
    DeviceCounts::Count& count = device_counts_[static_cast<int>(c)];
    count.steps.add_(Operand(moved, where));
    if (guards[c].product.defined())
      count.product.copy_(tandem::where(Operand(moved, where), Operand(guards[c].product, where),
                                        Operand(count.product, where)),
                          where);
  }
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
