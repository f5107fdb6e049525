// Training steps: a network with its optimizer and a ring of batches, all made from the pattern.
// Single-threaded.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/bench/models.h"
#include "benchmarks/bench/pattern.h"

namespace bench {

struct Net {
  std::shared_ptr<td::nn::Module> module;
  std::function<td::Tensor(const td::Tensor& x)> logits;  // (rows, classes)
};

struct Recipe {
  std::function<Net()> net;
  std::function<std::unique_ptr<td::optim::Optimizer>(const std::vector<td::Tensor>& parameters, double lr)>
      optimizer;
  td::Dims input;     // of a batch
  int64_t words = 0;  // inputs are int64 below this; 0: float32 in [-1, 1)
  int64_t labels = 0;
  int64_t classes = 0;
  double gate_lr = 1e-3;
};
/// The recipe of a training workload; an Error if there is none.
const Recipe& recipe(const std::string& workload);

struct Batch {
  td::Tensor x, y;
};

struct Training {
  explicit Training(const Recipe& recipe, td::Device device = td::cpu, td::DType dtype = td::float32);

  td::Tensor step(const td::Tensor& x, const td::Tensor& y) {
    const td::Tensor loss = td::cross_entropy(net.logits(x), y);
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss;
  }
  const Batch& batch(int64_t i) const { return ring[static_cast<size_t>(i % kBatches)]; }

  Net net;
  std::unique_ptr<td::optim::Optimizer> opt;
  std::vector<Batch> ring;
};

}  // namespace bench
