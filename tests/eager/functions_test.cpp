// Functions that are a few lines over ops: results known by hand, and what they refuse. (tests/pytorch
// compares more of them.)
#include <cmath>
#include <limits>

#include "tandem/eager/functions.h"
#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Dims;
using td::PadMode;
using td::Tensor;
using I = std::vector<int64_t>;
using F = std::vector<double>;

namespace {
Tensor range(const Dims& sizes) { return td::arange(td::numel(sizes)).to(td::float64).view(sizes); }
F values(const Tensor& t) { return t.to_vector<double>(); }
I integers(const Tensor& t) { return t.to_vector<int64_t>(); }
}  // namespace

TEST_CASE("functions: padding", "[eager]") {
  const Tensor x = range({2, 3});
  CHECK(values(td::pad(x, {1, 2})) == F{0, 0, 1, 2, 0, 0, 0, 3, 4, 5, 0, 0});
  CHECK(values(td::pad(x, {0, 0, 1, 0}, PadMode::constant, 7)) == F{7, 7, 7, 0, 1, 2, 3, 4, 5});
  CHECK(values(td::pad(x, {-1, 0, 0, 1}, PadMode::constant, -1)) == F{1, 2, 4, 5, -1, -1});
  CHECK(values(td::pad(x[0], {2, 1}, PadMode::reflect)) == F{2, 1, 0, 1, 2, 1});
  CHECK(values(td::pad(x[0], {2, 1}, PadMode::replicate)) == F{0, 0, 0, 1, 2, 2});
  CHECK(values(td::pad(x[0], {2, 1}, PadMode::circular)) == F{1, 2, 0, 1, 2, 0});
  const Tensor whole = td::tensor<int64_t>({1, 2}), same = td::pad(whole, {0, 0});
  CHECK(integers(td::pad(whole, {1, 1}, PadMode::constant, (int64_t{1} << 60) + 1)) ==
        I{(int64_t{1} << 60) + 1, 1, 2, (int64_t{1} << 60) + 1});
  CHECK(same.impl()->storage != whole.impl()->storage);
  CHECK_THROWS_WITH(td::pad(x, {1}), Contains("pad: pairs of sizes for at most 2 axes") && Contains("(1,)"));
  CHECK_THROWS_WITH(td::pad(x, {0, 0, 0, 0, 1, 1}), Contains("pad: pairs of sizes"));
  CHECK_THROWS_WITH(td::pad(x, {-2, -2}), Contains("pad: 2 and 2 positions cannot be cut off axis 1"));
  CHECK_THROWS_WITH(td::pad(x, {3, 0}, PadMode::reflect), Contains("pad: reflect cannot put 3 and 0"));
  CHECK_THROWS_WITH(td::pad(x, {0, 4}, PadMode::circular), Contains("pad: circular cannot put 0 and 4"));
  CHECK_THROWS_WITH(td::pad(td::empty({0}), {1, 0}, PadMode::replicate), Contains("pad: replicate"));
  CHECK_THROWS_WITH(td::nn::ReflectionPad2d({1, 2, 3}), Contains("ReflectionPad2d: padding must be"));
  CHECK_THROWS_WITH(td::nn::Conv2d(1, 1, 3, 2, "same", 1, 1, true, PadMode::reflect),
                    Contains("Conv2d: padding \"same\" needs a stride of 1"));
}

TEST_CASE("functions: channels as places", "[eager]") {
  const Tensor x = range({1, 4, 1, 2});
  CHECK(values(td::pixel_shuffle(x, 2)) == F{0, 2, 1, 3, 4, 6, 5, 7});
  CHECK(td::equal(td::pixel_unshuffle(td::pixel_shuffle(x, 2), 2), x));
  CHECK(values(td::channel_shuffle(range({1, 4, 1}), 2)) == F{0, 2, 1, 3});
  CHECK_THROWS_WITH(td::pixel_shuffle(x, 3), Contains("pixel_shuffle: 4 channels"));
  CHECK_THROWS_WITH(td::pixel_shuffle(x, 0), Contains("the factor must be at least 1"));
  CHECK_THROWS_WITH(td::pixel_unshuffle(x, 2), Contains("pixel_unshuffle: a height and width"));
  CHECK_THROWS_WITH(td::channel_shuffle(x, 3), Contains("channel_shuffle: 3 groups do not divide 4"));
}

TEST_CASE("functions: joining, differences, products", "[eager]") {
  const Tensor a = range({2}), b = range({2, 2});
  CHECK(values(td::vstack({a, b})) == F{0, 1, 0, 1, 2, 3});
  CHECK(values(td::hstack({a, a[1]})) == F{0, 1, 1});
  CHECK(values(td::hstack({b, b})) == F{0, 1, 0, 1, 2, 3, 2, 3});
  CHECK(values(td::tensor<double>({1, 4, 9, 16}).diff()) == F{3, 5, 7});
  CHECK(values(td::diff(td::tensor<double>({1, 4, 9, 16}), 2)) == F{2, 2});
  CHECK(td::diff(a, 5).numel() == 0);
  CHECK(values(td::kron(td::tensor<double>({1, 2}), a)) == F{0, 1, 0, 2});
  CHECK(values(td::cross(td::tensor<double>({1, 0, 0}), td::tensor<double>({0, 1, 0}))) == F{0, 0, 1});
  CHECK(values(td::cdist(td::tensor<double>({0, 0}).view({1, 2}),
                         td::tensor<double>({3, 4, 0, 1}).view({2, 2}))) == F{5, 1});
  CHECK(td::tensordot(b, b, 2).item<double>() == 14);
  CHECK_THROWS_WITH(td::tensordot(b, range({3, 2}), 1), Contains("tensordot: axis") && Contains("differ"));
  CHECK_THROWS_WITH(td::tensordot(b, b, {0, 0}, {0, 1}), Contains("tensordot: axis 0 is listed twice"));
  CHECK_THROWS_WITH(td::tensordot(b, b, 3), Contains("tensordot: cannot sum over 3 axes"));
  CHECK_THROWS_WITH(td::cross(b, b), Contains("cross: the axis -1 must have size 3"));
  CHECK_THROWS_WITH(td::cdist(b, range({2, 3})), Contains("cdist: (..., P, D) and (..., R, D)"));
}

TEST_CASE("functions: look-ups and counts", "[eager]") {
  const Tensor x = td::tensor<double>({3, 1, 2, 6, 5, 4}).view({2, 3});
  CHECK(values(td::take_along_dim(x, x.argsort(1), 1)) == F{1, 2, 3, 4, 5, 6});
  CHECK(values(td::take_along_dim(x, td::tensor<int64_t>({1}).view({1, 1}), 1)) == F{1, 5});
  CHECK(integers(td::isin(x, td::tensor<double>({1, 6})).to(td::int64)) == I{0, 1, 0, 1, 0, 0});
  CHECK(integers(td::bincount(td::tensor<int64_t>({1, 3, 1}))) == I{0, 2, 0, 1});
  CHECK(integers(td::bincount(td::empty({0}, {.dtype = td::int64}), {}, 2)) == I{0, 0});
  CHECK(values(td::histc(x, 5, 1, 6)) == F{1, 1, 1, 1, 2});
  CHECK(values(td::histc(td::tensor<double>({NAN, 0, 9}), 3, 0, 3)) == F{1, 0, 0});
  CHECK(integers(td::tril_indices(2, 3)) == I{0, 1, 1, 0, 0, 1});
  CHECK(integers(td::triu_indices(2, 2, 1)) == I{0, 1});
  CHECK_THROWS_WITH(td::bincount(td::tensor<int64_t>({1, -3})), Contains("bincount: a negative integer: -3"));
  CHECK_THROWS_WITH(td::bincount(x), Contains("bincount: a vector of integers"));
  CHECK_THROWS_WITH(td::histc(x, 0), Contains("histc: at least one bin"));
  CHECK_THROWS_WITH(td::histc(x, 2, 3, 1), Contains("histc: finite bounds"));
  CHECK_THROWS_WITH(td::take_along_dim(x, td::tensor<int64_t>({0}), 1),
                    Contains("take_along_dim: the index"));
  CHECK_THROWS_WITH(td::tril_indices(-1, 2), Contains("tril_indices: sizes must not be negative"));
}

TEST_CASE("functions: drawn like a tensor", "[eager]") {
  const Tensor like = td::zeros({2, 3}, {.dtype = td::float64});
  td::manual_seed(3);
  const Tensor u = td::rand_like(like), n = td::randn_like(like), i = td::randint_like(like, 2, 9);
  td::manual_seed(3);
  CHECK(td::equal(u, td::rand({2, 3}, {.dtype = td::float64})));
  CHECK(td::equal(n, td::randn({2, 3}, {.dtype = td::float64})));
  CHECK(td::equal(i, td::randint(2, 9, {2, 3}).to(td::float64)));
}

TEST_CASE("functions: gumbel_softmax draws from the classes", "[eager]") {
  td::manual_seed(5);
  const Tensor logits = td::tensor<float>({0, std::log(2.0f), std::log(5.0f)}).expand({20000, 3}).clone();
  const Tensor hard = td::gumbel_softmax(logits, 0.7, true);
  CHECK(td::allclose(hard.sum({1}), td::ones({20000})));
  const F shares = values(hard.mean({0}));
  for (size_t i = 0; i < 3; ++i) {
    const double p = F{1.0 / 8, 2.0 / 8, 5.0 / 8}[i];
    CHECK(std::abs(shares[i] - p) < 5 * std::sqrt(p * (1 - p) / 20000));
  }
  Tensor leaf = td::randn({4, 3}).requires_grad_();
  td::manual_seed(6);
  td::gumbel_softmax(leaf, 0.5, true, 1).select(1, 0).sum().backward();
  const Tensor of_hard = leaf.grad().clone();
  leaf.zero_grad();
  td::manual_seed(6);
  td::gumbel_softmax(leaf, 0.5, false, 1).select(1, 0).sum().backward();
  CHECK(td::allclose(of_hard, leaf.grad()));
  CHECK(of_hard.abs().sum().item<double>() > 0);
  CHECK_THROWS_WITH(td::gumbel_softmax(leaf, 0), Contains("gumbel_softmax: tau must be positive"));
}

TEST_CASE("functions: edges as PyTorch's", "[eager]") {
  const double kNan = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(td::threshold(td::tensor<float>({NAN, 1}), 0.5, -1).to_vector<float>()[0]));
  CHECK(td::celu(td::scalar_tensor(1e30f), 1e-10).item<float>() == 1e30f);
  CHECK(td::celu(td::scalar_tensor(-20.0), -0.5).item<double>() == Approx(-0.5 * std::expm1(40)));
  for (const bool huber : {true, false}) {
    const Tensor far = td::tensor<float>({3e38f, -3e38f, INFINITY, 0.25f}).requires_grad_();
    const Tensor zero = td::zeros({4});
    (huber ? td::huber_loss(far, zero, td::Reduction::sum)
           : td::smooth_l1_loss(far, zero, td::Reduction::sum))
        .backward();
    CHECK(values(far.grad()) == F{1, -1, 1, 0.25});
  }
  const Tensor x = range({1, 1, 2, 2});
  CHECK(td::equal(td::interpolate(x, {.scale_factor = {1.3}, .mode = td::Interpolation::bilinear}), x));
  // Both halves compute in float32.
  const Tensor small = td::full({4}, 0.003, {.dtype = td::bfloat16});
  CHECK(td::nn::RMSNorm({4}, std::nullopt, true, {.dtype = td::bfloat16})(small).to_vector<float>()[0] ==
        Approx(0.9922).margin(5e-3));
  CHECK(td::rms_norm(td::full({4}, 0.001), 1).to_vector<float>()[0] == Approx(0.9452).margin(1e-4));
  // The mean of numbers around 1e6 is off by hundredths in float32.
  td::manual_seed(4);
  const Tensor far = (td::randn({50, 200}, {.dtype = td::float64}) + 1e6).to(td::float32);
  CHECK(td::allclose(far.var({1}), far.to(td::float64).var({1}).to(td::float32), 1e-6, 0));
  CHECK(td::allclose(far.std({1}), far.to(td::float64).std({1}).to(td::float32), 1e-6, 0));
  CHECK(values(td::full({7}, 0.1f).var()) == F{0});
  td::nn::BatchNorm1d norm(1, 1e-5, std::nullopt, true, true, {.dtype = td::float64});
  for (const double v : {1.0, 4.0, 6.5}) norm(td::tensor<double>({v - 1, v + 1}).view({2, 1}));
  CHECK(norm.running_mean.item<double>() == Approx(11.5 / 3).epsilon(1e-14));
  CHECK(std::isnan(td::rms_norm(td::full({2}, kNan), 1).to_vector<float>()[0]));
}

TEST_CASE("functions: losses refuse what would broadcast by mistake", "[eager]") {
  const Tensor v = range({3}), column = range({3, 1}), rows = range({4, 3});
  CHECK_THROWS_WITH(td::margin_ranking_loss(v, v, column),
                    Contains("margin_ranking_loss: operands must have as many axes"));
  CHECK_THROWS_WITH(td::cosine_embedding_loss(rows, rows, range({4, 1})),
                    Contains("cosine_embedding_loss: rows (N, D)"));
  CHECK_THROWS_WITH(td::triplet_margin_loss(rows, v, rows),
                    Contains("triplet_margin_loss: operands must have"));
  CHECK(td::cosine_embedding_loss(v, v, td::scalar_tensor(1)).item<double>() == Approx(0).margin(1e-12));
}

TEST_CASE("functions: losses", "[eager]") {
  const Tensor a = td::tensor<double>({0.5, 2, -1}), y = td::tensor<double>({1, 0, 3});
  CHECK(td::allclose(td::poisson_nll_loss(a, y, true, false, 1e-8, td::Reduction::none), a.exp() - y * a));
  CHECK(td::allclose(td::gaussian_nll_loss(a, y, td::ones({3}, {.dtype = td::float64})),
                     0.5 * (a - y).square().mean()));
  CHECK(td::multi_margin_loss(a, td::scalar_tensor(int64_t{0})).item<double>() == Approx(2.5 / 3));
  CHECK(td::pairwise_distance(a, y, 1, 0).item<double>() == Approx(6.5));
  CHECK_THROWS_WITH(td::gaussian_nll_loss(a, y, td::ones({2})), Contains("gaussian_nll_loss: var must be"));
  CHECK_THROWS_WITH(td::multi_margin_loss(a, td::scalar_tensor(int64_t{0}), 3), Contains("p must be 1 or 2"));
  CHECK_THROWS_WITH(td::multi_margin_loss(a, y), Contains("multi_margin_loss: scores (N, C) or (C)"));
}
