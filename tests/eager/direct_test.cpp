// The short way of small contiguous calls (eager/direct.h) against the general one, which strided operands
// take: the same bits, histories, versions and errors.
#include <bit>
#include <cmath>
#include <functional>
#include <optional>

#include "tandem/core/profile.h"
#include "tandem/eager/direct.h"
#include "tandem/eager/tape.h"
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

const std::vector<std::function<Tensor(const Tensor&, const Tensor&)>> kFunctions = {
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
    [](const Tensor& a, const Tensor& b) { return td::pow(a.abs(), b); },
    [](const Tensor& a, const Tensor&) { return td::sqrt(a.abs()); },
    [](const Tensor& a, const Tensor&) { return a * a; },
    [](const Tensor& a, const Tensor&) { return a + a; },
    [](const Tensor& a, const Tensor& b) { return a.clone().sub_(b); },
};

}  // namespace

TEST_CASE("small contiguous calls give the bits of the general way", "[eager]") {
  for (const int64_t n : {1, 4, 7, 64, 1001, 16384}) {
    const Tensor a = sample(n, 1), b = sample(n, 2);
    const Tensor wide_a = strided(a), wide_b = strided(b);
    for (size_t k = 0; k < kFunctions.size(); ++k) {
      INFO("function " << k << " of " << n);
      CHECK(bits(kFunctions[k](a, b)) == bits(kFunctions[k](wide_a, wide_b)));
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
  const Tensor a = td::arange(0.f, 24);
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

namespace {

/// A view of `t` as the general way would lay it out.
td::ops::Layout laid_out(const Tensor& t, td::ops::OpId op, const std::vector<int64_t>& words) {
  td::core::TensorImpl* in[] = {t.impl()};
  return td::eager::infer_view(
      {.op = op, .n_in = 1, .n_words = static_cast<uint32_t>(words.size()), .in = in, .words = words.data()});
}

void check_view(const Tensor& t, const Tensor& v, td::ops::OpId op, const std::vector<int64_t>& words) {
  const td::ops::Layout wanted = laid_out(t, op, words);
  const td::core::TensorImpl& i = *v.impl();
  CHECK(i.sizes == wanted.sizes);
  CHECK(i.strides == wanted.strides);
  CHECK(i.offset == wanted.offset);
  CHECK(i.numel == td::numel(wanted.sizes));
  CHECK(i.storage == t.impl()->storage);
  CHECK(i.data == static_cast<char*>(i.storage->data) + wanted.offset * td::itemsize(t.dtype()));
  CHECK(i.has(td::core::kContiguous) == td::is_contiguous(wanted.sizes, wanted.strides));
}

}  // namespace

TEST_CASE("views along axes lie where the general way lays them", "[eager]") {
  using td::ops::OpId;
  const Tensor whole = td::arange(0.f, 120).to(td::float16).reshape({2, 3, 4, 5});
  for (const Tensor& t : {whole, whole.permute({3, 1, 0, 2}), whole.slice(3, 1, 5, 2), whole.select(0, 1),
                          whole.slice(1, 1, 2), td::zeros({3, 0, 2}), td::ones({1, 1})}) {
    const int rank = t.dim();
    for (int a = -rank; a < rank; ++a) {
      const int64_t size = t.size(a);
      for (int b = -rank; b < rank; ++b) {
        std::vector<int64_t> words{rank};
        for (int i = 0; i < rank; ++i) words.push_back(i);
        std::swap(words[static_cast<size_t>(1 + (a + rank) % rank)],
                  words[static_cast<size_t>(1 + (b + rank) % rank)]);
        check_view(t, t.transpose(a, b), OpId::permute, words);
      }
      for (int64_t at = -size; at < size; ++at) check_view(t, t.select(a, at), OpId::select, {a, at});
      for (int64_t from = -size - 1; from <= size + 1; ++from)
        for (int64_t to = -size - 1; to <= size + 1; ++to)
          for (const int64_t step : {int64_t{1}, int64_t{2}, int64_t{100}, INT64_MAX})
            check_view(t, t.slice(a, from, to, step), OpId::slice, {a, from, to, step});
    }
  }
  CHECK_THROWS_WITH(whole.permute({0, 0, 1, 2}), Contains("once") && Contains("direct_test.cpp"));
  CHECK_THROWS_WITH(whole.permute({0, 1, 2, 4}), Contains("direct_test.cpp"));
  CHECK_THROWS_WITH(whole.permute({0, 1, 2}), Contains("once"));
  CHECK_THROWS_WITH(whole.select(0, 2), Contains("out of range"));
  CHECK_THROWS_WITH(whole.select(4, 0), Contains("direct_test.cpp"));
  CHECK_THROWS_WITH(whole.slice(0, 0, 1, 0), Contains("step must be positive"));
}

TEST_CASE("views along axes have the histories of the general way", "[eager]") {
  const Tensor a = td::arange(0.f, 6).reshape({2, 3}).detach().requires_grad_();
  const Tensor y = td::zeros({3, 2});
  y.add_(0.f);
  y.select(0, 1).copy_(a.transpose(0, 1).select(0, 2));  // a change through a view gives the base a history
  CHECK(y.requires_grad());
  CHECK(y.to_vector<float>() == Values{0, 0, 2, 5, 0, 0});
  (y.slice(0, 1, 3) * td::full({2, 2}, 7.f)).sum().backward();
  CHECK(a.grad().to_vector<float>() == Values{0, 0, 7, 0, 0, 7});
  CHECK_THROWS_WITH(a.select(0, 1).mul_(2.f), Contains("a view of a leaf"));
  const Tensor blind = [&] {
    const td::NoGrad no_grad;
    return y.slice(0, 0, 1);
  }();
  CHECK_THROWS_WITH(blind.mul_(a.sum()), Contains("a view made under NoGrad"));
}

TEST_CASE("gradients of small contiguous calls have the bits of the general way", "[eager]") {
  for (const int64_t n : {1, 4, 7, 1001, 16384})
    for (size_t k = 0; k < kFunctions.size(); ++k)
      for (int needed = 1; needed < 4; ++needed) {
        INFO("function " << k << " of " << n << ", needed " << needed);
        const Tensor flows = sample(n, 3);
        const auto gradients = [&](bool profiled) {
          const Tensor a = sample(n, 1), b = sample(n, 2);
          if (needed & 1) a.requires_grad_();
          if (needed & 2) b.requires_grad_();
          const Tensor y = kFunctions[k](a, b);
          std::vector<std::vector<uint32_t>> out;
          if (!y.requires_grad()) return out;
          std::optional<td::Profile> profile;
          if (profiled) profile.emplace("");  // every gradient goes the general way
          y.backward(flows);
          if (profile) profile->finish();
          for (const Tensor& t : {a, b})
            if (t.grad().defined()) out.push_back(bits(t.grad()));
          return out;
        };
        const auto direct = gradients(false);
        CHECK(direct == gradients(true));
      }
}

TEST_CASE("gradients of small calls: memory of their own, consumed tapes, hooks that change the root",
          "[eager]") {
  const Tensor w = td::tensor({2.f, 3.f}).requires_grad_(), x = td::tensor({5.f, 7.f}).requires_grad_();
  (w + x).sum().backward();
  w.grad().mul_(3.f);  // not x's
  CHECK(x.grad().to_vector<float>() == Values{1, 1});
  const Tensor y = w * x;
  y.sum().backward();
  CHECK(w.grad().to_vector<float>() == Values{8, 10});
  CHECK(x.grad().to_vector<float>() == Values{3, 4});
  CHECK_THROWS_WITH(y.sum().backward(), Contains("was freed by an earlier backward"));
  const Tensor z = w * x;
  x.detach().mul_(2.f);
  CHECK_THROWS_WITH(z.sum().backward(), Contains("changed in place at "));

  // The walk keeps what it walks, whatever becomes of the root.
  x.zero_grad();
  Tensor root = w * x;
  for (int i = 0; i < 50; ++i) root = root * td::ones({2});
  root.register_hook([&](const Tensor& g) {
    const td::NoGrad no_grad;
    root = Tensor();
    return g * 2.f;
  });
  root.backward(td::ones({2}));
  CHECK_FALSE(root.defined());
  CHECK(x.grad().to_vector<float>() == Values{4, 6});
}

TEST_CASE("which gradients and views go the short way", "[eager]") {
  using td::core::Ref;
  using td::core::TensorImpl;
  const auto short_way = [](const Tensor& y, const Tensor& flows) {
    td::eager::Node& n = *td::eager::as_node(y.impl()->grad_fn.get());
    const Ref<TensorImpl> grad(flows.impl());
    std::vector<Ref<TensorImpl>> out(n.in.size());
    std::vector<td::eager::GradientMemory> memory(n.in.size());
    return td::eager::direct_gradient(n, {&grad, 1}, out, memory);
  };
  const Tensor a = td::full({4}, 2.f).requires_grad_(), b = td::full({4}, 3.f).requires_grad_();
  const Tensor g = td::ones({4}), c = td::full({4}, 5.f);
  CHECK(short_way(a + b, g));
  CHECK(short_way(a - b, g));
  CHECK(short_way(a * b, g));
  CHECK(short_way(a * c, g));
  CHECK(short_way(a / c, g));
  CHECK(short_way(-a, g));
  CHECK(short_way(td::exp(a), g));
  CHECK_FALSE(short_way(c / a, g));                                // more than one function
  CHECK_FALSE(short_way(a * 2.f, g));                              // a number
  CHECK_FALSE(short_way(a * td::ones({3, 4}), td::ones({3, 4})));  // summed
  CHECK_FALSE(short_way(a * b, strided(g)));
  const Tensor large = td::ones({1 << 16}).requires_grad_();
  CHECK_FALSE(short_way(large * large, td::ones({1 << 16})));
  const Tensor half = a.detach().to(td::float16).requires_grad_();
  CHECK_FALSE(short_way(half * half, g.to(td::float16)));

  const auto short_view = [](const Tensor& t, td::ops::OpId op, const std::vector<int64_t>& words) {
    TensorImpl* in[] = {t.impl()};
    Ref<TensorImpl> out;
    return td::eager::direct({.op = op,
                              .n_in = 1,
                              .n_words = static_cast<uint32_t>(words.size()),
                              .in = in,
                              .words = words.data()},
                             &out);
  };
  using td::ops::OpId;
  const Tensor m = td::ones({3, 4});
  CHECK(short_view(m, OpId::permute, {2, 1, 0}));
  CHECK(short_view(m.t(), OpId::select, {1, 2}));
  CHECK(short_view(m, OpId::slice, {0, 1, 3, 1}));
  CHECK_FALSE(short_view(m, OpId::permute, {2, 1, 1}));
  CHECK_FALSE(short_view(m, OpId::select, {1, 4}));
  CHECK_FALSE(short_view(m, OpId::slice, {0, 1, 1, 1}));
}
