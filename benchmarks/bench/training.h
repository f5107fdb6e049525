// Training steps: a network with its optimizer and a ring of batches, all made from the pattern.
// Single-threaded.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "benchmarks/bench/pattern.h"
#include "samples/models/training.h"

namespace td = tandem;

namespace bench {

using samples::Precision;
using Batch = std::vector<td::Tensor>;
using Tensors = std::span<const td::Tensor>;  // of a batch

struct Net {
  std::shared_ptr<td::nn::Module> module;
  std::function<td::Tensor(Tensors batch)> loss;  // a scalar
};

/// One tensor of a batch: float32 in [-1, 1), or integers of [begin, end).
struct Input {
  td::Dims sizes;
  int64_t begin = 0, end = 0;  // both 0: no integers
  bool floating = false;       // those integers as float32
};

struct Recipe {
  std::function<Net()> net;
  std::function<std::unique_ptr<td::optim::Optimizer>(const std::vector<td::Tensor>& parameters, double lr)>
      optimizer;
  std::vector<Input> batch;
  double gate_lr = 1e-3;
  int gate_steps = kGateSteps;
  double gain = 1;      // of the weights' pattern
  double max_norm = 0;  // above 0: gradients are clipped to it
  Precision precision = Precision::float32;
  /// Too large for a network and an optimizer each: all ways to run it train the same one, by turns.
  bool shared = false;
};
/// The recipe of a training workload; an Error if there is none.
Recipe recipe(const std::string& workload);
/// Takes "_bf16" or "_tf32" off a name; float32 has none.
Precision take_precision(std::string& name);

struct Training {
  explicit Training(const Recipe& recipe, td::Device device = td::cpu, td::DType dtype = td::float32);

  td::Tensor step(Tensors batch) {
    if (recipe.precision != Precision::tf32) return train(batch);
    const td::AllowTf32 products(true);
    return train(batch);
  }
  td::Tensor step(const td::Tensor& x, const td::Tensor& y) {
    const td::Tensor batch[] = {x, y};
    return step(batch);
  }
  td::Tensor loss(Tensors batch) {
    return recipe.precision == Precision::bf16 ? mixed_loss(batch) : net.loss(batch);
  }
  const Batch& batch(int64_t i) const { return ring[static_cast<size_t>(i % kBatches)]; }
  /// Weights, moments, step counts and learning rate are again what the constructor made.
  void reset();

  const Recipe recipe;
  const td::Device device;
  Net net;
  std::unique_ptr<td::optim::Optimizer> opt;
  std::vector<Batch> ring;

 private:
  td::Tensor train(Tensors batch) {
    const td::Tensor result = loss(batch);
    opt->zero_grad();
    result.backward();
    if (recipe.max_norm > 0) td::nn::utils::clip_grad_norm_(net.module->parameters(), recipe.max_norm);
    opt->step();
    return result;
  }
  td::Tensor mixed_loss(Tensors batch) {
    const td::autocast mixed(td::bfloat16);
    return net.loss(batch);
  }
};

}  // namespace bench
