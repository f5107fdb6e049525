// Functions beside PyTorch's: a few lines of Python over named tensors (code_lines.py) and the same in C++,
// results and gradients of all floating tensors, in float32 and float64. One suite a test.
#pragma once

#include <functional>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tests/pytorch/exchange.h"

namespace tandem::test {

class CodeSuite {
 public:
  using Tensors = std::vector<Tensor>;
  /// `code` leaves its results in y. Floating inputs are cast to both types.
  void add(const std::string& code, const std::vector<NamedTensor>& inputs,
           const std::function<Tensors(const Tensors&)>& ours) {
    for (const DType type : {DType::float32, DType::float64}) {
      const std::string name = '#' + std::to_string(exchange_.asked()) + '.' + tandem::name(type);
      Case c{name, code, type, {}};
      Tensors in;
      std::string names, leaves;
      for (const NamedTensor& t : inputs) {
        const bool floating = is_floating(t.tensor.dtype());
        in.push_back(floating ? t.tensor.to(type).clone() : t.tensor.clone());
        exchange_.give(name, t.name, in.back().clone());
        names += (names.empty() ? "" : ", ") + Fields::quoted(t.name);
        if (!floating) continue;
        in.back().requires_grad_();
        leaves += (leaves.empty() ? "" : ", ") + Fields::quoted(t.name);
      }
      const Tensors out = ours(in);
      Tensors roots, weights;
      for (size_t j = 0; j < out.size(); ++j) {
        c.results.push_back({"out" + std::to_string(j), out[j].detach()});
        if (!out[j].requires_grad()) continue;
        manual_seed(11 + static_cast<uint64_t>(j));
        roots.push_back(out[j]);
        weights.push_back(randn(out[j].sizes(), {.dtype = out[j].dtype()}));
        exchange_.give(name, "weight" + std::to_string(j), weights.back());
      }
      if (!roots.empty()) autograd::backward(roots, weights);
      for (size_t i = 0; i < in.size(); ++i)
        if (in[i].grad().defined()) c.results.push_back({"grad." + inputs[i].name, in[i].grad()});
      Fields f;
      f.raw("code", Fields::quoted(code)).raw("inputs", "[" + names + "]");
      exchange_.ask(name, "code", f.raw("leaves", roots.empty() ? "[]" : "[" + leaves + "]"));
      cases_.push_back(std::move(c));
    }
  }
  void add(const std::string& code, const std::vector<NamedTensor>& inputs,
           const std::function<Tensor(const Tensors&)>& ours) {
    add(code, inputs, [&](const Tensors& in) { return Tensors{ours(in)}; });
  }

  void compare() {
    exchange_.run();
    for (const Case& c : cases_) {
      INFO(c.name << ": " << c.code);
      const std::string reason = exchange_.without(c.name);
      INFO(reason);
      CHECK(reason == "");
      if (reason != "") continue;
      compare_results(exchange_, c.name, c.results, agreement(c.type));
    }
  }

 private:
  struct Case {
    std::string name, code;
    DType type;
    std::vector<NamedTensor> results;
  };
  Exchange exchange_;
  std::vector<Case> cases_;
};

}  // namespace tandem::test
