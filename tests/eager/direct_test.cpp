// The short way of small contiguous calls (eager/direct.h) against the general one, which strided operands
// take: the same bits, histories, versions and errors.
#include <bit>
#include <cmath>
#include <functional>

#include "tandem/core/profile.h"
#include "tandem/eager/dispatch.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using Catch::Matchers::Contains;
using td::Tensor;
using Values = std::vector<float>;

namespace {

std::vector<uint32_t> bits(const Tensor& t) {
  std::vector<uint32_t> out;
  for (const float f : t.to_vector<float>()) out.push_back(std::bit_cast<uint32_t>(f));
  return out;
}

/// The same values with gaps between them.
Tensor strided(const Tensor& t) {
  const Tensor wide = td::zeros({t.numel(), 2});
  wide.select(1, 0).copy_(t);
  return wide.select(1, 0);
}

Tensor sample(int64_t n, int seed) {
  td::manual_seed(static_cast<uint64_t>(seed));
  const Tensor t = td::randn({n}) * 3.f;
  const float odd[] = {NAN, INFINITY, -INFINITY, -0.f, 0.f, 1e-40f};
  for (int64_t i = 0; i < 6 && i < n / 2; ++i) t[i].fill_(odd[(i + seed) % 6]);
  return t;
}

uint32_t version(const Tensor& t) { return td::eager::version_of(t.impl()); }

}  // namespace

TEST_CASE("small contiguous calls give the bits of the general way", "[eager]") {
  using F = std::function<Tensor(const Tensor&, const Tensor&)>;
  const F functions[] = {
      [](const Tensor& a, const Tensor& b) { return a + b; },
      [](const Tensor& a, const Tensor& b) { return a - b; },
      [](const Tensor& a, const Tensor& b) { return a * b; },
      [](const Tensor& a, const Tensor& b) { return a / b; },
      [](const Tensor& a, const Tensor& b) { return td::maximum(a, b); },
      [](const Tensor& a, const Tensor& b) { return td::minimum(a, b); },
      [](const Tensor& a, const Tensor& b) { return td::atan2(a, b); },
      [](const Tensor& a, const Tensor&) { return td::relu(a); },
      [](const Tensor& a, const Tensor&) { return td::exp(a); },
      [](const Tensor& a, const Tensor&) { return td::tanh(a); },
      [](const Tensor& a, const Tensor&) { return -a; },
      [](const Tensor& a, const Tensor&) { return a * 0.1; },
      [](const Tensor& a, const Tensor&) { return 0.1 - a; },
      [](const Tensor& a, const Tensor&) { return a / 3; },
      [](const Tensor& a, const Tensor&) { return 16777217 / a; },
      [](const Tensor& a, const Tensor&) {
        return a + int64_t{9007199791611905};
      },  // rounds otherwise by double
      [](const Tensor& a, const Tensor&) { return a * true; },
      [](const Tensor& a, const Tensor&) { return a * 1e300; },
      [](const Tensor& a, const Tensor&) { return td::maximum(a, 0.5); },
      [](const Tensor& a, const Tensor&) { return td::pow(2.5, a); },
  };
  for (const int64_t n : {1, 4, 7, 64, 1001, 16384}) {
    const Tensor a = sample(n, 1), b = sample(n, 2);
    const Tensor wide_a = strided(a), wide_b = strided(b);
    for (size_t k = 0; k < std::size(functions); ++k) {
      INFO("function " << k << " of " << n);
      CHECK(bits(functions[k](a, b)) == bits(functions[k](wide_a, wide_b)));
    }
  }
}

TEST_CASE("small in-place calls give the bits of the general way and move the version once", "[eager]") {
  using F = std::function<void(const Tensor&, const Tensor&)>;
  const F functions[] = {
      [](const Tensor& a, const Tensor& b) { a.add_(b); },
      [](const Tensor& a, const Tensor& b) { a.sub_(b); },
      [](const Tensor& a, const Tensor& b) { a.mul_(b); },
      [](const Tensor& a, const Tensor& b) { a.div_(b); },
      [](const Tensor& a, const Tensor&) { a.mul_(0.1); },
      [](const Tensor& a, const Tensor&) { a.sub_(3); },
      [](const Tensor& a, const Tensor&) { a.relu_(); },
      [](const Tensor& a, const Tensor&) { a.add_(a); },
  };
  for (const bool profiled : {false, true})
    for (const int64_t n : {1, 5, 1001})
      for (size_t k = 0; k < std::size(functions); ++k) {
        INFO("function " << k << " of " << n << (profiled ? ", profiled" : ""));
        const Tensor a = sample(n, 1), b = sample(n, 2);
        const Tensor wide_a = strided(a), wide_b = strided(b);
        const uint32_t before = version(a);
        const void* data = a.impl()->data;
        if (profiled) {
          td::Profile profile("");
          functions[k](a, b);
          CHECK(profile.finish().rows.size() >= 1);
        } else {
          functions[k](a, b);
        }
        functions[k](wide_a, wide_b);
        CHECK(bits(a) == bits(wide_a));
        CHECK(version(a) == before + 1);
        CHECK(a.impl()->data == data);
      }
}

TEST_CASE("small in-place calls keep histories, aliases and refusals", "[eager]") {
  const Tensor a = td::full({4}, 2.f).requires_grad_();
  SECTION("an operand with a history gives the changed tensor one") {
    const Tensor y = td::full({4}, 3.f);
    y.add_(a * 3.f);
    CHECK(y.requires_grad());
    y.sum().backward();
    CHECK(a.grad().to_vector<float>() == Values{3, 3, 3, 3});
  }
  SECTION("so does a view that hears of its base's history only now") {
    const Tensor base = td::full({4}, 3.f), view = base.view({2, 2});
    base.add_(a * 3.f);
    const Tensor y = td::full({2, 2}, 5.f);
    y.add_(view);
    y.sum().backward();
    CHECK(y.to_vector<float>() == Values{14, 14, 14, 14});
    CHECK(a.grad().to_vector<float>() == Values{3, 3, 3, 3});
  }
  SECTION("a changed view changes its base") {
    const Tensor base = td::ones({4});
    base.view({2, 2}).add_(a.view({2, 2}));
    CHECK(base.requires_grad());
    base.sum().backward();
    CHECK(a.grad().to_vector<float>() == Values{1, 1, 1, 1});
  }
  SECTION("what a gradient needs is missed") {
    const Tensor x = td::full({4}, 3.f);
    const Tensor y = a * x;
    x.mul_(2.f);
    CHECK_THROWS_WITH(y.sum().backward(), Contains("changed in place at ") && Contains("direct_test.cpp"));
  }
  SECTION("an operand that overlaps is read as of before") {
    const Tensor x = td::tensor({1.f, 2.f, 3.f, 4.f});
    x.slice(0, 1, 4).add_(x.slice(0, 0, 3));
    CHECK(x.to_vector<float>() == Values{1, 3, 5, 7});
    const td::NoGrad no_grad;
    x.slice(0, 1, 4).add_(x.slice(0, 0, 3));
    CHECK(x.to_vector<float>() == Values{1, 4, 8, 12});
  }
  SECTION("leaves and their views are refused while gradients are noted") {
    CHECK_THROWS_WITH(a.mul_(2.f), Contains("a leaf that requires grad") && Contains("direct_test.cpp"));
    CHECK_THROWS_WITH(a.relu_(), Contains("a leaf that requires grad"));
    CHECK_THROWS_WITH(a.view({2, 2}).mul_(td::ones({2, 2})), Contains("a view of a leaf"));
    CHECK(a.to_vector<float>() == Values{2, 2, 2, 2});
    const td::NoGrad no_grad;
    a.mul_(2.f);
    CHECK(a.to_vector<float>() == Values{4, 4, 4, 4});
  }
  SECTION("a view made under NoGrad is refused where a history would begin") {
    const Tensor base = td::ones({4});
    const Tensor blind = [&] {
      const td::NoGrad no_grad;
      return base.view({4});
    }();
    blind.mul_(2.f);
    CHECK_THROWS_WITH(blind.mul_(a), Contains("a view made under NoGrad"));
    CHECK(base.to_vector<float>() == Values{2, 2, 2, 2});
  }
}

TEST_CASE("sums and the like of small tensors give the bits of the general way", "[eager]") {
  for (const int64_t n : {1, 3, 64, 1000, 16384}) {
    INFO(n);
    td::manual_seed(5);
    const Tensor a = td::randn({n});
    CHECK(bits(a.sum()) == bits(strided(a).sum()));
    CHECK(bits(a.sum()) == bits(a.sum(0)));
    CHECK(bits(a.prod()) == bits(strided(a).prod()));
    CHECK(bits(a.amax()) == bits(strided(a).amax()));
    CHECK(bits(a.amin()) == bits(strided(a).amin()));
    CHECK(a.sum().sizes() == td::Dims{});
    CHECK(a.sum({}, true).sizes() == td::Dims{1});
  }
  const Tensor matrix = td::randn({30, 40});
  CHECK(bits(matrix.sum()) == bits(matrix.view({1200}).sum(0)));
  CHECK(td::zeros({0, 3}).sum().item<float>() == 0);
  CHECK_THROWS_WITH(td::zeros({0, 3}).amax(), Contains("direct_test.cpp"));
  CHECK(td::full({3}, 7).to(td::int64).sum().dtype() == td::int64);
  const Tensor leaf = td::ones({3}).requires_grad_();
  leaf.sum().backward();
  CHECK(leaf.grad().to_vector<float>() == Values{1, 1, 1});
}

TEST_CASE("views of contiguous tensors: sizes, strides, offsets, refusals", "[eager]") {
  const Tensor a = td::arange(0, 24);
  for (const Tensor& t : {a, a.to(td::float32), a.to(td::float16)}) {
    const Tensor part = t.slice(0, 12, 24);
    const Tensor v = part.reshape({2, -1, 1, 3});
    CHECK(v.sizes() == td::Dims{2, 2, 1, 3});
    CHECK(v.impl()->strides == td::Dims{6, 3, 3, 1});
    CHECK(v.impl()->offset == 12);
    CHECK(v.impl()->data == part.impl()->data);
    CHECK(v.dtype() == t.dtype());
    CHECK(v[1][0][0][2].item<float>() == 20);
  }
  CHECK(td::ones({1}).reshape({}).dim() == 0);
  CHECK(td::ones({}).reshape({1, 1}).sizes() == td::Dims{1, 1});
  CHECK(td::zeros({0, 3}).reshape({3, 0}).sizes() == td::Dims{3, 0});
  CHECK(td::zeros({0, 3}).reshape({-1, 3}).sizes() == td::Dims{0, 3});
  CHECK_THROWS_WITH(a.reshape({5, 5}), Contains("has 24 elements") && Contains("direct_test.cpp"));
  CHECK_THROWS_WITH(a.reshape({5, -1}), Contains("no multiple of 5"));
  CHECK_THROWS_WITH(a.reshape({-1, -1}), Contains("more than one size is -1"));
  CHECK_THROWS_WITH(a.reshape({-2, -12}), Contains("negative size"));
  CHECK_THROWS_AS(a.reshape({int64_t{1} << 40, int64_t{1} << 40}), td::Error);
  td::Profile profile("");
  CHECK(a.reshape({4, 6}).sizes() == td::Dims{4, 6});
  CHECK(profile.finish().rows.size() == 1);
}

TEST_CASE("a chain of views of any length dies without a deep stack", "[eager]") {
  const Tensor base = td::ones({4});
  Tensor v = base;
  for (int i = 0; i < 200'000; ++i) v = v.reshape({2, 2});
  v.add_(1.f);
  CHECK(base.to_vector<float>() == Values{2, 2, 2, 2});
  v = Tensor();
  CHECK(base.impl()->refs.get() == 1);
}
