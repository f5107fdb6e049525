// Functions of a few lines over ops against PyTorch's: sums with a factor, padding, parts, products, counts
// and losses.
#include "tests/pytorch/code.h"

using namespace tandem;
using namespace tandem::test;
using Tensors = std::vector<Tensor>;

namespace {

Tensor normal_of(const Dims& sizes, uint64_t seed) {
  manual_seed(seed);
  return randn(sizes, {.dtype = float64});
}
Tensor longs(std::initializer_list<int64_t> values, const Dims& sizes) {
  return tensor(std::span<const int64_t>(values.begin(), values.size()), sizes);
}

}  // namespace

TEST_CASE("Sums with a factor are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const std::vector<NamedTensor> in = {{"a", normal_of({3, 4}, 1)}, {"b", normal_of({4}, 2)}};
  s.add("y = torch.add(a, b, alpha=2.5)", in, [](const Tensors& v) { return add(v[0], v[1], 2.5); });
  s.add("y = torch.sub(a, b, alpha=-2)", in, [](const Tensors& v) { return v[0].sub(v[1], -2); });
  s.add("y = torch.rsub(a, b, alpha=3)", in, [](const Tensors& v) { return rsub(v[0], v[1], 3); });
  s.add("y = (a * 2).add_(b, alpha=0.5).sub_(a, alpha=3)", in,
        [](const Tensors& v) { return (v[0] * 2).add_(v[1], 0.5).sub_(v[0], 3); });
  s.add("y = (a * 2).addcmul_(a, b, value=0.5).addcdiv_(b, a.exp(), value=-2)", in,
        [](const Tensors& v) { return (v[0] * 2).addcmul_(v[0], v[1], 0.5).addcdiv_(v[1], v[0].exp(), -2); });
  s.add("y = (a * 2).lerp_(b.expand(3, 4), 0.3).tanh_()", in, [](const Tensors& v) {
    return (v[0] * 2).lerp_(v[1].expand({3, 4}), 0.3).tanh_();
  });
  const std::vector<NamedTensor> whole = {{"i", longs({1, -2, 3}, {3})}, {"j", longs({5, 7, -9}, {3})}};
  s.add("y = torch.add(i, j, alpha=-3)", whole, [](const Tensors& v) { return v[0].add(v[1], -3); });
  s.compare();
}

TEST_CASE("Padding is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const std::vector<NamedTensor> in = {{"x", normal_of({2, 3, 5, 4}, 1)}};
  const auto check = [&](const char* code, const Dims& sizes, PadMode mode, double value = 0) {
    s.add("y = F.pad(x, " + std::string(code) + ")", in,
          [=](const Tensors& v) { return pad(v[0], sizes, mode, value); });
  };
  check("[1, 2]", {1, 2}, PadMode::constant);
  check("[1, 0, 2, 3], value=-1.5", {1, 0, 2, 3}, PadMode::constant, -1.5);
  check("[-1, 2, 0, -2, 1, 1], value=3", {-1, 2, 0, -2, 1, 1}, PadMode::constant, 3);
  check("[1, 3, 4, 2], 'reflect'", {1, 3, 4, 2}, PadMode::reflect);
  check("[6, 3, 0, 2], 'replicate'", {6, 3, 0, 2}, PadMode::replicate);
  check("[4, 3, 5, 1], 'circular'", {4, 3, 5, 1}, PadMode::circular);
  check("[-1, 1, 1, -1], 'reflect'", {-1, 1, 1, -1}, PadMode::reflect);
  s.add("y = F.pixel_shuffle(x.reshape(2, 12, 5, 1), 2)", in, [](const Tensors& v) {
    return pixel_shuffle(v[0].reshape({2, 12, 5, 1}), 2);
  });
  s.add("y = F.pixel_unshuffle(x.reshape(5, 2, 6, 2), 2)", in, [](const Tensors& v) {
    return pixel_unshuffle(v[0].reshape({5, 2, 6, 2}), 2);
  });
  s.add("y = torch.nn.ChannelShuffle(2)(x.detach().reshape(2, 6, 5, 2))", in, [](const Tensors& v) {
    return channel_shuffle(v[0].detach().reshape({2, 6, 5, 2}), 2);
  });
  s.compare();
}

TEST_CASE("Joining, differences and products are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const std::vector<NamedTensor> in = {
      {"a", normal_of({2, 3, 4}, 1)}, {"b", normal_of({4, 3, 5}, 2)}, {"c", normal_of({2, 5, 4}, 3)}};
  s.add("y = torch.vstack([a, c[:, :3]])", in, [](const Tensors& v) {
    return vstack({v[0], v[2].slice(1, 0, 3)});
  });
  s.add("y = torch.vstack([a[0, 0], c[0, 0]])", in, [](const Tensors& v) {
    return vstack({v[0][0][0], v[2][0][0]});
  });
  s.add("y = torch.hstack([a, c])", in, [](const Tensors& v) { return hstack({v[0], v[2]}); });
  s.add("y = torch.hstack([a[0, 0], b[0, 0]])", in, [](const Tensors& v) {
    return hstack({v[0][0][0], v[1][0][0]});
  });
  s.add("y = torch.diff(a, 2, 1)", in, [](const Tensors& v) { return v[0].diff(2, 1); });
  s.add("y = torch.diff(a > 0)", in, [](const Tensors& v) { return (v[0] > 0).diff(); });
  s.add("y = torch.tensordot(a, b[:, :, 0].T.contiguous())", in,
        [](const Tensors& v) { return tensordot(v[0], v[1].select(2, 0).t().contiguous()); });
  s.add("y = torch.tensordot(a, b, ([2, 1], [0, 1]))", in, [](const Tensors& v) {
    return tensordot(v[0], v[1], {2, 1}, {0, 1});
  });
  s.add("y = torch.tensordot(a, b, 0)", in, [](const Tensors& v) { return tensordot(v[0], v[1], 0); });
  s.add("y = torch.kron(a, b[0, :2])", in,
        [](const Tensors& v) { return kron(v[0], v[1].select(0, 0).slice(0, 0, 2)); });
  s.add("y = torch.cross(a, b.permute(2, 1, 0)[:2], 1)", in, [](const Tensors& v) {
    return cross(v[0], v[1].permute({2, 1, 0}).slice(0, 0, 2), 1);
  });
  for (const double p : {2.0, 1.0, 3.0, 0.0, std::numeric_limits<double>::infinity()})
    s.add("y = torch.cdist(a, c, p=float('" + std::to_string(p) + "'))", in,
          [p](const Tensors& v) { return cdist(v[0], v[2], p); });
  s.compare();
}

TEST_CASE("Look-ups and counts are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const std::vector<NamedTensor> in = {{"x", normal_of({3, 4}, 1)},
                                       {"i", longs({2, 0, 1, 1, 3, 0}, {3, 2})},
                                       {"one", longs({2, 0, 1, 1}, {1, 4})},
                                       {"w", normal_of({6}, 4)}};
  s.add("y = torch.take_along_dim(x, i, 1)", in,
        [](const Tensors& v) { return take_along_dim(v[0], v[1], 1); });
  s.add("y = torch.take_along_dim(x, one, 0)", in,
        [](const Tensors& v) { return take_along_dim(v[0], v[2], 0); });
  s.add("y = torch.take_along_dim(x, i)", in, [](const Tensors& v) { return take_along_dim(v[0], v[1]); });
  s.add("y = torch.isin(i, one[0, :2])", in,
        [](const Tensors& v) { return isin(v[1], v[2].select(0, 0).slice(0, 0, 2)); });
  s.add("y = torch.bincount(i.reshape(-1), minlength=6)", in,
        [](const Tensors& v) { return bincount(v[1].reshape({-1}), {}, 6); });
  s.add("y = torch.bincount(i.reshape(-1), w.detach())", in,
        [](const Tensors& v) { return bincount(v[1].reshape({-1}), v[3].detach()); });
  s.add("y = torch.histc(x.detach(), 5)", in, [](const Tensors& v) { return histc(v[0].detach(), 5); });
  s.add("y = torch.histc(x.detach(), 4, -0.5, 1)", in,
        [](const Tensors& v) { return histc(v[0].detach(), 4, -0.5, 1); });
  s.add("y = torch.histc(x.detach() * 0 + 2, 4)", in,
        [](const Tensors& v) { return histc(v[0].detach() * 0 + 2, 4); });
  s.add("y = torch.tril_indices(3, 4, 1), torch.triu_indices(4, 3, -1)", in, [](const Tensors&) {
    return Tensors{tril_indices(3, 4, 1), triu_indices(4, 3, -1)};
  });
  s.compare();
}

TEST_CASE("Further losses are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const std::vector<NamedTensor> in = {{"a", normal_of({4, 3}, 1)},
                                       {"b", normal_of({4, 3}, 2)},
                                       {"labels", longs({2, 0, 1, 1}, {4})},
                                       {"w", normal_of({3}, 3).abs()}};
  const char* reductions[] = {"none", "mean", "sum"};
  for (const Reduction r : {Reduction::none, Reduction::mean, Reduction::sum}) {
    const std::string how = std::string(", reduction='") + reductions[static_cast<size_t>(r)] + "')";
    s.add("y = F.poisson_nll_loss(a, b.exp() * 2" + how, in,
          [r](const Tensors& v) { return poisson_nll_loss(v[0], v[1].exp() * 2, true, false, 1e-8, r); });
    s.add(
        "y = F.poisson_nll_loss(a.exp(), b.exp() * 2, log_input=False, full=True, eps=1e-4" + how, in,
        [r](const Tensors& v) { return poisson_nll_loss(v[0].exp(), v[1].exp() * 2, false, true, 1e-4, r); });
    s.add("y = F.gaussian_nll_loss(a, b, a.exp(), full=True, eps=0.7" + how, in,
          [r](const Tensors& v) { return gaussian_nll_loss(v[0], v[1], v[0].exp(), true, 0.7, r); });
    s.add("y = F.gaussian_nll_loss(a, b, a[:, 0].exp()" + how, in, [r](const Tensors& v) {
      return gaussian_nll_loss(v[0], v[1], v[0].select(1, 0).exp(), false, 1e-6, r);
    });
    s.add("y = F.multi_margin_loss(a, labels" + how, in,
          [r](const Tensors& v) { return multi_margin_loss(v[0], v[2], 1, 1, {}, r); });
    s.add("y = F.multi_margin_loss(a, labels, 2, 0.5, w.detach()" + how, in,
          [r](const Tensors& v) { return multi_margin_loss(v[0], v[2], 2, 0.5, v[3].detach(), r); });
    s.add("y = F.multilabel_soft_margin_loss(a, (b > 0).to(a.dtype), w.detach()" + how, in,
          [r](const Tensors& v) {
            return multilabel_soft_margin_loss(v[0], (v[1] > 0).to(v[0].dtype()), v[3].detach(), r);
          });
  }
  s.add("y = F.pairwise_distance(a, b), F.pairwise_distance(a, b, 1, 0.1, True)", in, [](const Tensors& v) {
    return Tensors{pairwise_distance(v[0], v[1]), pairwise_distance(v[0], v[1], 1, 0.1, true)};
  });
  s.compare();
}
