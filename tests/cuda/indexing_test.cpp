// Indexing, special functions and pooling over three axes on the device: eager and traced bit for bit, near
// the CPU's (whose float64 functions may have other last bits); what is out of range.
#include <functional>

#include "tests/cuda/on_device.h"
#include "tests/error_message.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

Tensor at(std::initializer_list<int64_t> i, td::Device device) { return td::tensor<int64_t>(i).to(device); }

using Body = std::function<Tensor(const Tensor&)>;

/// Result and gradient.
std::vector<float> outcome(const Body& body, td::Device device) {
  td::Generator g(7);
  const Tensor x = (td::rand({4, 6}, {}, &g) * 4.0 - 2.0).to(device).requires_grad_();
  const Tensor y = body(x);
  y.sum().backward();
  std::vector<float> all = y.detach().to_vector<float>();
  const std::vector<float> slope = x.grad().to_vector<float>();
  all.insert(all.end(), slope.begin(), slope.end());
  return all;
}

}  // namespace

TEST_CASE("cuda indexing and special functions are the same eager and traced, and near the CPU's", "[cuda]") {
  need_device();
  const std::pair<const char*, Body> rows[] = {
      {"positions",
       [](const Tensor& x) {
         return x[at({0, -1, 2, 0}, x.device())].square();
       }},
      {"two axes",
       [](const Tensor& x) {
         return x.index({at({0, -1, 2}, x.device()), at({5, -6, 1}, x.device())}).square();
       }},
      {"behind a slice",
       [](const Tensor& x) {
         return x.index({td::Slice(1, 3), at({-2, 1}, x.device())}) * 2.0;
       }},
      {"a mask", [](const Tensor& x) { return x[x > 0.0] * 3.0; }},
      {"putting",
       [](const Tensor& x) {
         const Tensor y = x * 2.0;
         y.index_put_({at({1, -1}, x.device())}, 0.5);
         y.index_put_({td::Slice(), at({2}, x.device())}, x.slice(1, 0, 1), true);
         y.index_put_({y > 2.0}, 2.0);
         return y;
       }},
      {"lgamma", [](const Tensor& x) { return td::lgamma(x) + td::digamma(x); }},
      {"bessel", [](const Tensor& x) { return td::i0(x) * td::special::i1e(x) + td::sinc(x); }},
      {"pooling",
       [](const Tensor& x) {
         const Tensor v = x.view({1, 2, 3, 2, 2});
         return td::max_pool3d(v, 2, 1) + td::avg_pool3d(v, 2, 1, 0, true);
       }},
      {"cubic",
       [](const Tensor& x) {
         return td::interpolate(x.view({1, 2, 3, 4}), {.size = {5, 3}, .mode = td::Interpolation::bicubic});
       }},
  };
  for (const auto& [name, body] : rows) {
    INFO(name);
    const std::vector<float> eager = outcome(body, kCuda), host = outcome(body, td::cpu);
    REQUIRE(eager.size() == host.size());
    for (size_t i = 0; i < host.size(); ++i) CHECK(eager[i] == Approx(host[i]).epsilon(1e-5).margin(1e-6));
    auto traced = td::trace(body);
    for (int call = 0; call < 2; ++call)
      CHECK(outcome([&](const Tensor& x) { return traced(x); }, kCuda) == eager);
  }
}

TEST_CASE("cuda indexing refuses what is out of range at the next read", "[cuda]") {
  need_device();
  const Tensor x = td::ones({3, 4}).to(kCuda);
  for (const int64_t wrong : {int64_t{3}, int64_t{-4}}) {
    CHECK_THAT(message([&] { x[at({0, wrong}, kCuda)].sum().item<float>(); }), Contains("out of range"));
    CHECK_THAT(message([&] {
                 x.index({at({0, wrong}, kCuda), at({0, 1}, kCuda)}).sum().item<float>();
               }),
               Contains("out of range"));
    CHECK_THAT(message([&] { x.index_put({at({wrong}, kCuda)}, 1.0).sum().item<float>(); }),
               Contains("out of range"));
  }
  CHECK(x.sum().item<float>() == 12);
}
