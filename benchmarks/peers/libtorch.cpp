// The workloads in LibTorch's C++ API, for the benchmark program: libtorch VARIANT THREADS takes commands on
// standard input (benchmarks/bench/peer.h); the variant is the instruction set that the environment asks for.
// Eager code as its users write it.
#include <torch/torch.h>
#include <torch/version.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "benchmarks/bench/pattern.h"

namespace {

namespace F = torch::nn::functional;
using torch::Tensor;
using Answer = std::vector<std::vector<double>>;

struct Made {
  std::function<Answer()> answer;
  std::function<void()> call;
};

Tensor pattern(at::IntArrayRef sizes, uint32_t seed, double scale) {
  Tensor t = torch::empty(sizes);
  const std::vector<float> v = bench::values(t.numel(), seed, scale);
  std::copy(v.begin(), v.end(), t.data_ptr<float>());
  return t;
}
Tensor pattern_labels(at::IntArrayRef sizes, uint32_t seed, uint32_t classes) {
  Tensor t = torch::empty(sizes, torch::kLong);
  const std::vector<int64_t> v = bench::labels(t.numel(), seed, classes);
  std::copy(v.begin(), v.end(), t.data_ptr<int64_t>());
  return t;
}

/// (4 layers and the like: the members' order and names are those of benchmarks/bench/models.h)
struct Mlp : torch::nn::Module {
  Mlp(int64_t in, int64_t first, int64_t second) {
    a = register_module("a", torch::nn::Linear(in, first));
    b = register_module("b", torch::nn::Linear(first, second));
    c = register_module("c", torch::nn::Linear(second, 10));
  }
  Tensor forward(const Tensor& x) { return c(torch::relu(b(torch::relu(a(x))))); }
  torch::nn::Linear a{nullptr}, b{nullptr}, c{nullptr};
};

struct Cnn : torch::nn::Module {
  Cnn() {
    using Options = torch::nn::Conv2dOptions;
    conv1 = register_module("conv1", torch::nn::Conv2d(Options(1, 32, 3).padding(1)));
    conv2 = register_module("conv2", torch::nn::Conv2d(Options(32, 64, 3).padding(1)));
    fc1 = register_module("fc1", torch::nn::Linear(64 * 7 * 7, 128));
    fc2 = register_module("fc2", torch::nn::Linear(128, 10));
  }
  Tensor forward(const Tensor& x) {
    const Tensor h1 = torch::max_pool2d(torch::relu(conv1(x)), 2);
    const Tensor h2 = torch::max_pool2d(torch::relu(conv2(h1)), 2);
    return fc2(torch::relu(fc1(h2.flatten(1))));
  }
  torch::nn::Conv2d conv1{nullptr}, conv2{nullptr};
  torch::nn::Linear fc1{nullptr}, fc2{nullptr};
};

constexpr int64_t kLayers = 4, kWidth = 128, kHeads = 4, kLength = 64, kWords = 65, kGptBatch = 12;

struct Block : torch::nn::Module {
  Block() {
    const torch::nn::LayerNormOptions norm({kWidth});
    norm1 = register_module("norm1", torch::nn::LayerNorm(norm));
    qkv = register_module("qkv", torch::nn::Linear(kWidth, 3 * kWidth));
    out = register_module("out", torch::nn::Linear(kWidth, kWidth));
    norm2 = register_module("norm2", torch::nn::LayerNorm(norm));
    fc1 = register_module("fc1", torch::nn::Linear(kWidth, 4 * kWidth));
    fc2 = register_module("fc2", torch::nn::Linear(4 * kWidth, kWidth));
  }
  Tensor forward(const Tensor& x, const Tensor& unseen) {
    const auto parts = qkv(norm1(x)).split(kWidth, 2);
    const auto heads = [&](const Tensor& t) {
      return t.view({x.size(0), x.size(1), kHeads, kWidth / kHeads}).transpose(1, 2);
    };
    const double scale = 1 / std::sqrt(static_cast<double>(kWidth / kHeads));
    const Tensor scores = torch::matmul(heads(parts[0]), heads(parts[1]).transpose(-2, -1)) * scale;
    const Tensor seen = torch::softmax(scores.masked_fill(unseen, -INFINITY), -1);
    const Tensor mixed = torch::matmul(seen, heads(parts[2])).transpose(1, 2).contiguous().view(x.sizes());
    const Tensor h = x + out(mixed);
    return h + fc2(torch::gelu(fc1(norm2(h)), "tanh"));
  }
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  torch::nn::Linear qkv{nullptr}, out{nullptr}, fc1{nullptr}, fc2{nullptr};
};

struct Gpt : torch::nn::Module {
  Gpt() {
    words = register_module("words", torch::nn::Embedding(kWords, kWidth));
    places = register_module("places", torch::nn::Embedding(kLength, kWidth));
    for (int64_t i = 0; i < kLayers; ++i)
      blocks.push_back(register_module("blocks_" + std::to_string(i), std::make_shared<Block>()));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})));
  }
  Tensor forward(const Tensor& x) {
    Tensor h = words(x) + places(positions);
    for (const auto& b : blocks) h = b->forward(h, unseen);
    return torch::matmul(norm(h), words->weight.t()).view({-1, kWords});
  }
  torch::nn::Embedding words{nullptr}, places{nullptr};
  std::vector<std::shared_ptr<Block>> blocks;
  torch::nn::LayerNorm norm{nullptr};
  Tensor positions = torch::arange(kLength);
  Tensor unseen = torch::ones({kLength, kLength}, torch::kBool).triu(1);
};

struct Batch {
  Tensor x, y;
};

std::vector<double> samples(const Tensor& t) {
  const Tensor all = t.detach().contiguous().view({-1}).to(torch::kDouble);
  const int64_t n = all.numel();
  std::vector<double> some;
  for (int64_t i = 0; i < std::min(n, bench::kSamples); ++i)
    some.push_back(all[n <= bench::kSamples ? i : bench::sample(i, n)].item<double>());
  return some;
}

/// Appends a part for each parameter: its gradient's norm, and samples of it.
void append_gradients(const std::vector<Tensor>& parameters, Answer& answer) {
  for (const Tensor& p : parameters) {
    std::vector<double> part = samples(p.grad());
    for (double& v : part) v *= std::sqrt(static_cast<double>(p.numel()));
    part.insert(part.begin(), p.grad().to(torch::kDouble).norm().item<double>());
    answer.push_back(part);
  }
}

/// What is asked for of a network.
enum class Task { train, infer, infer_one };

template <class Net>
Made inference(std::shared_ptr<Net> net, std::vector<Batch> ring, bool one) {
  net->eval();
  if (one)
    for (Batch& b : ring) b = {b.x.slice(0, 0, 1), b.y.slice(0, 0, 1)};
  const auto loss = [=](const Batch& b) {
    const torch::InferenceMode no_gradients;
    return F::cross_entropy(net->forward(b.x), b.y);
  };
  const auto next = std::make_shared<size_t>(0);
  const auto answer = [=] {
    Answer answer(1);
    for (const Batch& b : ring) answer[0].push_back(loss(b).template item<double>());
    return answer;
  };
  return {answer, [=] { loss(ring[(*next)++ % bench::kBatches]); }};
}

template <class Net, class Optimizer, class Options>
Made training(Task task, std::shared_ptr<Net> net, Options options, double gate_lr,
              const std::vector<Batch>& ring) {
  torch::NoGradGuard no_grad;
  uint32_t k = 0;
  for (const auto& p : net->named_parameters()) {
    Tensor t = p.value();
    ++k;
    if (t.dim() >= 2)
      t.copy_(pattern(t.sizes(), k, bench::weight_scale(t.numel(), t.size(0))));
    else
      t.fill_(p.key().find("norm") != std::string::npos && p.key().find("weight") != std::string::npos ? 1.
                                                                                                       : 0.);
  }
  if (task != Task::train) return inference(net, ring, task == Task::infer_one);
  options.lr(gate_lr);
  const auto opt = std::make_shared<Optimizer>(net->parameters(), options);
  const auto step = [=](const Batch& b) {
    const Tensor loss = F::cross_entropy(net->forward(b.x), b.y);
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss;
  };
  const auto next = std::make_shared<size_t>(0);
  const auto answer = [=] {
    Answer answer(1);
    for (int i = 0; i < bench::kGateSteps; ++i) {
      answer[0].push_back(step(ring[static_cast<size_t>(i % bench::kBatches)]).template item<double>());
      if (bench::compares_gradients(i, true)) append_gradients(net->parameters(), answer);
    }
    for (auto& group : opt->param_groups()) group.options().set_lr(bench::kTimedLr);
    return answer;
  };
  return {answer, [=] { step(ring[(*next)++ % bench::kBatches]); }};
}

std::vector<Batch> batches(at::IntArrayRef input, int64_t words, int64_t count, uint32_t classes) {
  std::vector<Batch> ring;
  for (uint32_t r = 0; r < bench::kBatches; ++r)
    ring.push_back({words ? pattern_labels(input, bench::kInputs + r, static_cast<uint32_t>(words))
                          : pattern(input, bench::kInputs + r, 1),
                    pattern_labels({count}, bench::kLabels + r, classes)});
  return ring;
}

struct Rows {
  std::string name;
  std::function<Tensor(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y)> forward;
  enum class Leaves { x, x_bias, x_weight, all } leaves;
};
const std::vector<Rows>& rows() {
  using T = const Tensor&;
  static const std::vector<Rows> all = {
      {"softmax", [](T x, T, T, T) { return torch::softmax(x, -1); }, Rows::Leaves::x},
      {"layer_norm", [](T x, T w, T b, T) { return torch::layer_norm(x, {x.size(1)}, w, b); },
       Rows::Leaves::all},
      {"rms_norm",  // which 1.13 has no call for
       [](T x, T w, T, T) { return x * torch::rsqrt(x.square().mean(-1, true) + 1e-5) * w; },
       Rows::Leaves::x_weight},
      {"cross_entropy", [](T x, T, T, T y) { return F::cross_entropy(x, y); }, Rows::Leaves::x},
      {"gelu", [](T x, T, T b, T) { return torch::gelu(x + b, "tanh"); }, Rows::Leaves::x_bias},
      {"gelu_dropout", [](T x, T, T b, T) { return torch::dropout(torch::gelu(x + b, "tanh"), 0.1, true); },
       Rows::Leaves::x_bias}};
  return all;
}

Made make_rows(const Rows& kernel, int64_t count, int64_t columns, bool backward) {
  const Tensor x = pattern({count, columns}, bench::kInputs, 3);
  const Tensor dy = pattern({count, columns}, bench::kInputs + 1, 1);
  const Tensor weight = pattern({columns}, bench::kInputs + 2, 1);
  const Tensor bias = pattern({columns}, bench::kInputs + 3, 1);
  const Tensor y = pattern_labels({count}, bench::kLabels, static_cast<uint32_t>(columns));
  const bool random = kernel.name == "gelu_dropout";
  const auto answer = [random](const std::vector<Tensor>& results) {
    Answer parts;
    if (random)
      return Answer{{results[0].mean().item<double>(),
                     1 - static_cast<double>(results[0].count_nonzero().item<int64_t>()) /
                             static_cast<double>(results[0].numel())}};
    for (const Tensor& t : results) parts.push_back(samples(t));
    return parts;
  };
  if (!backward) {
    const auto f = [=] { return kernel.forward(x, weight, bias, y); };
    return {[=] { return answer({f()}); }, [=] { f(); }};
  }
  std::vector<Tensor> leaves{x};
  const auto has = [&](Rows::Leaves one) {
    return kernel.leaves == one || kernel.leaves == Rows::Leaves::all;
  };
  if (has(Rows::Leaves::x_weight)) leaves.push_back(weight);
  if (has(Rows::Leaves::x_bias)) leaves.push_back(bias);
  for (Tensor& leaf : leaves) leaf.requires_grad_();
  const Tensor result = kernel.forward(x, weight, bias, y);
  const auto f = [=] {
    return torch::autograd::grad({result}, leaves,
                                 result.dim() ? std::vector<Tensor>{dy} : std::vector<Tensor>{}, true);
  };
  return {[=] { return answer(f()); }, [=] { f(); }};
}

struct Op {
  Tensor a, b, one, changed, leaf, ma, mb, mleaf;
};
template <class Body>
Made make_op(const Op& o, Body body) {
  return {[=] {
            const Tensor all = body(o).detach().contiguous().view({-1}).to(torch::kDouble);
            return Answer{{all.data_ptr<double>(), all.data_ptr<double>() + all.numel()}};
          },
          [=] { body(o); }};
}
/// An empty call where the name is unknown.
Made make_eager(std::string name) {
  int64_t n = 4;
  if (name.size() > 5 && name.substr(name.size() - 5) == "_1024") n = 1024, name.resize(name.size() - 5);
  Op o;
  o.a = pattern({n}, bench::kInputs, 1), o.b = pattern({n}, bench::kInputs + 1, 1), o.one = torch::ones({n});
  o.changed = o.a.clone(), o.leaf = o.a.clone().requires_grad_();
  o.ma = pattern({8, 8}, bench::kInputs, 1), o.mb = pattern({8, 8}, bench::kInputs + 1, 1);
  o.mleaf = o.ma.clone().requires_grad_();
  if (name == "eager_add") return make_op(o, [](const Op& p) { return p.a + p.b; });
  if (name == "eager_add_grad") return make_op(o, [](const Op& p) { return p.leaf + p.b; });
  if (name == "eager_mul_") return make_op(o, [](const Op& p) { return p.changed.mul_(p.one); });
  if (name == "eager_relu") return make_op(o, [](const Op& p) { return torch::relu(p.a); });
  if (name == "eager_sum") return make_op(o, [](const Op& p) { return p.a.sum(); });
  if (name == "eager_view") return make_op(o, [](const Op& p) { return p.a.view({2, p.a.numel() / 2}); });
  if (name == "eager_slice") return make_op(o, [](const Op& p) { return p.a.slice(0, 1, 3); });
  if (name == "eager_relu_grad") return make_op(o, [](const Op& p) { return torch::relu(p.leaf); });
  if (name == "eager_sum_grad") return make_op(o, [](const Op& p) { return p.leaf.sum(); });
  if (name == "eager_view_grad")
    return make_op(o, [](const Op& p) { return p.leaf.view({2, p.leaf.numel() / 2}); });
  if (name == "eager_slice_grad") return make_op(o, [](const Op& p) { return p.leaf.slice(0, 1, 3); });
  if (name == "eager_mm_grad") return make_op(o, [](const Op& p) { return torch::mm(p.mleaf, p.mb); });
  if (name == "eager_sort") {
    o.a = pattern({1024, 1024}, bench::kInputs, 1);
    return make_op(o, [](const Op& p) { return std::get<0>(p.a.sort(-1)); });
  }
  if (name == "eager_topk") {
    o.a = pattern({50257}, bench::kInputs, 1);
    return make_op(o, [](const Op& p) { return std::get<0>(p.a.topk(50)); });
  }
  if (name == "eager_mm") return make_op(o, [](const Op& p) { return torch::mm(p.ma, p.mb); });
  if (name == "eager_chain")
    return make_op(o, [](const Op& p) {
      Tensor y = p.leaf;
      for (int i = 0; i < 10; ++i) y = y * p.one;
      p.leaf.mutable_grad() = Tensor();
      y.sum().backward();
      return p.leaf.grad();
    });
  return {};
}

Made make(const std::string& asked) {
  std::string name = asked;
  Task task = Task::train;
  for (const auto& [end, what] :
       {std::pair{std::string("_infer1"), Task::infer_one}, {"_infer", Task::infer}})
    if (name.size() > end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0)
      name.resize(name.size() - end.size()), task = what;
  using torch::optim::Adam, torch::optim::AdamOptions, torch::optim::AdamW, torch::optim::AdamWOptions;
  using torch::optim::SGD, torch::optim::SGDOptions;
  const auto mlp = [&](int64_t in, int64_t first, int64_t second) {
    return training<Mlp, Adam>(task, std::make_shared<Mlp>(in, first, second), AdamOptions(), 1e-3,
                               batches({64, in}, 0, 64, 10));
  };
  if (name == "mlp784") return mlp(784, 256, 128);
  if (name == "mlp64") return mlp(64, 256, 128);
  if (name == "mlp784_1024") return mlp(784, 1024, 1024);
  if (name == "cnn")
    return training<Cnn, SGD>(task, std::make_shared<Cnn>(), SGDOptions(1), 1e-2,
                              batches({64, 1, 28, 28}, 0, 64, 10));
  if (name == "gpt")
    return training<Gpt, AdamW>(task, std::make_shared<Gpt>(), AdamWOptions(), 1e-3,
                                batches({kGptBatch, kLength}, kWords, kGptBatch * kLength, kWords));
  for (const Rows& kernel : rows()) {
    for (const auto& [end, backward] : {std::pair{"", false}, {"_backward", true}}) {
      if (name == kernel.name + end) return make_rows(kernel, 4096, 1024, backward);
      if (name == kernel.name + "_64x3072" + end) return make_rows(kernel, 64, 3072, backward);
    }
  }
  return make_eager(name);
}

double now_us(bool processor) {
  timespec t;
  clock_gettime(processor ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}
double time_us(int calls, const std::function<void()>& f, bool processor) {
  const double start = now_us(processor);
  for (int i = 0; i < calls; ++i) f();
  return (now_us(processor) - start) / calls;
}

std::string text(const Answer& answer) {
  std::ostringstream out;
  out.precision(17);
  for (size_t p = 0; p < answer.size(); ++p) {
    if (p) out << " |";
    for (const double v : answer[p]) out << " " << v;
  }
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string variant = argv[1];
  torch::set_num_threads(std::atoi(argv[2]));
  std::cout << "ready LibTorch " << TORCH_VERSION << " " << variant << std::endl;
  std::vector<Made> made;
  bool processor = false;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string command, name;
    in >> command;
    try {
      if (command == "variants") {
        in >> name;
        torch::AutoGradMode with_gradients(true);
        std::cout << (make(name).call ? variant : "") << std::endl;
      } else if (command == "make") {
        in >> name;
        torch::manual_seed(1);
        made.push_back(make(name));
        std::cout << made.size() - 1 << text(made.back().answer()) << std::endl;
      } else if (command == "time") {
        size_t handle = 0;
        int calls = 1;
        in >> handle >> calls;
        std::cout << time_us(calls, made.at(handle).call, processor) << std::endl;
      } else if (command == "clock") {
        in >> name;
        processor = name == "processor";
        std::cout << "ok" << std::endl;
      } else if (command == "clear") {
        made.clear();
        std::cout << "ok" << std::endl;
      } else {
        std::cout << "error unknown command" << std::endl;
      }
    } catch (const std::exception& e) {
      std::string what = e.what();
      std::cout << "error " << what.substr(0, what.find('\n')) << std::endl;
    }
  }
}
