// What traced and frozen functions keep of weights on a device: eager mode's results with it, and after
// changes.
#include "tests/cuda/on_device.h"
#include "tests/programs/classifier.h"

namespace td = tandem;
using namespace tandem::test;

TEST_CASE("casts and factors of weights on a device are kept and follow changes", "[cuda]") {
  need_device();
  td::manual_seed(1);
  programs::Classifier net;
  net.to(kCuda);
  net.eval();
  const td::NoGrad no_grad;
  const auto body = [&](const td::Tensor& x) {
    const td::autocast mixed(td::bfloat16);
    return net.forward(x).to(td::float32);
  };
  auto traced = td::trace(body);
  const td::Tensor x = td::randn({5, 20}).to(kCuda);
  traced(x), traced(x);
  auto frozen = traced.freeze();
  const auto values = [&](const td::Tensor& t) { return t.to_vector<float>(); };
  constexpr int64_t kLeast = 2 * (20 * 70 + 70 * 17);
  for (const bool changed : {false, true}) {
    if (changed) net.hidden.weight.mul_(2), net.norm.running_var.add_(1);
    const std::vector<float> want = values(body(x));
    CHECK(values(frozen(x)) == want);
    CHECK(frozen.report().kept_bytes == 0);
    for (int i = 0; i < 3; ++i) CHECK(values(frozen(x)) == want);
    CHECK(frozen.report().kept_bytes >= kLeast);
    CHECK(values(traced(x)) == want);
    CHECK(traced.report().kept_bytes == 0);
    for (int i = 0; i < 8; ++i) CHECK(values(traced(x)) == want);
    CHECK(traced.report().kept_bytes >= kLeast);
  }
  const td::Tensor other = td::randn({5, 20}).to(kCuda);
  CHECK(values(frozen(other)) == values(body(other)));
  CHECK(values(traced(other)) == values(body(other)));
}
