// Histories of tensors that share memory: in-place ops on views and on their bases.
#include "tandem/core/allocator.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;
using Values = std::vector<float>;

namespace {

Values gradient(const Tensor& t) { return t.grad().to_vector<float>(); }
Tensor leaf(td::Dims sizes, float value) { return td::full(sizes, value).requires_grad_(); }

}  // namespace

TEST_CASE("an in-place op on a view changes the history of its base", "[eager]") {
  const Tensor a = leaf({4}, 1);
  const Tensor t = a * 2.f;
  const Tensor v = t.slice(0, 1, 3);
  v.mul_(3.f);
  t.sum().backward();
  CHECK(gradient(a) == Values{2, 6, 6, 2});
}

TEST_CASE("a base without history gets one when a view is written", "[eager]") {
  const Tensor a = leaf({2}, 1);
  const Tensor out = td::zeros({4});
  const Tensor other = out.slice(0, 0, 1);
  out.slice(0, 0, 2).copy_(a * 3.f);
  CHECK(out.requires_grad());
  CHECK_FALSE(out.is_leaf());
  CHECK(other.requires_grad());
  (out.sum() + other.sum()).backward();
  CHECK(gradient(a) == Values{6, 3});
}

TEST_CASE("views follow an in-place op on their base", "[eager]") {
  const Tensor a = leaf({4}, 1);
  const Tensor t = a * 2.f;
  const Tensor v = t.view({2, 2}).t();
  t.mul_(3.f);
  v.sum().backward();
  CHECK(gradient(a) == Values{6, 6, 6, 6});
}

TEST_CASE("overwriting a view cuts its part of the history", "[eager]") {
  const Tensor a = leaf({2, 2}, 1);
  const Tensor t = a * 2.f;
  t.select(0, 0).fill_(0.f);
  t.select(1, 1).select(0, 1).zero_();
  t.sum().backward();
  CHECK(gradient(a) == Values{0, 0, 2, 0});
}

TEST_CASE("cutting a part does not spread what is not finite", "[eager]") {
  const Tensor a = leaf({2}, 0);
  const Tensor t = a * 1.f;
  t.select(0, 0).fill_(1.f);
  (td::log(t) * td::tensor({1.f, 0.f})).sum().backward();
  CHECK(gradient(a)[0] == 0);
}

TEST_CASE("views of views, written in turn", "[eager]") {
  const Tensor a = leaf({2, 3}, 1), b = leaf({3}, 2);
  const Tensor t = a * 1.f;
  const Tensor row = t.select(0, 1), part = row.slice(0, 0, 2);
  part.mul_(4.f);
  row.add_(b);
  part.mul_(5.f);
  (t * td::arange(1.f, 7).view({2, 3})).sum().backward();
  CHECK(gradient(a) == Values{1, 2, 3, 80, 100, 6});
  CHECK(gradient(b) == Values{20, 25, 6});
}

TEST_CASE("detached tensors share memory but no history", "[eager]") {
  const Tensor a = leaf({4}, 1);
  const Tensor t = a * 2.f;
  t.detach().mul_(3.f);
  t.sum().backward();
  CHECK(gradient(a) == Values{2, 2, 2, 2});
  const Tensor b = leaf({4}, 1);
  const Tensor d = td::zeros({4}).detach();
  d.add_(b);
  CHECK(d.requires_grad());
}

TEST_CASE("what in-place changes of views refuse", "[eager]") {
  const Tensor a = leaf({4}, 1);
  CHECK_THROWS_WITH(a.slice(0, 0, 2).add_(1.f),
                    Catch::Contains("a view of a leaf") && Catch::Contains("views_test.cpp"));
  const Tensor buffer = td::zeros({4});
  Tensor blind;
  {
    const td::NoGrad no_grad;
    blind = buffer.slice(0, 0, 2);
    blind.add_(a.slice(0, 0, 2));
  }
  blind.add_(1.f);
  CHECK_THROWS_WITH(blind.add_(a.slice(0, 0, 2)), Catch::Contains("made under NoGrad"));
  CHECK(buffer.to_vector<float>() == Values{2, 2, 0, 0});
}

TEST_CASE("gradients through written views are differentiable again", "[eager]") {
  const Tensor a = leaf({3}, 2);
  const Tensor t = a * a;
  const Tensor u = t.slice(0, 0, 2);
  u.mul_(3.f).add_(a.slice(0, 1, 3) * a.slice(0, 0, 2));  // 3 a0^2 + a0 a1, 3 a1^2 + a1 a2, a2^2
  const Tensor g = td::autograd::grad({{t.sum()}}, {{a}}, {}, true, true)[0];
  CHECK(g.to_vector<float>() == Values{14, 16, 6});
  const Tensor h = td::autograd::grad({{g.select(0, 1)}}, {{a}})[0];
  CHECK(h.to_vector<float>() == Values{1, 6, 1});
}

TEST_CASE("second derivatives through saved results and operands", "[eager]") {
  const Tensor x = leaf({1}, 0.5f);
  for (int kind = 0; kind < 3; ++kind) {
    const Tensor u = x * 1.f;
    const Tensor y = kind == 0 ? td::tanh(u) : kind == 1 ? td::exp(u) : td::sigmoid(u);
    const Tensor g = td::autograd::grad({{y}}, {{x}}, {}, true, true)[0];
    const float second = td::autograd::grad({{g}}, {{x}})[0].item<float>();
    const float s = 1 / (1 + std::exp(-0.5f)), t = std::tanh(0.5f);
    CHECK(second == Approx(kind == 0   ? -2 * t * (1 - t * t)
                           : kind == 1 ? std::exp(0.5f)
                                       : s * (1 - s) * (1 - 2 * s)));
  }
}

TEST_CASE("no history owns itself", "[eager]") {
  constexpr int64_t kMany = 64 * 1024;  // large blocks are counted
  const Tensor w = leaf({kMany}, 0.5f);
  const auto programs = {
      +[](const Tensor& w) {
        const Tensor x = w * 2.f;
        x.add_(x * w);
      },
      +[](const Tensor& w) {
        const Tensor x = td::tanh(w);
        x.add_(w).mul_(td::exp(x));
      },
      +[](const Tensor& w) {
        const Tensor x = td::zeros({kMany});
        x.slice(0, 0, kMany / 2).add_(w.slice(0, 0, kMany / 2) * 2.f);
        x.mul_(td::tanh(x.slice(0, 0, kMany / 2)).sum());
      },
      +[](const Tensor& w) {
        const Tensor b = td::ones({kMany});
        b.add_(b * w);
      },
      +[](const Tensor& w) {
        const Tensor y = td::autograd::apply(
            [](td::autograd::Context& c, const td::TensorList& in) {
              const Tensor out = td::exp(in[0]);
              c.save_for_backward({out, in[0]});
              return td::TensorList{out};
            },
            [](const td::autograd::Context& c, const td::TensorList& g) {
              return td::TensorList{g[0] * c.saved()[0]};
            },
            {w})[0];
        y.sum();
      },
  };
  int n = 0;
  for (const auto& program : programs) {
    INFO("program " << n++);
    program(w);
    const int64_t before = td::core::allocator_stats().live_bytes;
    for (int i = 0; i < 3; ++i) program(w);
    CHECK(td::core::allocator_stats().live_bytes == before);
  }
}
