// Training steps (protocol 5.c and 5.j): forward, backward and update in one call, on a ring of batches,
// beside the step's products alone.
#include <optional>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/products.h"
#include "benchmarks/bench/training.h"
#include "benchmarks/bench/workload.h"
#include "tandem/core/allocator.h"
#include "tandem/core/error.h"

namespace bench {

namespace {

using Optimizers =
    std::function<std::unique_ptr<td::optim::Optimizer>(const std::vector<td::Tensor>&, double)>;

template <class Optimizer, class Options>
Optimizers optimizer() {
  return [](const std::vector<td::Tensor>& parameters, double lr) {
    return std::make_unique<Optimizer>(parameters, Options{.lr = lr});
  };
}
template <class Module, class... Args>
std::function<Net()> net(Args... args) {
  return [=] {
    const auto module = std::make_shared<Module>(args...);
    return Net{module, [at = module.get()](const td::Tensor& x) { return at->forward(x); }};
  };
}

constexpr TransformerSizes kGpt{4, 128, 4, 64, 65, true};
constexpr int64_t kGptBatch = 12;

std::map<std::string, Recipe> recipes() {
  const Optimizers adam = optimizer<td::optim::Adam, td::optim::AdamOptions>();
  const Optimizers adamw = optimizer<td::optim::AdamW, td::optim::AdamWOptions>();
  const Optimizers sgd = optimizer<td::optim::SGD, td::optim::SGDOptions>();
  constexpr TransformerSizes host{12, 16, 2, 8, 32, false};
  return {{"mlp784", {net<Mlp>(784), adam, {64, 784}, 0, 64, 10}},
          {"mlp64", {net<Mlp>(64), adam, {64, 64}, 0, 64, 10}},
          {"cnn", {net<Cnn>(), sgd, {64, 1, 28, 28}, 0, 64, 10, 1e-2}},
          {"gpt",
           {net<Transformer>(kGpt),
            adamw,
            {kGptBatch, kGpt.length},
            kGpt.words,
            kGptBatch * kGpt.length,
            kGpt.words}},
          {"host_mlp", {net<Mlp>(64), adamw, {64, 64}, 0, 64, 10, kTimedLr}},
          {"host_transformer", {net<Transformer>(host), adamw, {2, 8}, 32, 16, 32, kTimedLr}}};
}

using Losses = std::vector<double>;

template <class Step>
void run(Step&& step, const Training& training, int64_t from, int64_t to, Losses& losses) {
  for (int64_t i = from; i < to; ++i)
    losses.push_back(step(training.batch(i).x, training.batch(i).y).template item<double>());
}
/// Times calls that go round the ring.
template <class Step>
double time_ring(Step&& step, const Training& training, int calls) {
  int64_t i = 0;
  return time_us(calls, [&] {
    const Batch& b = training.batch(i++);
    step(b.x, b.y);
  });
}

/// The step eagerly, checked and frozen, each with a network of its own.
struct Trained {
  std::shared_ptr<Training> training;
  td::Tensor operator()(const td::Tensor& x, const td::Tensor& y) const { return training->step(x, y); }
};
using Traced = td::TracedFunction<Trained>;
using FrozenStep = td::Frozen<Trained>;
constexpr int kBeforeFreezing = 4;  // calls: the first makes what later ones find

struct Contest {
  explicit Contest(const Recipe& recipe, td::Device device)
      : eager{std::make_shared<Training>(recipe, device)},
        checked{std::make_shared<Training>(recipe, device)},
        frozen{std::make_shared<Training>(recipe, device)},
        traced(checked, {.name = "step"}) {}

  Losses gate_eager() const {
    Losses losses;
    run(eager, *eager.training, 0, kGateSteps, losses);
    eager.training->opt->set_lr(kTimedLr);
    return losses;
  }
  Losses gate_traced() {
    Losses losses;
    run(traced, *checked.training, 0, kGateSteps, losses);
    checked.training->opt->set_lr(kTimedLr);
    return losses;
  }
  /// Freezing makes the learning rate a constant: once for the gate, again for the timed calls.
  Losses gate_frozen() {
    Losses losses;
    Traced first(frozen, {.name = "step"});
    run(first, *frozen.training, 0, kBeforeFreezing, losses);
    FrozenStep step = first.freeze();
    run(step, *frozen.training, kBeforeFreezing, kGateSteps, losses);
    frozen.training->opt->set_lr(kTimedLr);
    Traced second(frozen, {.name = "step"});
    Losses ignored;
    run(second, *frozen.training, 0, kBeforeFreezing, ignored);
    frozen_step.emplace(second.freeze());
    return losses;
  }

  Trained eager, checked, frozen;
  Traced traced;
  std::optional<FrozenStep> frozen_step;
};

Losses reference(const std::string& name, td::DType dtype) {
  const Trained step{std::make_shared<Training>(recipe(name), td::cpu, dtype)};
  Losses losses;
  run(step, *step.training, 0, kGateSteps, losses);
  return losses;
}

/// What the eager step allocates at its highest, beyond what lives between steps without gradients.
double eager_private_bytes(const std::string& name) {
  const Trained step{std::make_shared<Training>(recipe(name))};
  Losses losses;
  run(step, *step.training, 0, 3, losses);
  step.training->opt->zero_grad();
  const int64_t between = td::core::allocator_stats().live_bytes;
  run(step, *step.training, 3, 6, losses);
  return static_cast<double>(td::core::allocator_stats().peak_bytes - between);
}

struct Work {
  std::vector<Product> products;
  std::vector<td::ops::ConvolutionShape> convolutions;
};

Workload training_workload(const std::string& name, const std::string& section, const std::string& what,
                           td::DType reference_dtype, const Work& work) {
  Workload w;
  w.name = name, w.section = section, w.what = what;
  w.reference = [=] { return Answer{reference(name, reference_dtype)}; };
  w.eager_private_bytes = [=] { return eager_private_bytes(name); };
  w.prepare = [=](const Setting& setting) {
    const auto contest = std::make_shared<Contest>(recipe(name), setting.device);
    Prepared p;
    const auto ours = [&](const char* who, auto time, auto answer) {
      p.contestants.push_back({who, Side::ours, setting.threads, time, answer});
    };
    ours(
        "traced", [=](int n) { return time_ring(contest->traced, *contest->checked.training, n); },
        [=] { return Answer{contest->gate_traced()}; });
    ours(
        "frozen", [=](int n) { return time_ring(*contest->frozen_step, *contest->frozen.training, n); },
        [=] { return Answer{contest->gate_frozen()}; });
    ours(
        "eager", [=](int n) { return time_ring(contest->eager, *contest->eager.training, n); },
        [=] { return Answer{contest->gate_eager()}; });
    if (setting.device == td::cpu) {
      const std::function<void()> products = alone(work.products, work.convolutions);
      p.contestants.push_back({"products alone", Side::part, setting.threads,
                               [=](int n) { return time_us(n, products); }, nullptr});
    }
    p.facts = [=] {
      const td::TraceReport r = contest->traced.report();
      const auto number = [](int64_t n) { return static_cast<double>(n); };
      return std::map<std::string, double>{
          {"plan entries", number(r.entries)},
          {"graph nodes", number(r.graph_nodes)},
          {"kernels", number(r.kernels)},
          {"products", number(r.products)},
          {"natives", number(r.natives)},
          {"plan's private bytes", number(r.arena_bytes + r.escaping_bytes)},
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

using Of = Bar::Of;

Workload mlp(const std::string& name, int64_t in, double over_libtorch) {
  Work work;
  add_linear(work.products, 64, in, 256, false);
  add_linear(work.products, 64, 256, 128, true);
  add_linear(work.products, 64, 128, 10, true);
  Workload w = training_workload(
      name, "5.c, 5.j", std::to_string(in) + "-256-128-10 with ReLU, batch 64, Adam: a training step",
      td::float64, work);
  const double inner = 256 * 128 + 128 * 10, first = static_cast<double>(in) * 256;
  const double parameters = first + 256 + inner + 128 + 10;
  w.flop = 2 * 64 * (3 * inner + 2 * first);
  w.bytes = 24 * parameters + 4 * 64 * static_cast<double>(in);
  w.counted =
      "two FLOP a multiplication and addition, no gradient of the input; 24 bytes a parameter (weight and "
      "two moments, read and written) and the batch once";
  w.bars = {{Of::at_most_times, 1.5, "products alone", 1},
            {Of::at_most_times, 1.7, "products alone", 2},
            {Of::times_faster, over_libtorch, "LibTorch", 1},
            {Of::times_faster, 3.5, "LibTorch", 2},
            {Of::times_faster, 2, "PyTorch eager"},
            {Of::times_faster, 1.5, "PyTorch compile"},
            {Of::at_most_times, 1.03, "frozen"}};
  w.eager_private_bytes = nullptr;  // its blocks are too small for the allocator to count
  return w;
}

Workload cnn() {
  Work work;
  add_linear(work.products, 64, 3136, 128, true);
  add_linear(work.products, 64, 128, 10, true);
  using td::ops::ConvolutionDirection;
  const auto convolution = [&](int64_t channels, int64_t outputs, int64_t size, bool input_gradient) {
    td::ops::ConvolutionShape s;
    s.batch = 64, s.channels = channels, s.outputs = outputs;
    for (int d = 1; d < td::ops::kConvolutionAxes; ++d)
      s.in[d] = s.out[d] = size, s.kernel[d] = 3, s.padding[d] = 1;
    for (const auto direction :
         {ConvolutionDirection::forward, ConvolutionDirection::weight, ConvolutionDirection::input}) {
      s.direction = direction;
      if (direction != ConvolutionDirection::input || input_gradient) work.convolutions.push_back(s);
    }
  };
  convolution(1, 32, 28, false);
  convolution(32, 64, 14, true);
  Workload w = training_workload(
      "cnn", "5.j", "conv32 3x3, pool, conv64 3x3, pool, 128, 10 on (64, 1, 28, 28), SGD: a training step",
      td::float32, work);
  const double conv1 = 2.0 * 64 * 28 * 28 * 9 * 32, conv2 = 2.0 * 64 * 14 * 14 * 9 * 32 * 64;
  const double linear = 2.0 * 64 * (3136 * 128 + 128 * 10);
  const double parameters = 9 * 32 + 32 + 9 * 32 * 64 + 64 + 3136 * 128 + 128 + 1280 + 10;
  // What convolutions and pools give, each written once and read once in either direction.
  const double kept = 64 * (32.0 * 28 * 28 + 32 * 14 * 14 + 64 * 14 * 14 + 64 * 7 * 7);
  w.flop = 2 * conv1 + 3 * conv2 + 3 * linear;
  w.bytes = 8 * parameters + 4 * (64.0 * 784 + 3 * kept);
  w.counted =
      "two FLOP a multiplication and addition, no gradient of the images; 8 bytes a parameter, the images "
      "once, results of convolutions and pools three times";
  w.open =
      "next: results of convolutions in oneDNN's layout up to the pooling behind them, its gradients in that "
      "layout from the start";
  w.bars = {{Of::times_faster, 2.5, "LibTorch", 1},
            {Of::times_faster, 1.5, "PyTorch eager"},
            {Of::times_faster, 1.2, "PyTorch compile"},
            {Of::at_most_times, 1.03, "frozen"},
            {Of::fact_at_most, 1, "private bytes over eager's"}};
  return w;
}

Workload gpt() {
  constexpr int64_t c = kGpt.width, rows = kGptBatch * kGpt.length, heads = kGpt.heads * kGptBatch;
  constexpr int64_t t = kGpt.length, size = kGpt.width / kGpt.heads;
  constexpr int layers = kGpt.layers;
  Work work;
  for (const auto& [in, out] : {std::pair{c, 3 * c}, {c, c}, {c, 4 * c}, {4 * c, c}})
    add_linear(work.products, rows, in, out, true, layers);
  add_linear(work.products, rows, c, kGpt.words, true);
  // Scores and their mix forward; gradients of values, probabilities, queries and keys.
  work.products.push_back({t, t, size, false, true, heads, layers});
  work.products.push_back({t, size, t, false, false, heads, layers});
  work.products.push_back({t, size, t, true, false, heads, layers});
  work.products.push_back({t, t, size, false, true, heads, layers});
  work.products.push_back({t, size, t, false, false, heads, layers});
  work.products.push_back({t, size, t, true, false, heads, layers});
  Workload w = training_workload(
      "gpt", "5.j", "4 layers, 4 heads, 128 wide, 65 words, batch 12 of 64, AdamW: a training step",
      td::float64, work);
  const double layer = 12.0 * c * c, head = static_cast<double>(c) * kGpt.words;
  const double parameters =
      layers * (layer + 9.0 * c + 4.0 * c) + head + static_cast<double>(t * c) + 2.0 * c;
  w.flop = 6.0 * rows * (layers * layer + head) + 3.0 * layers * 4.0 * t * t * size * heads;
  w.bytes = 24 * parameters + 2 * 4.0 * rows * layers * (13.0 * c + kGpt.heads * t);
  w.counted =
      "two FLOP a multiplication and addition, attention whole; 24 bytes a parameter, and what a layer keeps "
      "for its gradient (13 widths and the probabilities a row) written and read once";
  w.open =
      "the plan counts its gradients, eager mode's small ones are not counted; next: what dies inside "
      "backward";
  w.bars = {{Of::at_most_times, 1.4, "products alone", 1},      {Of::times_faster, 2, "LibTorch AVX2", 1},
            {Of::times_faster, 1.7, "LibTorch AVX-512", 1},     {Of::times_faster, 2, "PyTorch eager"},
            {Of::times_faster, 1.3, "PyTorch compile"},         {Of::at_most_times, 1.03, "frozen"},
            {Of::fact_at_most, 1, "private bytes over eager's"}};
  return w;
}

}  // namespace

const Recipe& recipe(const std::string& workload) {
  static const std::map<std::string, Recipe> all = recipes();
  const auto at = all.find(workload);
  if (at == all.end()) td::fail("bench: no training step is called '" + workload + "'", td::Location::here());
  return at->second;
}

std::vector<Workload> training_workloads() {
  return {mlp("mlp784", 784, 3), mlp("mlp64", 64, 2.75), cnn(), gpt()};
}

}  // namespace bench
