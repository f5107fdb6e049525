// Row and pointwise kernels on 2^22 floats (protocol 5.a and 5.b): forward, and backward alone, which starts
// from what one forward kept; besides, a traced backward that computes its forward again.
#include <memory>
#include <sstream>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/pattern.h"
#include "benchmarks/bench/workload.h"
#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

namespace {

using td::Tensor;
using td::TensorList;

constexpr int kSeed = 5;

/// Of x; other than the default they stand in the row's name: "_64x3072", "_16384x3072_bf16".
struct Shape {
  int64_t rows = 4096, columns = 1024;
  td::DType dtype = td::float32;
  double pass() const { return static_cast<double>(rows * columns * td::itemsize(dtype)); }  // bytes
  std::string suffix() const {
    std::ostringstream text;
    if (rows != 4096 || columns != 1024) text << '_' << rows << 'x' << columns;
    text << (dtype == td::bfloat16 ? "_bf16" : "");
    return text.str();
  }
};

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

/// The operands, all made from the pattern: x (rows, columns), a gradient of its shape, two rows, and labels;
/// rounded to the shape's dtype, then in `dtype`.
struct Operands {
  explicit Operands(td::Device device, const Shape& s, td::DType dtype) {
    const auto make = [&](int64_t n, uint32_t seed, double scale, const td::Dims& sizes) {
      const std::vector<float> v = values(n, seed, scale);
      return td::tensor(std::span<const float>(v), sizes).to(s.dtype).to(dtype).to(device);
    };
    x = make(s.rows * s.columns, kInputs, 3, {s.rows, s.columns});
    dy = make(s.rows * s.columns, kInputs + 1, 1, {s.rows, s.columns});
    weight = make(s.columns, kInputs + 2, 1, s.columns);
    bias = make(s.columns, kInputs + 3, 1, s.columns);
    y = td::tensor(labels(s.rows, kLabels, static_cast<uint32_t>(s.columns))).to(device);
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
           "an exp and a division an element, and a row read three times from the cache, against a "
           "copy past the caches; next: fewer instructions an exp",
       .backward_open =
           "a row is read twice, the second time from the cache, against a copy past the caches; "
           "next: its walks together for two rows"},
      {.name = "layer_norm",
       .what = "layer norm of rows with weight and bias",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::layer_norm(o.x, 1, o.weight, o.bias); },
       .leaves =
           [](const Operands& o) {
             return TensorList{o.x, o.weight, o.bias};
           },
       .forward_share = 0.85,
       .backward_share = 0.85,
       .forward_open =
           "three walks over a row, two of them in the cache, against a copy past the caches; rows "
           "fetched ahead made it slower; next: two rows at a time",
       .backward_open = "three walks over a row that is in the cache; next: two rows at a time"},
      {.name = "rms_norm",
       .what = "RMS norm of rows with weight",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::rms_norm(o.x, 1, o.weight, 1e-5); },
       .leaves =
           [](const Operands& o) {
             return TensorList{o.x, o.weight};
           },
       .forward_share = 0.85,
       .backward_share = 0.85,
       .forward_open =
           "as layer norm: walks over a row that is in the cache, against a copy past the caches; "
           "next: two rows at a time",
       .backward_open = "as layer norm: walks over a row that is in the cache; next: two rows at a time"},
      {.name = "cross_entropy",
       .what = "cross-entropy of rows, mean",
       .section = "5.b",
       .forward = [](const Operands& o) { return td::cross_entropy(o.x, o.y); },
       .leaves = x_alone,
       .reduced = true,
       .forward_passes = 1,
       .backward_passes = 2,
       .forward_share = 0.40,
       .backward_share = 0.90,
       .forward_open = "an exp for 4 bytes, of which nothing is stored: arithmetic, not memory; next: fewer "
                       "instructions an exp",
       .backward_open = "an exp and a comparison of labels an element, against a copy past the caches; next: "
                        "fewer instructions an exp"},
      {.name = "gelu",
       .what = "bias and GELU by tanh",
       .section = "5.a",
       .forward = [](const Operands& o) { return td::gelu(o.x + o.bias, true); },
       .leaves = with_bias,
       .forward_share = 0.60,
       .backward_share = 0.60,
       .forward_open =
           "an exp and a division an element, against a copy past the caches: arithmetic that is a "
           "copy's time by memcpy; next: a quotient by its approximation and a step of Newton's",
       .backward_open = "an exp and a division an element, and the bias's sum over columns; next: the same "
                        "quotient as forward"},
      {.name = "gelu_dropout",
       .what = "bias, GELU by tanh and dropout by 0.1",
       .section = "5.a",
       .forward = [](const Operands& o) { return td::dropout(td::gelu(o.x + o.bias, true), 0.1); },
       .leaves = with_bias,
       .random = true,
       .forward_share = 0.35,
       .backward_share = 0.35,
       .forward_open =
           "Philox takes as long as GELU; next: fewer instructions between its words and the mask",
       .backward_open = "draws again; next: fewer instructions between Philox's words and the mask"},
  };
}

/// One kernel's operands with their ways to compute it.
struct Contest {
  Contest(const Kernel& kernel, const Shape& shape, td::Device device, td::DType dtype)
      : kernel(kernel), o(device, shape, dtype) {}

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
Contestant contestant(const std::string& name, const Kernel& kernel, const Setting& s, F f) {
  const td::Device device = s.device;
  return {name, Side::ours, s.threads,
          [f, device](int calls) mutable { return time_us_on(device, calls, [&] { f(); }); },
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

Workload workload(const Kernel& kernel, const Shape& shape, bool backward) {
  Workload w;
  w.name = kernel.name + shape.suffix() + (backward ? "_backward" : "");
  w.section = kernel.section;
  std::ostringstream what;
  what << kernel.what << " of " << shape.rows << " x " << shape.columns;
  what << (shape.dtype == td::bfloat16 ? " in bfloat16" : "") << (backward ? ": gradients" : "");
  w.what = what.str();
  w.bytes = (backward ? kernel.backward_passes : kernel.forward_passes) * shape.pass();
  w.counted = std::string("passes over all elements: ") + (kernel.reduced ? "the logits" : "the input") +
              (backward ? (kernel.reduced ? " and their gradient" : ", the result's gradient and the input's")
                        : (kernel.reduced ? " alone" : " and the result"));
  w.tolerance = shape.dtype == td::bfloat16 ? 2e-2 : kernel.random ? 5e-3 : 1e-3;
  // What is drawn depends on the dtype.
  const td::DType dtype = kernel.random ? td::float32 : td::float64;
  w.reference = [=] {
    Contest contest(kernel, shape, td::cpu, dtype);
    if (backward) contest.want_gradients();
    td::manual_seed(kSeed);
    return answer(kernel, backward ? contest.backward() : TensorList{contest.forward()});
  };
  w.prepare = [=](const Setting& setting) {
    const auto c = std::make_shared<Contest>(kernel, shape, setting.device, shape.dtype);
    if (backward) c->want_gradients();
    const auto eager = [=] { return backward ? c->gradients_of_kept() : TensorList{c->forward()}; };
    // Operands are captured and never change: kept, the row would be computed once.
    const td::TraceOptions options{.name = kernel.name, .max_kept_bytes = 0};
    const auto traced = td::trace(eager, options);
    Prepared p;
    p.contestants = {contestant("traced", kernel, setting, traced),
                     contestant("eager", kernel, setting, eager)};
    if (backward)
      p.contestants.push_back(contestant("traced with its forward", kernel, setting,
                                         td::trace([=] { return c->backward(); }, options)));
    p.facts = facts([traced] { return traced.report(); });
    return p;
  };
  w.open = backward ? kernel.backward_open : kernel.forward_open;
  w.bars = {{Bar::Of::share_of_copy, backward ? kernel.backward_share : kernel.forward_share, ""},
            {Bar::Of::times_faster, 1, "PyTorch"},
            {Bar::Of::times_faster, 1, "LibTorch"}};
  return w;
}

/// Without shares of bandwidth: its bytes stay in the cache.
Workload launch_bound(Workload w) {
  std::erase_if(w.bars, [](const Bar& b) { return b.of == Bar::Of::share_of_copy; });
  w.open.clear();
  return w;
}

}  // namespace

std::vector<Workload> row_workloads() {
  std::vector<Workload> all;
  for (const Kernel& k : kernels())
    for (const bool backward : {false, true}) all.push_back(workload(k, {}, backward));
  for (const Kernel& k : kernels())  // where launching weighs more than the bytes
    for (const bool backward : {false, true})
      if (k.section == "5.a") all.push_back(launch_bound(workload(k, {64, 3072}, backward)));
  return all;
}

std::vector<Workload> card_row_workloads() {
  std::vector<Workload> all;
  const auto add = [&](const Kernel& k, const Shape& shape) {
    for (const bool backward : {false, true}) {
      Workload w = workload(k, shape, backward);
      w.heavy = true;
      all.push_back(std::move(w));
    }
  };
  for (const Kernel& k : kernels()) {
    if (k.section == "5.a")
      for (const Shape& s : {Shape{16384, 3072}, {65536, 1024}, {64, 3072}})
        add(k, {s.rows, s.columns, td::bfloat16});
    else if (k.reduced)
      add(k, {8192, 50257, td::bfloat16});
    else
      for (const td::DType dtype : {td::bfloat16, td::float32})
        for (const Shape& s : {Shape{65536, 1024},
                               {16384, 4096},
                               {4096, 16384},
                               {1024, 65536},
                               {32768, 768},
                               {8192, 50257},
                               {1024, 12288}})
          add(k, {s.rows, s.columns, dtype});
  }
  return all;
}

}  // namespace bench
