#include "benchmarks/bench/training.h"

namespace bench {

namespace {

/// Gives a parameter the k-th pattern.
void fill(const td::NamedTensor& p, size_t k) {
  const td::Tensor& t = p.tensor;
  const int64_t n = t.numel();
  std::vector<float> v(static_cast<size_t>(n), 0.f);
  if (t.dim() >= 2)
    v = values(n, static_cast<uint32_t>(k + 1), weight_scale(n, t.size(0)));
  else if (p.name.find("norm") != std::string::npos && p.name.ends_with("weight"))
    v.assign(v.size(), 1.f);
  t.copy_(td::tensor(std::span<const float>(v), t.sizes()));
}

}  // namespace

Training::Training(const Recipe& recipe, td::Device device, td::DType dtype) : net(recipe.net()) {
  {
    const td::NoGrad scope;
    const std::vector<td::NamedTensor> parameters = net.module->named_parameters();
    for (size_t k = 0; k < parameters.size(); ++k) fill(parameters[k], k);
  }
  net.module->to(dtype);
  net.module->to(device);
  opt = recipe.optimizer(net.module->parameters(), recipe.gate_lr);
  int64_t inputs = 1;
  for (const int64_t size : recipe.input) inputs *= size;
  for (uint32_t r = 0; r < kBatches; ++r) {
    td::Tensor x;
    if (recipe.words) {
      const std::vector<int64_t> words = labels(inputs, kInputs + r, static_cast<uint32_t>(recipe.words));
      x = td::tensor(std::span<const int64_t>(words), recipe.input);
    } else {
      const std::vector<float> v = values(inputs, kInputs + r, 1);
      x = td::tensor(std::span<const float>(v), recipe.input).to(dtype);
    }
    const std::vector<int64_t> y = labels(recipe.labels, kLabels + r, static_cast<uint32_t>(recipe.classes));
    ring.push_back({x.to(device), td::tensor(y).to(device)});
  }
}

}  // namespace bench
