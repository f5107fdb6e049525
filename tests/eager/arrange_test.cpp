// Shapes, parts, look-ups, order, products and losses: results known by hand, gradients where a composition
// has one, and that reads inside of a composition see values.
#include <cmath>

#include "tandem/eager/functions.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Dims;
using td::Tensor;
using I = std::vector<int64_t>;
using F = std::vector<double>;

namespace {
Tensor range(const Dims& sizes) {
  return td::arange(0, static_cast<double>(td::numel(sizes)), 1, {.dtype = td::float64}).view(sizes);
}
F values(const Tensor& t) { return t.to_vector<double>(); }
I places(const Tensor& t) { return t.to_vector<int64_t>(); }
}  // namespace

TEST_CASE("arrange: shapes", "[eager]") {
  const Tensor x = range({2, 6});
  CHECK(x.unflatten(1, {2, -1}).sizes() == Dims{2, 2, 3});
  CHECK(range({2, 3, 4}).movedim(0, -1).sizes() == Dims{3, 4, 2});
  CHECK(values(x.diagonal(1)) == F{1, 8});
  CHECK(x.diagonal().impl()->storage == x.impl()->storage);
  CHECK(values(x.unfold(1, 3, 2)) == F{0, 1, 2, 2, 3, 4, 6, 7, 8, 8, 9, 10});
  CHECK(values(range({2, 2}).flip({0, 1})) == F{3, 2, 1, 0});
  CHECK(values(range({2, 2}).flip({})) == F{0, 1, 2, 3});
  CHECK(values(range({2, 3}).roll(1)) == F{5, 0, 1, 2, 3, 4});
  CHECK(values(range({2, 3}).roll(-1, 1)) == F{1, 2, 0, 4, 5, 3});
  CHECK(values(range({2}).repeat({2, 2})) == F{0, 1, 0, 1, 0, 1, 0, 1});
  CHECK(range({2, 3}).tile({2}).sizes() == Dims{2, 6});
  CHECK(values(range({2, 2}).repeat_interleave(2)) == F{0, 0, 1, 1, 2, 2, 3, 3});
  CHECK(values(range({2, 2}).repeat_interleave(2, 0)) == F{0, 1, 0, 1, 2, 3, 2, 3});
  CHECK(values(range({2, 2}).tril()) == F{0, 0, 2, 3});
  CHECK(values(range({2, 3}).triu(1)) == F{0, 1, 2, 0, 0, 5});
  CHECK(values(td::diag(range({2}), -1)) == F{0, 0, 0, 0, 0, 0, 0, 1, 0});
  CHECK(values(td::diag(range({3, 3}), 1)) == F{1, 5});
  CHECK(values(td::rot90(range({2, 2}))) == F{1, 3, 0, 2});
  CHECK(values(td::rot90(range({2, 2}), -1)) == F{2, 0, 3, 1});
  CHECK(values(td::eye(2, 3)) == F{1, 0, 0, 0, 1, 0});
  CHECK(values(td::linspace(0, 1, 5, {.dtype = td::float64})) == F{0, 0.25, 0.5, 0.75, 1});
  CHECK(td::linspace(0, 0.3, 4).to_vector<float>()[3] == 0.3f);
  CHECK(values(td::linspace(2, 9, 1)) == F{2});
  CHECK(values(td::logspace(0, 2, 3)) == F{1, 10, 100});
}

TEST_CASE("arrange: windows that overlap are not changed in place", "[eager]") {
  const Tensor x = range({6}).clone();
  CHECK_THROWS_WITH(x.unfold(0, 3, 2).add_(1.0), Contains("share memory"));
  x.unfold(0, 2, 2).mul_(2.0);  // these do not
  x.view({2, 3}).diagonal().zero_();
  CHECK(values(x) == F{0, 2, 4, 6, 0, 10});
}

TEST_CASE("arrange: parts", "[eager]") {
  const Tensor x = range({5});
  const auto sizes = [](const std::vector<Tensor>& parts) {
    I n;
    for (const Tensor& t : parts) n.push_back(t.size(0));
    return n;
  };
  CHECK(sizes(td::split(x, 2)) == I{2, 2, 1});
  CHECK(sizes(td::split(x, {1, 4})) == I{1, 4});
  CHECK(sizes(td::chunk(x, 3)) == I{2, 2, 1});
  CHECK(sizes(td::chunk(x, 4)) == I{2, 2, 1});
  CHECK(sizes(td::chunk(x, INT64_MAX)) == I{1, 1, 1, 1, 1});
  CHECK(td::unbind(range({2, 3}), 1).size() == 3);
  const Tensor axes[] = {range({2}), range({3})};
  CHECK(values(td::meshgrid(axes)[1]) == F{0, 1, 2, 0, 1, 2});
  CHECK(values(td::cartesian_prod(axes)) == F{0, 0, 0, 1, 0, 2, 1, 0, 1, 1, 1, 2});
  CHECK_THROWS_WITH(td::split(x, {2, 2}), Contains("split: ") && Contains("(2, 2)"));
  CHECK_THROWS_WITH(td::chunk(x, 0), Contains("chunk: "));
}

TEST_CASE("arrange: order", "[eager]") {
  const Tensor x = td::tensor<double>({3, NAN, 1, 3, 2});
  CHECK(places(x.argsort()) == I{2, 4, 0, 3, 1});
  CHECK(places(x.argsort(0, true)) == I{1, 0, 3, 4, 2});
  const auto [sorted, from] = td::tensor<int64_t>({4, 2, 2, 9}).sort();
  CHECK(places(sorted) == I{2, 2, 4, 9});
  CHECK(places(from) == I{1, 2, 0, 3});
  const Tensor w = td::tensor<double>({5, 1, 4, 2}).requires_grad_();
  const auto best = w.topk(2);
  CHECK(values(best.values) == F{5, 4});
  CHECK(places(best.indices) == I{0, 2});
  best.values.sum().backward();
  CHECK(values(w.grad()) == F{1, 0, 1, 0});
  CHECK(values(w.detach().topk(1, -1, false).values) == F{1});
  CHECK(w.detach().kthvalue(2).values.item<double>() == 2);
  CHECK(w.detach().median().item<double>() == 2);
  CHECK(std::isnan(x.median().item<double>()));
  CHECK(values(td::tensor<double>({1, 9, 5, 7, 3, 8}).view({2, 3}).median(1).values) == F{5, 7});
  CHECK(w.detach().quantile(0.5).item<double>() == 3);
  CHECK(values(range({2, 3}).quantile(0.25, 1)) == F{0.5, 3.5});
  const auto running = td::tensor<double>({1, 3, 2, 3, NAN, 9}).cummax(0);
  CHECK(places(running.indices) == I{0, 1, 1, 3, 4, 4});
  CHECK(values(td::tensor<double>({3, 1, 2}).cummin(0).values) == F{3, 1, 1});
  CHECK(values(range({4}).add(1.0).cumprod(0)) == F{1, 2, 6, 24});
  CHECK(values(td::unique(td::tensor<double>({3, 1, 3, 2, 1}))) == F{1, 2, 3});
  CHECK(places(td::searchsorted(td::tensor<double>({1, 2, 2, 5}), td::tensor<double>({2, 0, 9}))) ==
        I{1, 0, 4});
  CHECK(places(td::searchsorted(td::tensor<double>({1, 2, 2, 5}), td::tensor<double>({2, 0, 9}), true)) ==
        I{3, 0, 4});
  CHECK_THROWS_WITH(w.topk(5), Contains("topk: k must lie in [0, 4], found 5"));
}

TEST_CASE("arrange: reductions", "[eager]") {
  const Tensor x = td::tensor<double>({3, -4, 0});
  CHECK(x.norm().item<double>() == 5);
  CHECK(x.norm(1).item<double>() == 7);
  CHECK(x.norm(0).item<double>() == 2);
  CHECK(x.norm(INFINITY).item<double>() == 4);
  CHECK(x.norm(-INFINITY).item<double>() == 0);
  CHECK(x.norm(3).item<double>() == Approx(std::cbrt(91.0)));
  CHECK(x.std().item<double>() == Approx(std::sqrt(37.0 / 3)));
  CHECK(x.count_nonzero().item<int64_t>() == 2);
  CHECK(td::tensor<double>({1, NAN, 2}).nansum().item<double>() == 3);
  CHECK(td::full({2}, -INFINITY).logsumexp().item<double>() == -INFINITY);
  CHECK(td::full({2}, 1000.0).logsumexp().item<double>() == Approx(1000 + std::log(2.0)));
  const auto [low, high] = x.aminmax();
  CHECK((low.item<double>() == -4 && high.item<double>() == 3));
  CHECK(values(td::normalize(x, 2, 0)) == F{0.6, -0.8, 0});
}

TEST_CASE("arrange: look-ups", "[eager]") {
  const Tensor x = td::zeros({2, 3}, {.dtype = td::float64});
  const Tensor rows = td::tensor<int64_t>({0, 1, 0}), columns = td::tensor<int64_t>({2, 0, 2});
  const Tensor both[] = {rows, columns};
  const Tensor put = td::tensor<double>({1, 2, 4});
  CHECK(values(x.index_put(both, put)) == F{0, 0, 4, 2, 0, 0});
  CHECK(values(x.index_put(both, put, true)) == F{0, 0, 5, 2, 0, 0});
  CHECK(values(x.index_put({both, 1}, td::full({1}, 7.0, {.dtype = td::float64}))) == F{7, 7, 7, 7, 7, 7});
  const Tensor outside[] = {
      rows, td::tensor<int64_t>({-4, 0, 0})};  // (0, -4) is no place, whatever the sum of both says
  CHECK_THROWS_WITH(x.index_put(outside, put), Contains("out of range"));
  const Tensor beyond[] = {rows, td::tensor<int64_t>({3, 0, 0})};
  CHECK_THROWS_WITH(x.index_put(beyond, put), Contains("index 3 is out of range for axis 1"));
  const Tensor from_the_end[] = {rows, td::tensor<int64_t>({-1, 0, -2})};
  CHECK(values(x.index_put(from_the_end, put)) == F{0, 4, 1, 2, 0, 0});
  CHECK(values(x.index_fill(1, td::tensor<int64_t>({1}), 3)) == F{0, 3, 0, 0, 3, 0});
  CHECK(values(x.index_copy(0, td::tensor<int64_t>({1}), td::ones({1, 3}, {.dtype = td::float64}))) ==
        F{0, 0, 0, 1, 1, 1});
  CHECK(values(x.scatter(1, columns.view({1, 3}), put.view({1, 3}))) == F{2, 0, 4, 0, 0, 0});
  const Tensor w = range({2, 3}).requires_grad_();
  const Tensor some = td::masked_select(w, w > 2.0);
  CHECK(values(some) == F{3, 4, 5});
  some.sum().backward();
  CHECK(values(w.grad()) == F{0, 0, 0, 1, 1, 1});
  CHECK(places(td::nonzero(range({2, 2}))) == I{0, 1, 1, 0, 1, 1});
  CHECK(places(td::one_hot(td::tensor<int64_t>({1, 0}))) == I{0, 1, 1, 0});
  CHECK_THROWS_WITH(td::one_hot(td::tensor<int64_t>({1, 3}), 3),
                    Contains("one_hot: class 3 is out of range for 3 classes"));
  CHECK_THROWS_WITH(td::nll_loss(td::zeros({2, 3}), td::tensor<int64_t>({0, 5})),
                    Contains("nll_loss: label 5 is out of range"));
  Tensor y = range({4}).clone();
  y.index_fill_(0, td::tensor<int64_t>({0, 3}), -1);
  y.clamp_({}, 1.5).masked_fill_(y < 0, 9.0);
  CHECK(values(y) == F{9, 1, 1.5, 9});
}

TEST_CASE("arrange: einsum and products of fixed ranks", "[eager]") {
  const Tensor a = range({2, 3}), b = range({3, 2}).add(1.0), batch = range({2, 2, 3});
  const auto same = [](const Tensor& x, const Tensor& y) {
    return x.sizes() == y.sizes() && values(x) == values(y);
  };
  CHECK(same(td::einsum("ij,jk->ik", {a, b}), td::mm(a, b)));
  CHECK(same(td::einsum("ij,jk", {a, b}), td::mm(a, b)));
  CHECK(same(td::einsum("ij,jk->ki", {a, b}), td::mm(a, b).t()));
  CHECK(same(td::einsum("bij,jk->bik", {batch, b}), td::matmul(batch, b)));
  CHECK(same(td::einsum("bij,bkj->bik", {batch, batch}), td::bmm(batch, batch.transpose(1, 2))));
  CHECK(same(td::einsum("ij->ji", {a}), a.t()));
  CHECK(same(td::einsum("ij->", {a}), a.sum()));
  CHECK(same(td::einsum("i,j->ij", {range({2}), range({3})}), td::outer(range({2}), range({3}))));
  CHECK(same(td::einsum("ii->i", {range({3, 3})}), range({3, 3}).diagonal()));
  CHECK(same(td::einsum("ii", {range({3, 3})}), range({3, 3}).diagonal().sum()));
  CHECK(same(td::einsum("ij,ij->i", {a, a}), (a * a).sum({1})));
  CHECK(same(td::einsum("ij,jk,kl->il", {a, b, a}), td::mm(td::mm(a, b), a)));
  CHECK(same(td::einsum("ab,cb->", {a, a}), td::mm(a, a.t()).sum()));
  CHECK(same(td::addmm(td::ones({2, 2}, {.dtype = td::float64}), a, b, 2, 3), td::mm(a, b) * 3 + 2));
  const td::TensorOptions integers{.dtype = td::int64};
  const Tensor big = td::full({1, 1}, int64_t{1} << 52, integers), one = td::ones({1, 1}, integers);
  CHECK(td::addmm(one, big, one, 3, 2).item<int64_t>() == (int64_t{1} << 53) + 3);
  CHECK(td::addmm(one, big, one, 3, 2).dtype() == td::int64);
  CHECK(td::addmm(one, one, one, 1, 0.5).dtype() == td::float32);
  CHECK(td::addmm(td::full({2, 2}, NAN, {.dtype = td::float64}), a, b, 0).sum().item<double>() ==
        td::mm(a, b).sum().item<double>());
  CHECK(td::dot(range({3}), range({3})).item<double>() == 5);
  CHECK(values(td::mv(a, range({3}))) == F{5, 14});
  const Tensor w = range({2, 3}).requires_grad_();
  td::einsum("ij,jk->", {w, b}).backward();
  CHECK(values(w.grad()) == F{3, 7, 11, 3, 7, 11});
  CHECK_THROWS_WITH(td::einsum("ij,jk", {a, a}),
                    Contains("einsum: \"ij,jk\" gives letter 'j' sizes 3 and 2, in operand 1"));
  CHECK_THROWS_WITH(td::einsum("ij->ik", {a}), Contains("letter 'k' of the result is in no operand"));
  CHECK_THROWS_WITH(td::einsum("ij->ii", {a}), Contains("letter 'i' is twice in the result"));
  CHECK_THROWS_WITH(td::einsum("ijk", {a}), Contains("3 letters for operand 0 of shape (2, 3)"));
  CHECK_THROWS_WITH(td::einsum("i..", {a}), Contains("holds '.', which is no letter"));
  CHECK_THROWS_WITH(td::einsum("...i...", {a}), Contains("holds '.', which is no letter"));
  CHECK_THROWS_WITH(td::einsum("ijk...", {a}), Contains("3 letters for operand 0 of shape (2, 3)"));
  CHECK_THROWS_WITH(td::einsum("...,...", {a, td::ones({3, 3})}),
                    Contains("gives an axis of '...' sizes 2 and 3, in operand 1"));
  CHECK_THROWS_WITH(td::einsum("i,i", {a}), Contains("2 terms for 1 operands"));
  CHECK_THROWS_WITH(td::mm(batch, b), Contains("mm: operands of rank 2 and 2"));
}

TEST_CASE("arrange: cross_entropy's gradient does not feel how large logits are", "[eager]") {
  td::manual_seed(5);
  const Tensor low = td::randint(-64, 64, {6, 37}).to(td::float32) / 16, labels = td::randint(0, 37, {6});
  const auto gradient = [&](double by) {
    const Tensor x = (low + by).requires_grad_();
    td::cross_entropy(x, labels).backward();
    return x.grad().to_vector<float>();
  };
  CHECK(gradient(0) == gradient(1 << 16));  // to which the logits can be added without a rounding
}

TEST_CASE("arrange: losses", "[eager]") {
  using R = td::Reduction;
  const Tensor x = td::tensor<double>({0.5, -2, 3}), y = td::tensor<double>({1, 1, -1});
  CHECK(td::l1_loss(x, y, R::sum).item<double>() == 7.5);
  CHECK(values(td::smooth_l1_loss(x, y, R::none)) == F{0.125, 2.5, 3.5});
  CHECK(values(td::smooth_l1_loss(x, y, R::none, 0)) == F{0.5, 3, 4});
  CHECK(values(td::huber_loss(x, y, R::none, 2)) == F{0.125, 4, 6});
  const Tensor p = td::tensor<double>({0.25, 0, 1}), t = td::tensor<double>({1, 1, 1});
  CHECK(values(td::binary_cross_entropy(p, t, {}, R::none)) == F{-std::log(0.25), 100, 0});
  CHECK(td::binary_cross_entropy(p, t, t * 2, R::sum).item<double>() == Approx(2 * (100 - std::log(0.25))));
  const double soft = std::log1p(std::exp(-0.5));
  CHECK(td::binary_cross_entropy_with_logits(x, t, {}, R::none).to_vector<double>()[0] == Approx(soft));
  CHECK(td::binary_cross_entropy_with_logits(x, t, {}, R::none, t * 3).to_vector<double>()[0] ==
        Approx(3 * soft));
  const Tensor logits = td::tensor<double>({1, 2, 0, 0, -1, 1}).view({2, 3}),
               labels = td::tensor<int64_t>({1, 2});
  const Tensor logp = td::log_softmax(logits, 1);
  const F lp = values(logp);
  CHECK(td::nll_loss(logp, labels).item<double>() ==
        Approx(td::cross_entropy(logits, labels).item<double>()));
  const Tensor weight = td::tensor<double>({1, 2, 3});
  const double weighed = -(2 * lp[1] + 3 * lp[5]) / 5;
  CHECK(td::nll_loss(logp, labels, weight).item<double>() == Approx(weighed));
  CHECK(td::cross_entropy(logits, labels, {.weight = weight}).item<double>() == Approx(weighed));
  const double even = -(lp[0] + lp[1] + lp[2] + lp[3] + lp[4] + lp[5]) / 6;
  CHECK(td::cross_entropy(logits, labels, {.label_smoothing = 0.1}).item<double>() ==
        Approx(0.9 * -(lp[1] + lp[5]) / 2 + 0.1 * even));
  const double even_weighed = -(lp[0] + 2 * lp[1] + 3 * lp[2] + lp[3] + 2 * lp[4] + 3 * lp[5]) / 3 / 5;
  CHECK(td::cross_entropy(logits, labels, {.weight = weight, .label_smoothing = 0.1}).item<double>() ==
        Approx(0.9 * weighed + 0.1 * even_weighed));
  CHECK(td::cross_entropy(logits, td::tensor<int64_t>({1, -100}), {.label_smoothing = 0.1}).item<double>() ==
        Approx(0.9 * -lp[1] - 0.1 * (lp[0] + lp[1] + lp[2]) / 3));
  const Tensor q = td::softmax(logits * 2.0, 1);
  const double divergence = td::kl_div(logp, q, R::sum).item<double>();
  CHECK(divergence == Approx((q * (q.log() - logp)).sum().item<double>()));
  CHECK(td::kl_div(logp, q, R::batchmean).item<double>() == Approx(divergence / 2));
  CHECK(td::kl_div(logp, q.log(), R::sum, true).item<double>() == Approx(divergence));
  CHECK_THROWS_WITH(td::l1_loss(x, y, R::batchmean), Contains("no such reduction"));
  CHECK(values(td::hinge_embedding_loss(x, y, 1, R::none)) == F{0.5, -2, 0});
  CHECK(values(td::margin_ranking_loss(x, x * 0, y, 1, R::none)) == F{0.5, 3, 4});
  CHECK(td::soft_margin_loss(x, y, R::sum).item<double>() ==
        Approx(std::log1p(std::exp(-0.5)) + std::log1p(std::exp(2.0)) + std::log1p(std::exp(3.0))));
  const Tensor a = td::tensor<double>({3, 4, 1, 0}).view({2, 2}),
               b = td::tensor<double>({4, 3, 0, 2}).view({2, 2});
  CHECK(values(td::cosine_similarity(a, b)) == F{0.96, 0});
  CHECK(values(td::cosine_embedding_loss(a, b, td::tensor<double>({1, -1}), 0, R::none))[0] == Approx(0.04));
  CHECK(td::triplet_margin_loss(a, a, b, 1, 2, 0).item<double>() == Approx((0 + 0) / 2.0).margin(1e-9));
  const Tensor zero = td::zeros({2}, {.dtype = td::float64}).requires_grad_();
  td::cosine_similarity(zero, td::ones({2}, {.dtype = td::float64}), 0).backward();
  CHECK(std::isfinite(zero.grad().sum().item<double>()));
}

TEST_CASE("arrange: normalisations", "[eager]") {
  const Tensor x = range({2, 4, 3});
  const Tensor rows = x.reshape({2, 2, 6});
  const Tensor wanted = td::layer_norm(rows, 1).reshape({2, 4, 3});
  CHECK((td::group_norm(x, 2) - wanted).abs().amax().item<double>() < 1e-12);
  CHECK((td::instance_norm(x) - td::layer_norm(x, 1)).abs().amax().item<double>() < 1e-12);
  const Tensor mean = x.mean({0, 2}), var = x.var({0, 2}, 0);
  const Tensor y = td::batch_norm(x, mean, var, td::full({4}, 2.0, {.dtype = td::float64}),
                                  td::ones({4}, {.dtype = td::float64}), false, 0.1, 0);
  CHECK((y.mean({0, 2}) - 1.0).abs().amax().item<double>() < 1e-12);
  CHECK((y.var({0, 2}, 0) - 4.0).abs().amax().item<double>() < 1e-9);
  CHECK(values(td::rms_norm(td::tensor<double>({3, 4}), 1, {}, 0))[0] == Approx(3 / std::sqrt(12.5)));
}

TEST_CASE("arrange: random functions", "[eager]") {
  td::manual_seed(3);
  const Tensor p = td::full({4000}, 0.25, {.dtype = td::float64});
  CHECK(td::bernoulli(p).mean().item<double>() == Approx(0.25).margin(0.03));
  const Tensor n = td::normal(5, 2, {4000}, {.dtype = td::float64});
  CHECK(n.mean().item<double>() == Approx(5).margin(0.15));
  CHECK(n.std().item<double>() == Approx(2).margin(0.1));
  CHECK(td::normal(td::zeros({3, 1}), td::ones({4})).sizes() == Dims{3, 4});
  const Tensor w = td::tensor<double>({0, 1, 3});
  const I drawn = places(td::multinomial(w, 4000, true));
  CHECK(std::count(drawn.begin(), drawn.end(), 0) == 0);
  CHECK(static_cast<double>(std::count(drawn.begin(), drawn.end(), 2)) == Approx(3000).margin(120));
  I all = places(td::multinomial(td::ones({5}), 5));
  std::sort(all.begin(), all.end());
  CHECK(all == I{0, 1, 2, 3, 4});
  CHECK_THROWS_WITH(td::multinomial(w, 4), Contains("multinomial: cannot draw 4 of 3"));
}

TEST_CASE("arrange: multinomial without replacement draws no class of probability 0", "[eager]") {
  td::manual_seed(5);
  Tensor w = td::zeros({1024, 4096});  // enough draws for uniform numbers that are exactly 0
  w.narrow(1, 4095, 1).fill_(1);
  for (int i = 0; i < 8; ++i) REQUIRE((td::multinomial(w, 1) == 4095).all().item<bool>());
  const Tensor two = td::tensor<float>({0, 2, 0, 1, 0});
  I both = places(td::multinomial(two, 2));
  std::sort(both.begin(), both.end());
  CHECK(both == I{1, 3});
  CHECK(td::multinomial(two, 1).sizes() == Dims{1});
  const I drawn = places(td::multinomial(td::tensor<float>({1, 0, 3, 4}).expand({8000, 4}), 1).flatten());
  const auto share = [&](int64_t c) { return double(std::count(drawn.begin(), drawn.end(), c)) / 8000; };
  CHECK(share(0) == Approx(0.125).margin(0.015));
  CHECK(share(1) == 0);
  CHECK(share(2) == Approx(0.375).margin(0.02));
  CHECK(share(3) == Approx(0.5).margin(0.02));
}

TEST_CASE("arrange: max and min, of all and along an axis", "[eager]") {
  const Tensor x = td::tensor({1.0, 5.0, 5.0, -2.0, 3.0, -2.0}).view({2, 3}).requires_grad_();
  CHECK(x.max().item<double>() == 5);
  CHECK(td::min(x).item<double>() == -2);
  const td::ValuesIndices top = x.max(1), low = td::min(x, -1, true);
  CHECK(values(top.values) == F{5, 3});
  CHECK(places(top.indices) == I{1, 1});
  CHECK(low.values.sizes() == Dims{2, 1});
  CHECK(places(low.indices) == I{0, 0});
  CHECK(values(td::max(x, td::full_like(x, 2))) == F{2, 5, 5, 2, 3, 2});
  top.values.sum().backward();  // the first of equals
  CHECK(values(x.grad()) == F{0, 1, 0, 0, 1, 0});
  CHECK(td::full({}, 3).max(0).indices.item<int64_t>() == 0);
  CHECK(std::isnan(td::tensor({1.0, std::nan(""), 7.0}).max(0).values.item<double>()));
  CHECK_THROWS_AS(td::zeros({0, 3}).max(0), td::Error);
}

TEST_CASE("arrange: what is a method is a function, too", "[eager]") {
  const Tensor x = range({2, 3});
  CHECK(values(td::sum(x, 1)) == values(x.sum(1)));
  CHECK(values(td::gather(x, 1, td::tensor<int64_t>({2, 0}).view({2, 1}))) == F{2, 3});
  CHECK(td::transpose(x, 0, 1).sizes() == Dims{3, 2});
  CHECK(values(td::topk(x, 1).values) == F{2, 5});
  CHECK(td::norm(x).item<double>() == x.norm().item<double>());
}
