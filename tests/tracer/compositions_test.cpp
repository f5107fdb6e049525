// Functions that are several ops, some of which read values, inside a traced call: what eager mode gives,
// while the values that they read change from call to call; and gradients through them.
#include <functional>

#include "tandem/eager/functions.h"
#include "tandem/eager/nn/nn.h"
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
      {"sort", [](Tensor x) { return x.sort(1).values * td::arange(0.f, 3); }},
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
      {"positions",
       [](Tensor x) {
         return x[td::tensor<int64_t>({0, -1, 0})].square();
       }},
      {"a mask", [](Tensor x) { return x[x > 0.0] * 2.0; }},
      {"positions of two axes",
       [](Tensor x) {
         const Tensor at = x.detach().argmax(1);
         return x.index({td::arange(0, 4, 1, {.dtype = td::int64}), at}) * x.index({td::Slice(1), -1}).sum();
       }},
      {"index_put_",
       [](Tensor x) {
         const Tensor y = x * 2.0, at = x.detach().argmin(0);
         y.index_put_({at}, x.slice(0, 0, 3), true);
         y.index_put_({td::Slice(1, 3), td::tensor<int64_t>({-1})}, 0.5);
         y.index_put_({y > 3.0}, 3.0);
         return y;
       }},
      {"special functions",
       [](Tensor x) {
         return td::lgamma(x) + td::digamma(x.abs() + 0.1) + td::i0(x) + td::special::i1e(x) + td::sinc(x);
       }},
      {"einsum with an ellipsis",
       [](Tensor x) {
         return td::einsum("...j,k...j,l->k", {x, x.unsqueeze(0), x[0]});
       }},
      {"pooling over three axes",
       [](Tensor x) {
         const Tensor v = x.repeat({2, 2}).view({1, 2, 3, 4, 2});
         return td::max_pool3d(v, 2, 1) + td::avg_pool3d(v, 2, 1, 0, true);
       }},
      {"unpooling",
       [](Tensor x) {
         const td::ValuesIndices top = td::max_pool2d_with_indices(x.unsqueeze(0), 2);
         return td::max_unpool2d(top.values, top.indices, 2, {}, 0, {4, 3});
       }},
      {"packed sequences",
       [](Tensor x) {
         namespace rnn = td::nn::utils::rnn;
         const Tensor lengths = td::tensor<int64_t>({2, 4, 1});
         const auto packed = rnn::pack_padded_sequence(x.unsqueeze(2), lengths, false, false);
         return rnn::pad_packed_sequence(packed, false, 0.5).first * 2.0 + packed.data.sum();
       }},
      {"an embedding with a largest norm",
       [](Tensor x) {
         const Tensor weight = x.detach().clone();
         td::embedding_renorm_(weight, td::tensor<int64_t>({1, 2, 1}), 1.0);
         return x * weight;
       }},
      {"alpha_dropout and rrelu",
       [](Tensor x) {
         td::manual_seed(3);
         return td::alpha_dropout(x, 0.4, true) + td::rrelu(x, 0.1, 0.3, true);
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

TEST_CASE("indexing by positions, and one value under a mask, read nothing", "[tracer]") {
  const auto body = [](const Tensor& x) {
    const Tensor y = x * 2.0, at = y.argmax(1);
    y.index_put_({y > 1.0}, 1.0);
    return y.index({td::Slice(), at}) + y[at[0]].sum() + td::einsum("...i,...i->...", {y, y});
  };
  auto f = td::trace(body, {.name = "step", .compile = false});
  for (int call = 0; call < 3; ++call) {
    const Tensor x = input(call, {3, 3});
    CHECK(f(x).to_vector<float>() == body(x).to_vector<float>());
  }
  CHECK(f.report().segments == 1);
  auto reads = td::trace([](const Tensor& x) { return x[x > 0.0].sum(); }, {.compile = false});
  reads(input(0, {3, 3}));
  CHECK(reads.report().segments == 2);
}
