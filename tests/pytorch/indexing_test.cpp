// Indexing, einsum, special functions, packed sequences and pooling over three axes against PyTorch.
#include "tandem/eager/nn/nn.h"
#include "tests/pytorch/code.h"
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;
using Tensors = std::vector<Tensor>;

namespace {

Tensor longs(std::initializer_list<int64_t> values, const Dims& sizes) {
  return tensor(std::span<const int64_t>(values.begin(), values.size()), sizes);
}
Tensor normal_of(const Dims& sizes, uint64_t seed) {
  manual_seed(seed);
  return randn(sizes, {.dtype = float64});
}

}  // namespace

TEST_CASE("Indexing by tensors is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const Tensor x = normal_of({4, 3, 5, 2}, 3);
  const Tensor i = longs({0, -1, 3, 2, -4, 1}, {2, 3}), j = longs({2, 0, -3}, {3}),
               k = longs({4, -5}, {2, 1});
  const Tensor mask = gt(x, 0.3), rows = tensor({true, false, true, true}).to(bool_);
  const Tensor pair = gt(x.detach().sum({2, 3}), 0.0);
  const std::vector<NamedTensor> in = {{"x", x},    {"i", i},    {"j", j},   {"k", k},
                                       {"m", mask}, {"r", rows}, {"p", pair}};
#define TANDEM_INDEX(code, ...)                                                               \
  s.add("y = x[" code "]", in, [](const Tensors& v) -> Tensor {                               \
    const Tensor &x = v[0], &i = v[1], &j = v[2], &k = v[3], &m = v[4], &r = v[5], &p = v[6]; \
    (void)i, (void)j, (void)k, (void)m, (void)r, (void)p;                                     \
    return x.index({__VA_ARGS__});                                                            \
  })
  TANDEM_INDEX("i", i);
  TANDEM_INDEX("i, j", i, j);
  TANDEM_INDEX(":, j", Slice(), j);
  TANDEM_INDEX(":, j, k", Slice(), j, k);
  TANDEM_INDEX("i, :, k", i, Slice(), k);
  TANDEM_INDEX("..., j, :, -1", Ellipsis(), j, Slice(), -1);
  TANDEM_INDEX("i, None, j", i, None, j);
  TANDEM_INDEX("0, :, k", 0, Slice(), k);
  TANDEM_INDEX("i, 1, k", i, 1, k);
  TANDEM_INDEX("i, 1:, k", i, Slice(1), k);
  TANDEM_INDEX("1:3, j, ::2", Slice(1, 3), j, Slice(None, None, 2));
  TANDEM_INDEX("-3:-1", Slice(-3, -1));
  TANDEM_INDEX("m", m);
  TANDEM_INDEX("r", r);
  TANDEM_INDEX("p", p);
  TANDEM_INDEX("r, j", r, j);
  TANDEM_INDEX(":, :, k, ...", Slice(), Slice(), k, Ellipsis());
  TANDEM_INDEX("True", true);
  TANDEM_INDEX("False", false);
  TANDEM_INDEX("None, i", NewAxis(), i);
  TANDEM_INDEX("i", i.to(int32));
  TANDEM_INDEX("r.byte()", r.to(uint8));
  TANDEM_INDEX("i[0, 1], :, k", i.index({0, 1}), Slice(), k);
  TANDEM_INDEX("j[:0]", j.slice(0, 0, 0));
#undef TANDEM_INDEX
  s.add("y = (x[i], x[r], x[2])", in, [](const Tensors& v) {
    return Tensors{v[0][v[1]], v[0][v[5]], v[0][2]};
  });
  s.compare();
}

TEST_CASE("index_put is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const Tensor x = normal_of({4, 3, 5}, 4), v = normal_of({2, 3, 5}, 5), w = normal_of({5}, 6),
               one = normal_of({}, 7);
  const Tensor i = longs({0, -1, 3, 2, -4, 1}, {2, 3}), j = longs({2, 0, -3}, {3}), k = longs({0, 2}, {2});
  const Tensor r = tensor({true, false, true, true}).to(bool_), m = gt(x, 0.0);
  const std::vector<NamedTensor> in = {{"x", x}, {"v", v}, {"w", w}, {"o", one}, {"i", i},
                                       {"j", j}, {"k", k}, {"r", r}, {"m", m}};
#define TANDEM_PUT(code, ...)                                                                        \
  s.add("y = x.clone(); " code, in, [](const Tensors& t) -> Tensor {                                 \
    const Tensor y = t[0].clone(), &v = t[1], &w = t[2], &o = t[3], &i = t[4], &j = t[5], &k = t[6], \
                 &r = t[7], &m = t[8];                                                               \
    (void)v, (void)w, (void)o, (void)i, (void)j, (void)k, (void)r, (void)m;                          \
    __VA_ARGS__;                                                                                     \
    return y;                                                                                        \
  })
  TANDEM_PUT("y.index_put_((i, j), w[0], accumulate=True)", y.index_put_({i, j}, w[0], true));
  TANDEM_PUT("y.index_put_((i,), v[:, :, None, :], accumulate=True)",
             y.index_put_({i}, v.unsqueeze(2), true));
  TANDEM_PUT("y[k] = v", y.index_put_({k}, v));
  TANDEM_PUT("y[k, :, 1:3] = o", y.index_put_({k, Slice(), Slice(1, 3)}, o));
  TANDEM_PUT("y[k, :, k] = w[:3]", y.index_put_({k, Slice(), k}, w.slice(0, 0, 3)));
  TANDEM_PUT("y[1:, k] = w", y.index_put_({Slice(1), k}, w));
  TANDEM_PUT("y[:, 1, k] = 0.5", y.index_put_({Slice(), 1, k}, 0.5));
  TANDEM_PUT("y[r] = w", y.index_put_({r}, w));
  TANDEM_PUT("y[m] = o", y.index_put_({m}, o));
  TANDEM_PUT("y[r] = 2.0", y.index_put_({r}, 2.0));
  TANDEM_PUT("y[1:3, ..., 0] = w[:3]", y.index_put_({Slice(1, 3), Ellipsis(), 0}, w.slice(0, 0, 3)));
  TANDEM_PUT("y[1:3] += w", y.index_put_({Slice(1, 3)}, w, true));
  TANDEM_PUT("y = y.index_put((k, k), w, accumulate=True)", return y.index_put({k, k}, w, true));
  TANDEM_PUT("y = y.index_put((i, j, j), o)", return y.index_put({i, j, j}, o));
#undef TANDEM_PUT
  s.compare();
}

TEST_CASE("einsum is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const Tensor a = normal_of({2, 3, 4}, 1), b = normal_of({2, 4, 5}, 2), c = normal_of({4, 5}, 3),
               d = normal_of({1, 4, 5}, 4);
  const Tensor e = normal_of({5, 2}, 5), q = normal_of({6, 2, 4, 4}, 6);
  const std::vector<NamedTensor> in = {{"a", a}, {"b", b}, {"c", c}, {"d", d}, {"e", e}, {"q", q}};
  const auto add = [&](const std::string& equation, std::vector<size_t> which) {
    std::string names;
    for (const size_t i : which) names += ", " + in[i].name;
    s.add("y = torch.einsum('" + equation + "'" + names + ")", in, [=](const Tensors& t) -> Tensor {
      Tensors operands;
      for (const size_t i : which) operands.push_back(t[i]);
      return einsum(equation, operands);
    });
  };
  add("bij,bjk->bik", {0, 1});
  add("...ij,...jk->...ik", {0, 1});
  add("...ij,...jk->...ik", {0, 3});
  add("...ij,jk", {0, 2});
  add("...ij,...jk", {0, 2});
  add("...ii->...i", {5});
  add("...ii->i...", {5});
  add("...ij->ij", {5});
  add("i...,i...->...", {0, 0});
  add("bij,bjk,kb->bi", {0, 1, 4});
  add("...ij,...jk,kl->...il", {0, 3, 4});
  add("bij,bjk->bik", {0, 3});
  add("bij,bjk,jk,kb->", {0, 3, 2, 4});
  add("...", {0});
  add("... -> ...", {2});
  s.compare();
}

TEST_CASE("Special functions are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const Tensor x = linspace(0.05, 30, 61, {.dtype = float64}), z = linspace(-7, 7, 57, {.dtype = float64});
  const Tensor u = linspace(0.02, 0.98, 33, {.dtype = float64});
  const std::vector<NamedTensor> in = {{"x", x}, {"z", z}, {"u", u}};
#define TANDEM_SPECIAL(code, ...)                                  \
  s.add("y = " code, in, [](const Tensors& v) -> Tensor {          \
    [[maybe_unused]] const Tensor &x = v[0], &z = v[1], &u = v[2]; \
    return __VA_ARGS__;                                            \
  })
  TANDEM_SPECIAL("torch.lgamma(x)", lgamma(x));
  TANDEM_SPECIAL("torch.lgamma(z + 0.06)", lgamma(z + 0.06));
  TANDEM_SPECIAL("torch.digamma(x)", digamma(x));
  TANDEM_SPECIAL("torch.digamma(z + 0.06)", special::psi(z + 0.06));
  TANDEM_SPECIAL("torch.polygamma(1, x)", polygamma(1, x));
  TANDEM_SPECIAL("torch.polygamma(4, x)", special::polygamma(4, x));
  TANDEM_SPECIAL("torch.special.i0(z * 3)", special::i0(z * 3));
  TANDEM_SPECIAL("torch.special.i0e(z * 9)", special::i0e(z * 9));
  TANDEM_SPECIAL("torch.special.i1(z * 3)", special::i1(z * 3));
  TANDEM_SPECIAL("torch.special.i1e(z * 9)", special::i1e(z * 9));
  TANDEM_SPECIAL("torch.sinc(z)", sinc(z));
  TANDEM_SPECIAL("torch.mvlgamma(x + 2, 3)", mvlgamma(x + 2, 3));
  TANDEM_SPECIAL("torch.special.entr(u)", special::entr(u));
  TANDEM_SPECIAL("torch.special.xlog1py(z[0], x)", special::xlog1py(z[0], x));
  TANDEM_SPECIAL("torch.special.ndtr(z)", special::ndtr(z));
  TANDEM_SPECIAL("torch.special.log_ndtr(z * 3)", special::log_ndtr(z * 3));
  TANDEM_SPECIAL("torch.special.expit(z)", special::expit(z));
  TANDEM_SPECIAL("torch.special.gammaln(x)", special::gammaln(x));
#undef TANDEM_SPECIAL
  s.compare();
}

TEST_CASE("Pooling over three axes, unpooling and the cubic interpolation are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const Tensor x = normal_of({2, 3, 6, 7, 8}, 8), y = normal_of({2, 3, 8, 9}, 9),
               z = normal_of({2, 3, 9}, 10);
  const std::vector<NamedTensor> in = {{"x", x}, {"p", y}, {"z", z}};
#define TANDEM_POOL(code, ...)                                     \
  s.add(code, in, [](const Tensors& v) -> Tensors {                \
    [[maybe_unused]] const Tensor &x = v[0], &p = v[1], &z = v[2]; \
    __VA_ARGS__;                                                   \
  })
  const auto both = [](const ValuesIndices& r) { return Tensors{r.values, r.indices}; };
  (void)both;
#define TANDEM_BOTH(...)               \
  const ValuesIndices r = __VA_ARGS__; \
  return {r.values, r.indices}
  TANDEM_POOL("y = F.max_pool3d(x, 2, return_indices=True)", TANDEM_BOTH(max_pool3d_with_indices(x, 2)));
  TANDEM_POOL("y = F.max_pool3d(x, (3, 2, 3), (2, 1, 2), (1, 0, 1), (1, 2, 1), True, return_indices=True)",
              TANDEM_BOTH(max_pool3d_with_indices(x, {3, 2, 3}, {2, 1, 2}, {1, 0, 1}, {1, 2, 1}, true)));
  TANDEM_POOL("y = F.max_pool3d(x[0], 3, 1, 1)", return {max_pool3d(x[0], 3, 1, 1)});
  TANDEM_POOL("y = F.adaptive_max_pool3d(x, (4, 3, 5), return_indices=True)",
              TANDEM_BOTH(adaptive_max_pool3d_with_indices(x, {4, 3, 5})));
  TANDEM_POOL("y = F.avg_pool3d(x, 2)", return {avg_pool3d(x, 2)});
  TANDEM_POOL("y = F.avg_pool3d(x, (3, 2, 3), (2, 1, 2), (1, 0, 1), True, False)",
              return {avg_pool3d(x, {3, 2, 3}, {2, 1, 2}, {1, 0, 1}, true, false)});
  TANDEM_POOL("y = F.avg_pool3d(x, 3, 2, 1, True)", return {avg_pool3d(x, 3, 2, 1, true)});
  TANDEM_POOL("y = F.avg_pool3d(x[1], 3, 2, 1, False, True, 5)",
              return {avg_pool3d(x[1], 3, 2, 1, false, true, 5)});
  TANDEM_POOL("y = F.adaptive_avg_pool3d(x, (4, None, 5))", return {adaptive_avg_pool3d(x, {4, -1, 5})});
  TANDEM_POOL("y = F.adaptive_avg_pool3d(x, 1)", return {adaptive_avg_pool3d(x, 1)});
  TANDEM_POOL(
      "v, i = F.max_pool2d(p, 2, return_indices=True); y = F.max_unpool2d(v, i, 2, output_size=(8, 9))",
      const ValuesIndices r = max_pool2d_with_indices(p, 2);
      return {max_unpool2d(r.values, r.indices, 2, {}, 0, {8, 9})});
  TANDEM_POOL("v, i = F.max_pool1d(z, 3, 3, 0, return_indices=True); y = F.max_unpool1d(v, i, 3)",
              const ValuesIndices r = max_pool1d_with_indices(z, 3);
              return {max_unpool1d(r.values, r.indices, 3)});
  TANDEM_POOL(
      "v, i = F.max_pool3d(x, 2, return_indices=True); y = F.max_unpool3d(v, i, 2, output_size=x.shape)",
      const ValuesIndices r = max_pool3d_with_indices(x, 2);
      return {max_unpool3d(r.values, r.indices, 2, {}, 0, x.sizes())});
  TANDEM_POOL("y = F.lp_pool2d(p, 2, 3, 2, True)", return {lp_pool2d(p, 2, 3, 2, true)});
  TANDEM_POOL("y = F.lp_pool1d(z.abs(), 3, 2)", return {lp_pool1d(z.abs(), 3, 2)});
  TANDEM_POOL("y = F.interpolate(p, (5, 13), mode='bicubic')",
              return {interpolate(p, {.size = {5, 13}, .mode = Interpolation::bicubic})});
  TANDEM_POOL("y = F.interpolate(p, scale_factor=1.7, mode='bicubic', align_corners=True)",
              return {interpolate(
                  p, {.scale_factor = {1.7}, .mode = Interpolation::bicubic, .align_corners = true})});
#undef TANDEM_POOL
#undef TANDEM_BOTH
  s.compare();
}

namespace {

/// A recurrent layer of 3 to 4 numbers, whose parameters lie one after another in `flat`.
template <class Layer>
void packed_layer(CodeSuite& s, const std::string& name, const std::vector<NamedTensor>& in,
                  bool batch_first) {
  const std::string first = batch_first ? ", True" : "";
  const std::string state = name == "LSTM" ? "(s, c)" : "s", last = name == "LSTM" ? "*h" : "h";
  s.add("import torch.nn.utils.rnn as r; m = torch.nn." + name +
            "(3, 4, 2, bidirectional=True, batch_first=" + (batch_first ? "True" : "False") +
            ").to(x.dtype); "
            "torch.nn.utils.vector_to_parameters(w.detach(), m.parameters()); p, h = "
            "m(r.pack_padded_sequence(x, n" +
            first + ", enforce_sorted=False), " + state + "); y = (p.data, " + last + ")",
        in, [=](const Tensors& v) {
          Layer m(3, 4, {.num_layers = 2, .batch_first = batch_first, .bidirectional = true});
          m.to(v[0].dtype());
          int64_t at = 0;
          for (const Tensor& p : m.parameters()) {
            const NoGrad no_grad;
            p.copy_(v[3].detach().slice(0, at, at + p.numel()).reshape(p.sizes()));
            at += p.numel();
          }
          CHECK(at == v[3].numel());
          const auto packed = nn::utils::rnn::pack_padded_sequence(v[0], v[4], batch_first, false);
          if constexpr (std::is_same_v<Layer, nn::LSTM>) {
            const auto [y, h] = m(packed, {v[1], v[2]});
            return Tensors{y.data, h.h, h.c};
          } else {
            const auto [y, h] = m(packed, v[1]);
            return Tensors{y.data, h};
          }
        });
}

}  // namespace

TEST_CASE("Recurrent layers of packed sequences are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  CodeSuite s;
  const auto add = [&]<class Layer>(std::type_identity<Layer>, const std::string& name, int64_t gates) {
    for (const bool batch_first : {false, true}) {
      const Tensor x = normal_of(batch_first ? Dims{4, 5, 3} : Dims{5, 4, 3}, 21);
      const int64_t rows = gates * 4, weights = 2 * rows * (3 + 4 + 2) + 2 * rows * (8 + 4 + 2);
      const std::vector<NamedTensor> in = {{"x", x},
                                           {"s", normal_of({4, 4, 4}, 22)},
                                           {"c", normal_of({4, 4, 4}, 23)},
                                           {"w", normal_of({weights}, 24) * 0.4},
                                           {"n", longs({3, 5, 1, 4}, {4})}};
      packed_layer<Layer>(s, name, in, batch_first);
    }
  };
  add(std::type_identity<nn::RNN>(), "RNN", 1);
  add(std::type_identity<nn::LSTM>(), "LSTM", 4);
  add(std::type_identity<nn::GRU>(), "GRU", 3);
  s.compare();
}

TEST_CASE("Packed sequences are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  namespace rnn = nn::utils::rnn;
  CodeSuite s;
  const Tensor x = normal_of({5, 4, 3}, 12), a = normal_of({3, 2}, 13), b = normal_of({5, 2}, 14);
  const Tensor n = longs({3, 5, 1, 4}, {4}), ordered = longs({5, 5, 3, 1}, {4});
  const std::vector<NamedTensor> in = {{"x", x}, {"a", a}, {"b", b}, {"n", n}, {"o", ordered}};
  const std::string pack = "import torch.nn.utils.rnn as r; ";
  s.add(pack + "y = r.pack_padded_sequence(x, n, enforce_sorted=False)", in, [](const Tensors& v) {
    const rnn::PackedSequence p = rnn::pack_padded_sequence(v[0], v[3], false, false);
    return Tensors{p.data, p.batch_sizes, p.sorted_indices, p.unsorted_indices};
  });
  s.add(pack + "y = r.pack_padded_sequence(x, o)[:2]", in, [](const Tensors& v) {
    const rnn::PackedSequence p = rnn::pack_padded_sequence(v[0], v[4]);
    CHECK(!p.sorted_indices.defined());
    return Tensors{p.data, p.batch_sizes};
  });
  s.add(pack +
            "p = r.pack_padded_sequence(x.transpose(0, 1), n, True, False); "
            "y = r.pad_packed_sequence(p, True, -2.5, 7)",
        in, [](const Tensors& v) {
          const auto p = rnn::pack_padded_sequence(v[0].transpose(0, 1), v[3], true, false);
          const auto [t, lengths] = rnn::pad_packed_sequence(p, true, -2.5, 7);
          return Tensors{t, lengths};
        });
  s.add(pack +
            "y = (r.pad_sequence([a, b], False, 1.5), r.pad_sequence([b, a], True), "
            "r.pack_sequence([a, b], False).data)",
        in, [](const Tensors& v) {
          return Tensors{rnn::pad_sequence({v[1], v[2]}, false, 1.5), rnn::pad_sequence({v[2], v[1]}, true),
                         rnn::pack_sequence({v[1], v[2]}, false).data};
        });
  s.compare();
}
