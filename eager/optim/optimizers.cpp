// The numbers of a group lie in the order in which the ops of ops/composite.def take them.
#include "tandem/eager/optim/optimizers.h"

#include <bit>
#include <cmath>

#include "tandem/eager/tape.h"

namespace tandem::optim {

using core::TensorImpl;
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

/// Updates of parameters in a row that share group and step count, as nearly all do: their calls differ in
/// the operands alone. An interceptor that compares calls takes many at once.
class UpdateRun {
 public:
  static constexpr size_t kMost = 32, kOperands = 4, kWords = 8;

  /// `most`: so many are gathered before they are called.
  UpdateRun(size_t most, Location where) : most_(most) { call_.in_place = true, call_.where = where; }
  bool goes_on(size_t group, int64_t steps_before) const { return group == group_ && steps_before == steps_; }
  /// Starts anew: the words of the updates to come.
  void start(size_t group, int64_t steps_before, OpId op, uint32_t n_in) {
    group_ = group, steps_ = steps_before, n_ = 0;
    call_.op = op, call_.n_in = n_in, call_.n_words = 0;
  }
  void word(double v) { words_[call_.n_words++] = std::bit_cast<int64_t>(v); }
  void flag(bool v) { words_[call_.n_words++] = v; }
  void add(const Optimizer::Slot& s, TensorImpl* gradient, int64_t& count) {
    TensorImpl** in = in_ + n_ * call_.n_in;
    in[0] = s.parameter.impl(), in[1] = gradient;
    in[2] = s.moments[0].impl(), in[3] = s.moments[1].impl();  // the next update's, where they are not used
    counts_[n_++] = &count;
    if (n_ == most_) flush();
  }
  /// Calls what was gathered. The counts of complete updates have moved, also if one throws.
  void flush() {
    call_.words = words_;
    for (size_t done = 0; done < n_;) {
      call_.in = in_ + done * call_.n_in;
      size_t now = 0;
      if (eager::Interceptor* i = n_ > 1 ? eager::interceptor() : nullptr) now = i->op_run(call_, n_ - done);
      if (now == 0) eager::call_into(call_, nullptr), now = 1;
      for (; now > 0; --now) *counts_[done++] = steps_ + 1;
    }
    n_ = 0;
  }

 private:
  const size_t most_;
  size_t n_ = 0, group_ = 0;
  int64_t steps_ = -1;  // before the update; -1: none started
  eager::Call call_{};
  TensorImpl* in_[(kMost + 1) * kOperands];
  int64_t words_[kWords];
  int64_t* counts_[kMost];
};

void start_sgd(UpdateRun& run, size_t group, int64_t steps, const Numbers& n) {
  if (n[kMomentum] == 0) {
    run.start(group, steps, OpId::sgd_update, 2);
    run.word(n[kLr]);
    run.word(n[kSgdDecay]);
    return;
  }
  run.start(group, steps, OpId::sgd_momentum_update, 3);
  run.word(n[kLr]);
  run.word(n[kMomentum]);
  run.word(n[kDampening]);
  run.word(n[kSgdDecay]);
  run.flag(n[kNesterov] != 0);
  // The first step fills the buffer with the gradient, undampened. Without dampening a buffer of zeros does
  // the same, and the first step is an op like the later ones.
  run.flag(steps == 0 && n[kDampening] != 0);
}

/// Adam or AdamW.
void start_adam(OpId op, UpdateRun& run, size_t group, int64_t steps, const Numbers& n,
                BiasCorrection* bias) {
  run.start(group, steps, op, 4);
  run.word(n[kLr]);
  run.word(n[kBeta1]);
  run.word(n[kBeta2]);
  run.word(n[kEps]);
  run.word(n[kAdamDecay]);
  run.word(bias[0].at(n[kBeta1], steps + 1));
  run.word(bias[1].at(n[kBeta2], steps + 1));
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
      const Numbers& n = groups_[s.group];
      if constexpr (std::is_same_v<O, SGDOptions>)
        start_sgd(run, s.group, steps, n);
      else
        start_adam(Traits<O>::kOp, run, s.group, steps, n, bias_);
    }
    run.add(s, gradient, steps);
  }
  run.flush();
}

template class OptimizerOf<SGDOptions>;
template class OptimizerOf<AdamOptions>;
template class OptimizerOf<AdamWOptions>;

}  // namespace tandem::optim
