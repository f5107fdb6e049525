// Functions that are several ops, some of which read values, inside a traced call: what eager mode gives,
// while the values that they read change from call to call; and gradients through them.
#include <functional>

#include "tandem/eager/functions.h"
#include "tandem/tracer/trace.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

Tensor input(int call, const td::Dims& sizes) {
  td::Generator g(static_cast<uint64_t>(call) + 7);
  return td::rand(sizes, {}, &g) * 4.0 - 2.0;
}

/// The body's result and the gradient of its sum, call by call.
std::vector<std::vector<float>> outcomes(bool traced, const std::function<Tensor(Tensor)>& body) {
  std::vector<std::vector<float>> all;
  const auto step = [&](Tensor x) {
    const Tensor y = body(x);
    y.sum().backward();
    return y;
  };
  auto f = td::trace(step, {.name = "step", .compile = false});
  for (int call = 0; call < 5; ++call) {
    const Tensor x = input(call, {4, 3}).requires_grad_();
    const Tensor y = traced ? f(x) : step(x);
    all.push_back(y.to_vector<float>());
    all.push_back(x.grad().to_vector<float>());
  }
  return all;
}

}  // namespace

TEST_CASE("compositions: in a traced call as in eager mode", "[tracer]") {
  const std::pair<const char*, std::function<Tensor(Tensor)>> rows[] = {
      {"masked_select", [](Tensor x) { return td::masked_select(x, x > 0.0) * 2.0; }},
      {"nonzero", [](Tensor x) { return x.sum() * td::nonzero(x > 0.5).to(td::float32).sum(); }},
      {"unique", [](Tensor x) { return x * static_cast<double>(td::unique(td::round(x)).numel()); }},
      {"sort", [](Tensor x) { return x.sort(1).values * td::arange(0, 3); }},
      {"topk", [](Tensor x) { return x.topk(2, 0).values.square(); }},
      {"median", [](Tensor x) { return x.median(1).values * 3.0; }},
      {"quantile", [](Tensor x) { return x.quantile(0.4, 0); }},
      {"einsum",
       [](Tensor x) {
         return td::einsum("ij,kj->ik", {x, x});
       }},
      {"index_put",
       [](Tensor x) {
         const Tensor at[] = {td::tensor<int64_t>({0, 2})};
         return x.index_put(at, x.slice(0, 0, 2), true).square();
       }},
      {"norm", [](Tensor x) { return td::normalize(x) + x.norm(3) + x.norm(INFINITY, {1}, true); }},
      {"smoothing",
       [](Tensor x) {
         const Tensor labels = td::tensor<int64_t>({0, 2, 1, 1});
         return td::cross_entropy(x, labels,
                                  {.weight = td::tensor<float>({1, 2, 3}), .label_smoothing = 0.1});
       }},
      {"one_hot", [](Tensor x) { return x * td::one_hot(x.detach().argmax(1), 3); }},
      {"diag", [](Tensor x) { return td::diag(x.slice(0, 0, 3), 1) + x.unfold(0, 2, 2).sum(); }},
      {"cummax", [](Tensor x) { return x.cummax(0).values.cumprod(1); }},
  };
  for (const auto& [name, body] : rows) {
    CAPTURE(name);
    CHECK(outcomes(false, body) == outcomes(true, body));
  }
}
