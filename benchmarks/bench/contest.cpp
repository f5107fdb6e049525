#include "benchmarks/bench/contest.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/memory.h"

namespace bench {

namespace {

/// Appends a part for each parameter: its gradient's norm, and samples of it.
void append_gradients(const Training& training, Answer& answer) {
  for (const td::Tensor& p : training.net.module->parameters()) {
    const std::vector<double> all = p.grad().to_vector<double>();
    const auto n = static_cast<int64_t>(all.size());
    std::vector<double>& part = answer.emplace_back(1);
    for (const double v : all) part[0] += v * v;
    part[0] = std::sqrt(part[0]);
    for (int64_t i = 0; i < std::min(n, kSamples); ++i)
      part.push_back(all[static_cast<size_t>(n <= kSamples ? i : sample(i, n))] *
                     std::sqrt(static_cast<double>(n)));
  }
}
/// Steps of the gate: losses go to the first part, gradients behind it.
template <class Step>
void run(Step&& step, const Training& training, int64_t from, int64_t to, bool exact, Answer& answer) {
  answer.resize(std::max<size_t>(answer.size(), 1));
  for (int64_t i = from; i < to; ++i) {
    answer[0].push_back(step(training.batch(i)).template item<double>());
    if (compares_gradients(i, exact && training.recipe.gate_steps == kGateSteps))
      append_gradients(training, answer);
  }
}
template <class Step>
void run(Step&& step, const Training& training, int64_t from, int64_t to, Answer& answer) {
  run(step, training, from, to, training.recipe.precision == Precision::float32, answer);
}
/// Steps whose results nobody asks for.
template <class Step>
void run(Step&& step, const Training& training, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; ++i) step(training.batch(i));
}
/// Times calls that go round the ring.
template <class Step>
double time_ring(Step&& step, const Training& training, int calls) {
  int64_t i = 0;
  return time_us_on(training.device, calls, [&] { step(training.batch(i++)); });
}

struct Trained {
  std::shared_ptr<Training> training;
  td::Tensor operator()(const Batch& batch) const { return training->step(batch); }
};
using Traced = td::TracedFunction<Trained>;
using FrozenStep = td::Frozen<Trained>;
constexpr int kBeforeFreezing = 2;  // calls: the first makes what later ones find
static_assert(compares_gradients(kBeforeFreezing, true));

/// The step eagerly, checked and frozen, each with a network of its own or all with one.
struct Contest {
  explicit Contest(const Recipe& recipe, td::Device device)
      : eager{std::make_shared<Training>(recipe, device)},
        checked(recipe.shared ? eager : Trained{std::make_shared<Training>(recipe, device)}),
        frozen(recipe.shared ? eager : Trained{std::make_shared<Training>(recipe, device)}),
        traced(checked, {.name = "step"}) {}

  Answer gate_eager() const {
    return gate(*eager.training, [&](int steps, Answer& a) { run(eager, *eager.training, 0, steps, a); });
  }
  Answer gate_traced() {
    return gate(*checked.training,
                [&](int steps, Answer& a) { run(traced, *checked.training, 0, steps, a); });
  }
  /// Freezing makes the learning rate a constant: once for the gate, again for the timed calls.
  Answer gate_frozen() {
    frozen_step.reset();
    const Answer answer = gate(*frozen.training, [&](int steps, Answer& a) {
      Traced first(frozen, {.name = "step"});
      run(first, *frozen.training, 0, kBeforeFreezing, a);
      FrozenStep step = first.freeze();
      run(step, *frozen.training, kBeforeFreezing, steps, a);
    });
    Traced second(frozen, {.name = "step"});
    run(second, *frozen.training, 0, kBeforeFreezing);
    frozen_step.emplace(second.freeze());
    return answer;
  }

  Trained eager, checked, frozen;
  Traced traced;
  std::optional<FrozenStep> frozen_step;

 private:
  /// From the first weights; from then on nothing converges.
  template <class Steps>
  static Answer gate(Training& training, Steps&& steps) {
    Answer answer;
    if (training.recipe.shared) training.reset();
    steps(training.recipe.gate_steps, answer);
    training.opt->set_lr(kTimedLr);
    return answer;
  }
};

Answer reference(const std::string& name, td::DType dtype) {
  Recipe exact = recipe(name);
  const bool in_float32 = exact.precision == Precision::float32;
  exact.precision = Precision::float32;
  const Trained step{std::make_shared<Training>(exact, td::cpu, dtype)};
  Answer answer;
  run(step, *step.training, 0, exact.gate_steps, in_float32, answer);
  return answer;
}

/// What the eager step allocates at its highest, beyond what lives between steps without gradients.
double eager_private_bytes(const std::string& name, td::Device device) {
  const Trained step{std::make_shared<Training>(recipe(name), device)};
  run(step, *step.training, 0, 3);
  step.training->opt->zero_grad();
  td::reset_peak_memory(device);
  const int64_t between = td::device_memory(device).live_bytes;
  run(step, *step.training, 3, 6);
  return static_cast<double>(td::device_memory(device).peak_bytes - between);
}

}  // namespace

Workload training_workload(const std::string& name, const std::string& section, const std::string& what,
                           td::DType reference_dtype, const Work& work) {
  Workload w;
  w.name = name, w.section = section, w.what = what;
  w.gradient_tolerance = 1e-3;
  w.reference = [=] { return reference(name, reference_dtype); };
  w.eager_private_bytes = [=](td::Device device) { return eager_private_bytes(name, device); };
  const auto alive = std::make_shared<std::weak_ptr<Contest>>();
  w.prepare = [=](const Setting& setting) {
    const Recipe r = recipe(name);
    std::shared_ptr<Contest> contest = alive->lock();
    if (!contest || !r.shared) contest = std::make_shared<Contest>(r, setting.device);
    *alive = contest;
    Prepared p;
    const auto ours = [&](const char* who, auto time, auto answer) {
      p.contestants.push_back({who, Side::ours, setting.threads, time, answer});
    };
    ours(
        "traced", [=](int n) { return time_ring(contest->traced, *contest->checked.training, n); },
        [=] { return contest->gate_traced(); });
    ours(
        "frozen", [=](int n) { return time_ring(*contest->frozen_step, *contest->frozen.training, n); },
        [=] { return contest->gate_frozen(); });
    ours(
        "eager", [=](int n) { return time_ring(contest->eager, *contest->eager.training, n); },
        [=] { return contest->gate_eager(); });
    if (setting.device == td::cpu && !work.products.empty()) {
      const std::function<void()> products = alone(work.products, work.convolutions);
      p.contestants.push_back({"products alone", Side::part, setting.threads,
                               [=](int n) { return time_us(n, products); }, nullptr});
    }
    int64_t gradient_bytes = 0;
    for (const td::Tensor& t : contest->checked.training->net.module->parameters())
      gradient_bytes += t.numel() * td::itemsize(t.dtype());
    p.facts = [=] {
      const td::TraceReport r = contest->traced.report();
      const auto number = [](int64_t n) { return static_cast<double>(n); };
      return std::map<std::string, double>{
          {"plan entries", number(r.entries)},
          {"graph nodes", number(r.graph_nodes)},
          {"kernels", number(r.kernels)},
          {"products", number(r.products)},
          {"natives", number(r.natives)},
          {"plan's bytes with gradients", number(r.arena_bytes + r.escaping_bytes)},
          {"gradients' bytes", number(gradient_bytes)},
          {"plan's bytes moved", number(r.bytes_moved)},
          {"bytes moved unfused", number(r.bytes_unfused)},
          {"recorded", number(r.recorded)},
          {"op by op", number(r.op_by_op + r.eager_calls)},
      };
    };
    return p;
  };
  return w;
}

}  // namespace bench
