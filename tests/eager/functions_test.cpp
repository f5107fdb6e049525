// Functions that are a few lines over ops: results known by hand, and what they refuse. (tests/pytorch
// compares more of them.)
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
