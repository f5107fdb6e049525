// Training workloads: a model with its optimizer, its loss and synthetic data of the real shapes, made by
// name (workloads.h lists them) and run eagerly, traced or frozen by samples/classic and the tests. A factory
// makes everything on the default device and draws from the default generator. One thread.
#pragma once

#include <tandem/tandem.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace samples {

/// How much of a model is made. `scale` 1 is the model of the literature; less shrinks width, depth and the
/// sizes of the data, by the rule of each factory. A scale outside (0, 1] or a batch below 1 is an Error.
struct WorkloadSize {
  double scale = 1;
  int64_t batch = 1;    // images, sentences, samples
  bool dropout = true;  // false: all of the model's dropout at probability 0
};

/// A model in training. The loss sees the batch and the model alone, so that a step can be traced.
struct Workload {
  std::unique_ptr<tandem::nn::Module> model;
  std::unique_ptr<tandem::optim::Optimizer> optimizer;
  std::vector<tandem::Tensor> batch;  // what the loss is given: one batch of synthetic data
  /// The mean loss, a scalar; runs under autocast if the precision asks for it.
  std::function<tandem::Tensor(const std::vector<tandem::Tensor>& batch)> loss;
  double max_norm = 0;  // above 0: gradients are clipped to this global norm before the update
  double units = 0;     // per step, of the recipe's unit
};

/// A row of the table of workloads.
struct WorkloadRecipe {
  const char* name;   // "resnet50"
  const char* unit;   // of throughput: "images", "tokens", "samples"
  int64_t batch;      // when none is given
  const char* scale;  // what a scale below 1 shrinks, in a sentence
  Workload (*make)(const WorkloadSize& size);
};

/// n times scale in multiples of `multiple`, to the nearest, but at least one of them (and never more than
/// n).
int64_t scaled(int64_t n, double scale, int64_t multiple = 1);

}  // namespace samples
