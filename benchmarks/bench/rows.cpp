// Row and pointwise kernels on 2^22 floats (protocol 5.a and 5.b): forward, and backward alone, which starts
// from what one forward kept; besides, a traced backward that computes its forward again.
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/pattern.h"
#include "benchmarks/bench/workload.h"
#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

namespace {

using td::Tensor;
using td::TensorList;

constexpr int64_t kRows = 4096, kColumns = 1024, kCount = kRows * kColumns;
constexpr double kPass = 4.0 * kCount;  // bytes
constexpr int kSeed = 5;

/// Samples of a tensor, by a stride that the peers use, too; all of a small one.
std::vector<double> samples(const Tensor& t) {
  const std::vector<double> all = t.to_vector<double>();
  const auto n = static_cast<int64_t>(all.size());
  if (n <= kSamples) return all;
  std::vector<double> some;
  for (int64_t i = 0; i < kSamples; ++i) some.push_back(all[static_cast<size_t>(sample(i, n))]);
  return some;
}
/// What is alike whatever is drawn: the mean and the share of zeros.
std::vector<double> statistics(const Tensor& t) {
  double sum = 0, zeros = 0;
  const std::vector<float> all = t.to_vector<float>();
  for (const float v : all) sum += v, zeros += v == 0;
  return {sum / static_cast<double>(all.size()), zeros / static_cast<double>(all.size())};
}

/// The operands, all made from the pattern: x (4096, 1024), a gradient of its shape, two rows, and labels.
struct Operands {
  explicit Operands(td::Device device, td::DType dtype) {
    const auto make = [&](int64_t n, uint32_t seed, double scale, const td::Dims& sizes) {
      const std::vector<float> v = values(n, seed, scale);
      return td::tensor(std::span<const float>(v), sizes).to(dtype).to(device);
    };
    x = make(kCount, kInputs, 3, {kRows, kColumns});
    dy = make(kCount, kInputs + 1, 1, {kRows, kColumns});
    weight = make(kColumns, kInputs + 2, 1, kColumns);
    bias = make(kColumns, kInputs + 3, 1, kColumns);
    y = td::tensor(labels(kRows, kLabels, kColumns)).to(device);
  }
  Tensor x, dy, weight, bias, y;
};

struct Kernel {
  std::string name, what, section;
  std::function<Tensor(const Operands&)> forward;
  std::function<TensorList(const Operands&)> leaves;  // whose gradients are asked for, x first
  bool reduced = false;                               // to one number: its gradient is 1
  bool random = false;
  double forward_passes = 2, backward_passes = 3;
  double forward_share = 0, backward_share = 0;  // bars
  std::string forward_open = {}, backward_open = {};
};

std::vector<Kernel> kernels() {
  const auto x_alone = [](const Operands& o) { return TensorList{o.x}; };
  const auto with_bias = [](const Operands& o) { return TensorList{o.x, o.bias}; };
  return {
      {.name = "softmax",
       .what = "softmax of rows",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::softmax(o.x, -1); },
       .leaves = x_alone,
       .forward_share = 0.70,
       .backward_share = 0.70,
       .forward_open =
           "the compiled kernel takes 1.2 times as long as the interpreted one; next: what its walks over a "
           "row do that the evaluator's do not"},
      {.name = "layer_norm",
       .what = "layer norm of rows with weight and bias",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::layer_norm(o.x, 1, o.weight, o.bias); },
       .leaves =
           [](const Operands& o) {
             return TensorList{o.x, o.weight, o.bias};
           },
       .forward_share = 0.85,
       .backward_share = 0.70,
       .backward_open =
           "rows are read twice: for the input's gradient, and by columns for those of weight and bias; "
           "next: one pass that keeps partial sums of the columns"},
      {.name = "cross_entropy",
       .what = "cross-entropy of rows, mean",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::cross_entropy(o.x, o.y); },
       .leaves = x_alone,
       .reduced = true,
       .forward_passes = 1,
       .backward_passes = 2,
       .forward_share = 0.40,
       .backward_share = 0.70,
       .backward_open =
           "exp is computed again from the logits; next: nothing but its price, 2 passes are the least"},
      {.name = "gelu",
       .what = "bias and GELU by tanh",
       .section = "5.a",
       .forward = [](const Operands& o) { return td::gelu(o.x + o.bias, true); },
       .leaves = with_bias,
       .forward_share = 0.55,
       .backward_share = 0.40,
       .forward_open =
           "tanh is as dear as the copy itself; next: its exp and division on fewer instructions"},
      {.name = "gelu_dropout",
       .what = "bias, GELU by tanh and dropout of 0.1",
       .section = "5.a",
       .forward = [](const Operands& o) { return td::dropout(td::gelu(o.x + o.bias, true), 0.1); },
       .leaves = with_bias,
       .random = true,
       .forward_share = 0.45,
       .backward_share = 0.40,
       .forward_open = "Philox takes longer than GELU; next: its rounds on whole vectors",
       .backward_open =
           "draws again, and the bias's gradient reads the input's once more; next: partial sums of the "
           "columns in the pass that writes it"},
  };
}

/// One kernel's operands with their ways to compute it.
struct Contest {
  Contest(const Kernel& kernel, td::Device device, td::DType dtype) : kernel(kernel), o(device, dtype) {}

  Tensor forward() const { return kernel.forward(o); }
  /// From now on leaves want gradients; runs the forward that `gradients_of_kept` starts from.
  void want_gradients() {
    for (const Tensor& leaf : kernel.leaves(o)) leaf.requires_grad_();
    td::manual_seed(kSeed);
    kept = forward();
  }
  TensorList gradients(const Tensor& y, bool retain) const {
    const TensorList leaves = kernel.leaves(o);
    if (kernel.reduced) return td::autograd::grad(std::span(&y, 1), leaves, {}, retain);
    return td::autograd::grad(std::span(&y, 1), leaves, std::span(&o.dy, 1), retain);
  }
  TensorList backward() const {
    const Tensor y = forward();
    return gradients(y, false);
  }
  TensorList gradients_of_kept() const { return gradients(kept, true); }

  Kernel kernel;
  Operands o;
  Tensor kept;
};

Answer answer(const Kernel& kernel, const TensorList& results) {
  Answer parts;
  if (kernel.random) parts.push_back(statistics(results[0]));
  for (const Tensor& t : results) parts.push_back(samples(t));
  return parts;
}

template <class F>
Contestant contestant(const std::string& name, const Kernel& kernel, int threads, F f) {
  return {name, Side::ours, threads, [f](int calls) mutable { return time_us(calls, [&] { f(); }); },
          [f, kernel]() mutable {
            td::manual_seed(kSeed);
            return answer(kernel, f());
          }};
}
std::function<std::map<std::string, double>()> facts(const std::function<td::TraceReport()>& report) {
  return [report] {
    const td::TraceReport r = report();
    return std::map<std::string, double>{{"plan entries", static_cast<double>(r.entries)},
                                         {"graph nodes", static_cast<double>(r.graph_nodes)},
                                         {"kernels", static_cast<double>(r.kernels)},
                                         {"plan's bytes moved", static_cast<double>(r.bytes_moved)},
                                         {"recorded", static_cast<double>(r.recorded)},
                                         {"op by op", static_cast<double>(r.op_by_op + r.eager_calls)}};
  };
}

Workload workload(const Kernel& kernel, bool backward) {
  Workload w;
  w.name = kernel.name + (backward ? "_backward" : "");
  w.section = kernel.section;
  w.what = kernel.what + (backward ? ": gradients" : "");
  w.bytes = (backward ? kernel.backward_passes : kernel.forward_passes) * kPass;
  w.counted = std::string("passes over 2^22 floats: ") + (kernel.reduced ? "the logits" : "the input") +
              (backward ? (kernel.reduced ? " and their gradient" : ", the result's gradient and the input's")
                        : (kernel.reduced ? " alone" : " and the result"));
  w.tolerance = kernel.random ? 5e-3 : 1e-3;
  // What is drawn depends on the dtype.
  const td::DType dtype = kernel.random ? td::float32 : td::float64;
  w.reference = [=] {
    Contest contest(kernel, td::cpu, dtype);
    if (backward) contest.want_gradients();
    td::manual_seed(kSeed);
    return answer(kernel, backward ? contest.backward() : TensorList{contest.forward()});
  };
  w.prepare = [=](const Setting& setting) {
    const auto c = std::make_shared<Contest>(kernel, setting.device, td::float32);
    if (backward) c->want_gradients();
    const auto eager = [=] { return backward ? c->gradients_of_kept() : TensorList{c->forward()}; };
    const auto traced = td::trace(eager, {.name = kernel.name});
    Prepared p;
    p.contestants = {contestant("traced", kernel, setting.threads, traced),
                     contestant("eager", kernel, setting.threads, eager)};
    if (backward)
      p.contestants.push_back(contestant("traced with its forward", kernel, setting.threads,
                                         td::trace([=] { return c->backward(); }, {.name = kernel.name})));
    p.facts = facts([traced] { return traced.report(); });
    return p;
  };
  w.open = backward ? kernel.backward_open : kernel.forward_open;
  w.bars = {{Bar::Of::share_of_copy, backward ? kernel.backward_share : kernel.forward_share, ""},
            {Bar::Of::times_faster, 1, "PyTorch"},
            {Bar::Of::times_faster, 1, "LibTorch"}};
  return w;
}

}  // namespace

std::vector<Workload> row_workloads() {
  std::vector<Workload> all;
  for (const Kernel& k : kernels())
    for (const bool backward : {false, true}) all.push_back(workload(k, backward));
  return all;
}

}  // namespace bench
