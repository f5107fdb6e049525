// Layers beside PyTorch's: each is made by both sides with the same arguments, gets the same weights by name,
// and gives results, gradients of inputs and parameters, and buffers. One suite a test.
#pragma once

#include <functional>

#include "tandem/eager/autograd.h"
#include "tandem/eager/nn/nn.h"
#include "tests/pytorch/exchange.h"

namespace tandem::test {

/// How PyTorch makes and calls the layer: arguments as a JSON list, options and those of the call by name;
/// also tensors ("made_with.weight", "call.attn_mask"). Gradients are taken of the first `leaves` inputs.
struct LayerArguments {
  std::string arguments = "[]";
  Fields options = {}, call = {};
  bool training = true;
  std::vector<NamedTensor> tensors = {};
  size_t leaves = 9;
};

class LayerSuite {
 public:
  /// `inputs` gives the tensors for a dtype; `make` the module, as a unique_ptr; `forward(module, inputs)`
  /// its results as a vector.
  template <class Inputs, class Make, class Forward>
  void add(const std::string& layer, const LayerArguments& how, Inputs inputs, Make make, Forward forward) {
    for (const DType type : {DType::float32, DType::float64}) {
      manual_seed(5);
      const std::string name = layer + '#' + std::to_string(exchange_.asked()) + '.' + tandem::name(type);
      const auto module = make();
      module->to(type);
      module->train(how.training);
      for (const NamedTensor& t : module->state()) exchange_.give(name, "state." + t.name, t.tensor.clone());
      Case c{name, type, {}};
      std::vector<Tensor> in = inputs(type);
      for (const NamedTensor& t : how.tensors)
        exchange_.give(name, t.name, is_floating(t.tensor.dtype()) ? t.tensor.to(type) : t.tensor);
      for (size_t i = 0; i < in.size(); ++i) {
        exchange_.give(name, "in" + std::to_string(i), in[i].clone());
        if (i < how.leaves && is_floating(in[i].dtype())) in[i].requires_grad_();
      }
      const std::vector<Tensor> out = forward(*module, in);
      std::vector<Tensor> roots, weights;
      for (size_t j = 0; j < out.size(); ++j) {
        c.results.push_back({"out" + std::to_string(j), out[j].detach()});
        if (!out[j].requires_grad()) continue;
        roots.push_back(out[j]);
        weights.push_back(randn(out[j].sizes(), {.dtype = out[j].dtype()}));
        exchange_.give(name, "weight" + std::to_string(j), weights.back());
      }
      if (!roots.empty()) autograd::backward(roots, weights);
      for (size_t i = 0; i < in.size(); ++i)
        if (in[i].grad().defined()) c.results.push_back({"grad" + std::to_string(i), in[i].grad()});
      for (const NamedTensor& t : module->named_parameters())
        if (t.tensor.grad().defined()) c.results.push_back({"grad." + t.name, t.tensor.grad()});
      for (const NamedTensor& t : module->named_buffers())
        c.results.push_back({"after." + t.name, t.tensor.detach().clone()});
      Fields f;
      f.text("layer", layer).raw("arguments", how.arguments).raw("options", how.options.object());
      f.raw("call", how.call.object()).flag("training", how.training).flag("double", type == DType::float64);
      f.integer("leaves", static_cast<int64_t>(how.leaves));
      exchange_.ask(name, "layer", f);
      cases_.push_back(std::move(c));
    }
  }

  /// A layer of one tensor; its inputs are drawn normally.
  template <class Layer, class... Args>
  void one(const std::string& layer, const LayerArguments& how, const Dims& sizes, Args... args) {
    add(
        layer, how, [&](DType t) { return std::vector<Tensor>{randn(sizes, {.dtype = t})}; },
        [&] { return std::make_unique<Layer>(args...); },
        [](Layer& m, const std::vector<Tensor>& in) { return std::vector<Tensor>{m(in[0])}; });
  }

  void compare() {
    exchange_.run();
    for (const Case& c : cases_) {
      INFO(c.name);
      if (const std::string reason = exchange_.without(c.name); reason != "") {
        INFO(reason);
        CHECK(reason.rfind("error: ", 0) != 0);
        std::printf("%s: %s\n", c.name.c_str(), reason.c_str());
        continue;
      }
      compare_results(exchange_, c.name, c.results, agreement(c.type));
    }
  }

 private:
  struct Case {
    std::string name;
    DType type;
    std::vector<NamedTensor> results;
  };
  Exchange exchange_;
  std::vector<Case> cases_;
};

}  // namespace tandem::test
