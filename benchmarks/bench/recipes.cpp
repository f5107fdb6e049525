// The table of training steps: our own small networks, and those of the literature (samples/models).
#include <map>

#include "benchmarks/bench/literature.h"
#include "benchmarks/bench/models.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/error.h"

namespace bench {

namespace {

template <class Optimizer, class Options>
auto optimizer() {
  return [](const std::vector<td::Tensor>& parameters, double lr) {
    return std::make_unique<Optimizer>(parameters, Options{.lr = lr});
  };
}
/// A network whose logits (rows, classes) are compared with the labels.
template <class Module, class... Args>
std::function<Net()> net(Args... args) {
  return [=] {
    const auto module = std::make_shared<Module>(args...);
    return Net{module, [at = module.get()](Tensors b) { return td::cross_entropy(at->forward(b[0]), b[1]); }};
  };
}

std::map<std::string, Recipe> small_recipes() {
  const auto adam = optimizer<td::optim::Adam, td::optim::AdamOptions>();
  const auto adamw = optimizer<td::optim::AdamW, td::optim::AdamWOptions>();
  const auto sgd = optimizer<td::optim::SGD, td::optim::SGDOptions>();
  constexpr TransformerSizes host{12, 16, 2, 8, 32, false};
  const auto digits = [](const td::Dims& sizes) { return std::vector<Input>{{sizes}, {64, 0, 10}}; };
  const auto words = [](int64_t batch, const TransformerSizes& s) {
    return std::vector<Input>{{{batch, s.length}, 0, s.words}, {batch * s.length, 0, s.words}};
  };
  return {{"mlp784", {net<Mlp>(784), adam, digits({64, 784})}},
          {"mlp64", {net<Mlp>(64), adam, digits({64, 64})}},
          {"mlp784_1024", {net<Mlp>(784, 1024, 1024), adam, digits({64, 784})}},
          {"cnn", {net<Cnn>(), sgd, digits({64, 1, 28, 28}), 1e-2}},
          {"gpt", {net<Transformer>(kGpt), adamw, words(kGptBatch, kGpt)}},
          {"host_mlp", {net<Mlp>(64), adamw, digits({64, 64}), kTimedLr}},
          {"host_transformer", {net<Transformer>(host), adamw, words(2, host), kTimedLr}}};
}

}  // namespace

Precision take_precision(std::string& name) {
  for (const auto& [end, precision] : {std::pair{"_bf16", Precision::bf16}, {"_tf32", Precision::tf32}})
    if (name.ends_with(end)) {
      name.resize(name.size() - std::char_traits<char>::length(end));
      return precision;
    }
  return Precision::float32;
}

Recipe recipe(const std::string& workload) {
  static const std::map<std::string, Recipe> all = small_recipes();
  std::string name = workload;
  const Precision precision = take_precision(name);
  Recipe r;
  if (const auto at = all.find(name); at != all.end())
    r = at->second;
  else if (const std::optional<Literature> found = literature(name))
    r = found->recipe;
  else
    td::fail("bench: no training step is called '" + workload + "'", td::Location::here());
  r.precision = precision;
  return r;
}

}  // namespace bench
