// Batch and instance norm over many steps against plain loops in double, their running statistics, gradients
// of every result, and dropout of channels.
#include "tandem/eager/channels.h"

#include <cmath>

#include "tandem/eager/autograd.h"
#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

using Values = std::vector<double>;

Values values(const Tensor& t) { return t.to_vector<double>(); }

void check_close(const Values& found, const Values& wanted, double margin) {
  REQUIRE(found.size() == wanted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CHECK(found[i] == Approx(wanted[i]).margin(margin));
  }
}

/// Statistics per channel of x (n, c, l): means, variances and unbiased variances.
struct Statistics {
  Values mean, variance, unbiased;
};
Statistics statistics(const Values& x, size_t n, size_t c, size_t l) {
  Statistics s;
  for (size_t k = 0; k < c; ++k) {
    double sum = 0, squares = 0;
    const auto all = [&](auto f) {
      for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < l; ++j) f(x[(i * c + k) * l + j]);
    };
    const auto count = static_cast<double>(n * l);
    all([&](double v) { sum += v; });
    all([&](double v) { squares += (v - sum / count) * (v - sum / count); });
    s.mean.push_back(sum / count);
    s.variance.push_back(squares / count);
    s.unbiased.push_back(squares / (count - 1));
  }
  return s;
}

Values normalised(const Values& x, const Values& mean, const Values& variance, size_t c, size_t l,
                  double eps) {
  Values y = x;
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t k = i / l % c;
    y[i] = (x[i] - mean[k]) / std::sqrt(variance[k] + eps);
  }
  return y;
}

}  // namespace

TEST_CASE("batch norm: steps of training and evaluation equal plain loops", "[nn]") {
  for (const DType type : {float64, float32, bfloat16})
    for (const std::optional<double> momentum :
         {std::optional<double>(0.1), std::optional<double>(0.7), {}}) {
      CAPTURE(type, momentum.value_or(-1));
      constexpr size_t kN = 4, kC = 3, kL = 6;
      const DType statistic = type == float64 ? float64 : float32;
      nn::BatchNorm2d norm(kC, 1e-5, momentum, true, true, {.dtype = statistic});
      Values mean(kC, 0), variance(kC, 1);
      const double margin = type == float64 ? 1e-12 : type == float32 ? 1e-5 : 0.03;
      const double exact = type == float64 ? 1e-12 : 1e-6;
      manual_seed(5);
      for (int step = 1; step <= 4; ++step) {
        const Tensor x = (randn({kN, kC, 2, 3}, {.dtype = float64}) * 2.0 + 1.5).to(type);
        const Values from = values(x);
        const Statistics s = statistics(from, kN, kC, kL);
        check_close(values(norm(x)), normalised(from, s.mean, s.variance, kC, kL, 1e-5), margin);
        const double share = momentum.value_or(1.0 / step);
        for (size_t k = 0; k < kC; ++k) {
          mean[k] += share * (s.mean[k] - mean[k]);
          variance[k] += share * (s.unbiased[k] - variance[k]);
        }
        check_close(values(norm.running_mean), mean, exact);
        check_close(values(norm.running_var), variance, exact);
        CHECK(norm.num_batches_tracked.item<int64_t>() == step);
      }
      norm.eval();
      const Tensor x = randn({1, kC, 2, 3}, {.dtype = float64}).to(type);
      check_close(values(norm(x)), normalised(values(x), mean, variance, kC, kL, 1e-5), margin);
      check_close(values(norm.running_mean), mean, exact);
      CHECK(norm.num_batches_tracked.item<int64_t>() == 4);
    }
}

TEST_CASE("batch norm: far from zero nothing cancels", "[nn]") {
  manual_seed(2);
  const Tensor small = randn({64, 2, 5}, {.dtype = float32});
  const Tensor y = batch_norm(small + 4096.f, {}, {}, {}, {}, true);
  const Tensor wanted = batch_norm((small + 4096.f).to(float64), {}, {}, {}, {}, true);
  CHECK((y.to(float64) - wanted).abs().amax().item<double>() < 1e-3);
}

TEST_CASE("batch norm: gradients equal those of its definition", "[nn]") {
  manual_seed(9);
  const Dims shapes[] = {{5, 3}, {4, 3, 2}, {2, 3, 2, 3}};
  for (const Dims& sizes : shapes) {
    CAPTURE(sizes);
    const TensorOptions wide{.dtype = float64};
    const Tensor x = randn(sizes, wide).requires_grad_(), w = randn({3}, wide).requires_grad_(),
                 b = randn({3}, wide).requires_grad_(), g = randn(sizes, wide);
    Dims axes, line = Dims::filled(sizes.rank() - 1, 1);
    line[0] = 3;
    for (int i = 0; i < sizes.rank(); ++i)
      if (i != 1) axes.push_back(i);
    const auto plain = [&] {
      const Tensor centered = x - x.mean(axes, true);
      const Tensor variance = centered.square().mean(axes, true);
      return centered * rsqrt(variance + 1e-5) * w.reshape(line) + b.reshape(line);
    };
    const Tensor list[] = {x, w, b};
    const Tensor found = (batch_norm(x, {}, {}, w, b, true) * g).sum(), wanted = (plain() * g).sum();
    CHECK(found.item<double>() == Approx(wanted.item<double>()));
    const TensorList a = autograd::grad({&found, 1}, list, {}, false, true),
                     c = autograd::grad({&wanted, 1}, list, {}, false, true);
    for (size_t i = 0; i < 3; ++i) check_close(values(a[i]), values(c[i]), 1e-10);
    const Tensor again = a[0].square().sum() + a[1].square().sum(),
                 again_wanted = c[0].square().sum() + c[1].square().sum();
    const TensorList second = autograd::grad({&again, 1}, {list, 2}),
                     second_wanted = autograd::grad({&again_wanted, 1}, {list, 2});
    for (size_t i = 0; i < 2; ++i) check_close(values(second[i]), values(second_wanted[i]), 1e-8);
  }
}

TEST_CASE("group norm: gradients equal those of its definition", "[nn]") {
  manual_seed(4);
  const TensorOptions wide{.dtype = float64};
  const Tensor x = randn({2, 6, 3, 2}, wide).requires_grad_(), w = randn({6}, wide).requires_grad_(),
               b = randn({6}, wide).requires_grad_(), g = randn({2, 6, 3, 2}, wide);
  const auto plain = [&] {
    const Tensor rows = x.reshape({2, 3, 12});
    const Tensor centered = rows - rows.mean({2}, true);
    const Tensor y = centered * rsqrt(centered.square().mean({2}, true) + 1e-5);
    return y.reshape({2, 6, 3, 2}) * w.reshape({6, 1, 1}) + b.reshape({6, 1, 1});
  };
  const Tensor list[] = {x, w, b};
  const Tensor found = (group_norm(x, 3, w, b) * g).sum(), wanted = (plain() * g).sum();
  const TensorList a = autograd::grad({&found, 1}, list), c = autograd::grad({&wanted, 1}, list);
  for (size_t i = 0; i < 3; ++i) check_close(values(a[i]), values(c[i]), 1e-10);
}

TEST_CASE("instance norm: statistics of each example, running ones on demand", "[nn]") {
  manual_seed(6);
  const Tensor x = randn({3, 2, 4, 5}, {.dtype = float64});
  const nn::InstanceNorm2d plain(2);
  CHECK(plain.state().empty());
  const Values from = values(x);
  const Statistics s = statistics(from, 1, 6, 20);
  check_close(values(plain(x)), normalised(from, s.mean, s.variance, 6, 20, 1e-5), 1e-12);
  check_close(values(plain(x[1])), values(plain(x)[1]), 1e-14);  // without a batch

  nn::InstanceNorm2d tracked(2, 1e-5, 0.25, true, true, {.dtype = float64});
  tracked(x);
  Values mean(2, 0), variance(2, 0.75);
  for (size_t i = 0; i < 6; ++i)
    mean[i % 2] += 0.25 * s.mean[i] / 3, variance[i % 2] += 0.25 * s.unbiased[i] / 3;
  check_close(values(tracked.running_mean), mean, 1e-12);
  check_close(values(tracked.running_var), variance, 1e-12);
  tracked.eval();
  check_close(values(tracked(x)), normalised(from, mean, variance, 2, 20, 1e-5), 1e-12);
}

TEST_CASE("dropout of channels: whole ones, scaled, reproducible", "[nn]") {
  manual_seed(11);
  const Tensor x = ones({50, 8, 3, 2});
  const Tensor y = dropout2d(x, 0.25);
  const Tensor least = y.amin({2, 3}), most = y.amax({2, 3});
  CHECK((least == most).all().item<bool>());
  CHECK(((most == 0.f) | ((most - 1 / 0.75f).abs() < 1e-6f)).all().item<bool>());
  CHECK((most == 0.f).to(float32).mean().item<double>() == Approx(0.25).margin(0.08));
  manual_seed(11);
  CHECK(values(dropout2d(x, 0.25)) == values(y));
  CHECK(dropout2d(x, 0.25, false).impl() == x.impl());
  CHECK(dropout1d(ones({4, 3, 5}), 1).sum().item<double>() == 0);
  CHECK(dropout1d(ones({3, 5}), 0.5).sizes() == Dims{3, 5});
  manual_seed(7);
  const Tensor line = dropout2d(ones({40, 30, 5}), 0.5);  // (N, C, L), as PyTorch reads three axes
  CHECK((line.amin({2}) == line.amax({2})).all().item<bool>());
  CHECK((line.amin({1, 2}) != line.amax({1, 2})).all().item<bool>());
  const Tensor volume = dropout3d(ones({40, 3, 2, 2}), 0.5);  // (C, D, H, W)
  CHECK((volume.amin({1, 2, 3}) == volume.amax({1, 2, 3})).all().item<bool>());
  nn::Dropout2d layer(0.5);
  layer.eval();
  CHECK(layer(x).impl() == x.impl());
}

TEST_CASE("embedding: the padding row gets no gradient", "[nn]") {
  manual_seed(3);
  nn::Embedding table(5, 2, -1);
  CHECK(values(table.weight[4]) == Values{0, 0});
  table(tensor<int64_t>({0, 4, 4, 2, 0})).sum().backward();
  CHECK(values(table.weight.grad()) == Values{2, 2, 0, 0, 1, 1, 0, 0, 0, 0});
  const Tensor weight = ones({3, 2}).requires_grad_();
  CHECK(values(embedding(tensor<int64_t>({1, 1}), weight, 1)) == Values{1, 1, 1, 1});  // the value stays
  CHECK_THAT(message([] { nn::Embedding wrong(3, 2, 3); }),
             Contains("Embedding") && Contains("padding_idx 3"));
}

TEST_CASE("batch norm: nothing is no batch, and a refused call changes nothing", "[nn]") {
  nn::BatchNorm1d norm(3, 1e-5, std::nullopt);
  norm(zeros({0, 3}));
  CHECK(norm.running_mean.to_vector<float>() == std::vector<float>{0, 0, 0});
  CHECK(norm.running_var.to_vector<float>() == std::vector<float>{1, 1, 1});
  const int64_t seen = norm.num_batches_tracked.item<int64_t>();
  CHECK_THROWS_AS(norm(randn({1, 3})), Error);  // one value a channel
  CHECK(norm.num_batches_tracked.item<int64_t>() == seen);

  const Tensor mean = zeros({3}), wrong = ones({4}), table = ones({2, 3});
  CHECK_THAT(message([&] {
               batch_norm(randn({4, 3}), mean, wrong, {}, {}, true);
             }),
             Contains("batch_norm: running_var must be floating of shape (3,), found float32(4,)"));
  CHECK_THROWS_AS(batch_norm(randn({4, 3}), mean, table, {}, {}, true), Error);
  CHECK_THROWS_AS(instance_norm(randn({2, 3, 4}), table, table), Error);
  CHECK(mean.to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("gelu: the gradient of its tanh form is finite far from zero", "[nn]") {
  for (const float v : {1e14f, -1e14f, 1e18f}) {
    const Tensor x = full({1}, v).requires_grad_();
    gelu(x, true).sum().backward();
    CHECK(x.grad().item<float>() == (v > 0 ? 1 : 0));
  }
}

TEST_CASE("alpha_dropout keeps mean and variance, drops to SELU's limit", "[eager]") {
  manual_seed(4);
  const Tensor x = randn({200, 50, 4});
  const double p = 0.3, limit = -1.7580993408473766;
  const double scale = 1 / std::sqrt((limit * limit * p + 1) * (1 - p)), floor = scale * (limit - limit * p);
  const auto share = [&](const Tensor& y) {
    return (y - floor).abs().le(1e-5).to(float32).mean().item<double>();
  };
  const Tensor y = alpha_dropout(x, p, true);
  CHECK(share(y) == Approx(p).margin(0.01));
  CHECK(y.mean().item<double>() == Approx(0).margin(0.02));
  CHECK(y.var().item<double>() == Approx(1).margin(0.03));
  CHECK(alpha_dropout(x, p, false).impl() == x.impl());
  CHECK(alpha_dropout(x, 1, true).abs().sum().item<double>() == 0);
  const Tensor channels = feature_alpha_dropout(x, p, true);
  const Tensor dropped = (channels - floor).abs().le(1e-5).to(float32).sum({2});
  CHECK(dropped.eq(0).logical_or(dropped.eq(4)).all().item<bool>());
  CHECK(share(channels) == Approx(p).margin(0.02));
  CHECK_THAT(message([&] { alpha_dropout(x, 1.5, true); }), Contains("p must lie in [0, 1], found 1.5"));
  CHECK_THAT(message([&] { feature_alpha_dropout(ones({3}), 0.5, true); }), Contains("(N, C, ...)"));
}

TEST_CASE("rrelu draws a slope per element while training", "[eager]") {
  manual_seed(4);
  const Tensor x = full({1000}, -2.0).requires_grad_();
  const Tensor y = rrelu(x, 0.1, 0.4, true);
  y.sum().backward();
  CHECK(y.amax().item<float>() <= -0.2f);
  CHECK(y.amin().item<float>() >= -0.8f);
  CHECK(y.mean().item<double>() == Approx(-0.5).margin(0.02));
  CHECK((x.grad() * -2.0 - y.detach()).abs().amax().item<double>() < 1e-6);
  CHECK(rrelu(tensor({3.f, -1.f}), 0.1, 0.4).to_vector<float>() == std::vector<float>{3, -0.25f});
  CHECK(rrelu(tensor({3.f}), 0.1, 0.4, true).item<float>() == 3);
  CHECK_THAT(message([] { rrelu(ones({2}), 0.5, 0.1, true); }), Contains("the lower one first"));
}

TEST_CASE("embedding_renorm_ shrinks the rows that are named and too long", "[eager]") {
  const Tensor w = tensor({3.f, 4.f, 3.f, 4.f, 0.3f, 0.4f}).view({3, 2}).requires_grad_();
  embedding_renorm_(w, tensor<int64_t>({1, 2, 1}), 1.0);
  const std::vector<float> v = w.to_vector<float>();
  CHECK(v[0] == 3);
  CHECK(v[2] == Approx(0.6).epsilon(1e-5));
  CHECK(v[3] == Approx(0.8).epsilon(1e-5));
  CHECK(v[4] == 0.3f);
  CHECK(w.is_leaf());
  CHECK_THAT(message([&] { embedding_renorm_(w, tensor<int64_t>({0}), 0); }),
             Contains("max_norm must be positive"));
}
