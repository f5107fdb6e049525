// Helpers of the tests of frozen replay: a small model with its training step, batches, messages.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

namespace programs {

/// The message of the Error that `f` throws, or "".
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const td::Error& e) {
    return e.what();
  }
  return "";
}

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::string here(int line, const char* file = __builtin_FILE()) {
  const std::string path = file;
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
}

struct Net : td::nn::Module {
  explicit Net(double p = 0) : p(p) {}
  double p;
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 6, 8);
  td::nn::LayerNorm norm = child<td::nn::LayerNorm>("norm", 8);
  td::nn::Dropout drop = child<td::nn::Dropout>("drop", p);
  td::nn::Linear out = child<td::nn::Linear>("out", 8, 3);
  td::Tensor forward(const td::Tensor& x) { return out(drop(td::gelu(norm(hidden(x))))); }
};

/// A model, its optimizer and a training step.
template <class Optimizer>
struct Training {
  template <class Options>
  Training(double p, Options options) : net(p), opt(net.parameters(), options) {}
  Net net;
  Optimizer opt;
  td::Tensor operator()(const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  }
  Values numbers() {
    Values out;
    for (const td::NamedTensor& n : net.state()) append(out, n.tensor);
    for (const td::NamedTensor& n : opt.state()) append(out, n.tensor);
    for (const td::Tensor& p : net.parameters()) append(out, p.grad());
    out.push_back(static_cast<float>(td::default_generator().offset()));
    return out;
  }
};

inline std::pair<td::Tensor, td::Tensor> batch(int i) {
  td::Generator g(static_cast<uint64_t>(i) + 1);
  const td::Tensor x = td::randn({5, 6}, {}, &g);
  return {x, td::randint(0, 3, {5}, {.dtype = td::int64}, &g)};
}

/// Calls a traced function as often as freezing needs, and freezes it.
template <class Step, class... Args>
auto frozen_after_two(Step& step, const Args&... args) {
  step(args...);
  step(args...);
  return step.freeze();
}

struct Two {
  td::Tensor sum;
  std::vector<td::Tensor> parts;
};

}  // namespace programs
