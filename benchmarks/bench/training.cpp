#include "benchmarks/bench/training.h"

namespace bench {

namespace {

/// Gives a parameter the k-th pattern.
void fill(const td::NamedTensor& p, size_t k, double gain) {
  const td::Tensor& t = p.tensor;
  const int64_t n = t.numel();
  std::vector<float> v(static_cast<size_t>(n), 0.f);
  const auto seed = static_cast<uint32_t>(k + 1);
  if (t.dim() >= 2)
    v = values(n, seed, gain * weight_scale(n, t.size(0)));
  else if (t.dim() == 0 || p.name.ends_with("weight"))
    v.assign(v.size(), 1.f);
  else if (p.name.find("bias") == std::string::npos)
    v = values(n, seed, 1);
  t.copy_(td::tensor(std::span<const float>(v), t.sizes()));
}

td::Tensor make(const Input& input, uint32_t seed) {
  int64_t n = 1;
  for (const int64_t size : input.sizes) n *= size;
  if (input.end == 0) {
    const std::vector<float> v = values(n, seed, 1);
    return td::tensor(std::span<const float>(v), input.sizes);
  }
  std::vector<int64_t> v = labels(n, seed, static_cast<uint32_t>(input.end - input.begin));
  for (int64_t& word : v) word += input.begin;
  const td::Tensor t = td::tensor(std::span<const int64_t>(v), input.sizes);
  return input.floating ? t.to(td::float32) : t;
}

}  // namespace

Training::Training(const Recipe& r, td::Device where, td::DType dtype)
    : recipe(r), device(where), net(r.net()) {
  net.module->to(dtype);
  net.module->to(device);
  opt = recipe.optimizer(net.module->parameters(), recipe.gate_lr);
  reset();
  for (uint32_t at = 0; at < kBatches; ++at) {
    Batch batch;
    for (size_t j = 0; j < recipe.batch.size(); ++j) {
      td::Tensor t = make(recipe.batch[j], batch_seed(j, at));
      if (t.dtype() == td::float32) t = t.to(dtype);
      batch.push_back(t.to(device));
    }
    ring.push_back(std::move(batch));
  }
}

void Training::reset() {
  const td::NoGrad scope;
  opt->zero_grad();
  const std::vector<td::NamedTensor> parameters = net.module->named_parameters();
  for (size_t k = 0; k < parameters.size(); ++k) fill(parameters[k], k, recipe.gain);
  std::vector<td::NamedTensor> state = opt->state();
  for (const td::NamedTensor& s : state)
    if (!s.name.starts_with("group.")) s.tensor.zero_();
  opt->load_state(state);
  opt->set_lr(recipe.gate_lr);
}

}  // namespace bench
