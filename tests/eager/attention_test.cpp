// Attention against plain loops in double: masks, causality, grouped heads, dropout, gradients; the module
// and the encoder layer against what they are made of.
#include <cmath>
#include <functional>

#include "tandem/eager/autograd.h"
#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
using Doubles = std::vector<double>;

Doubles values(const Tensor& t) { return t.to_vector<double>(); }
Tensor doubles(const Dims& sizes) { return randn(sizes, {.dtype = float64}); }
double distance(const Tensor& a, const Tensor& b) { return (a - b).abs().amax().item<double>(); }

/// What is added to the score of head h, row i, column j of batch n; -infinity: not seen.
using Bias = std::function<double(int64_t n, int64_t h, int64_t i, int64_t j)>;

struct Plain {
  Doubles output, weights;
};
/// Of contiguous (N, H, L, E), (N, Hk, S, E), (N, Hk, S, Ev).
Plain plain(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Bias& bias) {
  const int64_t batches = q.size(0), heads = q.size(1), rows = q.size(2), width = q.size(3);
  const int64_t shared = k.size(1), columns = k.size(2), out_width = v.size(3);
  const Doubles qv = values(q), kv = values(k), vv = values(v);
  Plain r;
  for (int64_t n = 0; n < batches; ++n)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t from = (n * shared + h / (heads / shared)) * columns;
        Doubles p;
        double total = 0;
        for (int64_t j = 0; j < columns; ++j) {
          double score = 0;
          for (int64_t e = 0; e < width; ++e)
            score += qv[static_cast<size_t>(((n * heads + h) * rows + i) * width + e)] *
                     kv[static_cast<size_t>((from + j) * width + e)];
          p.push_back(std::exp(score * scale + bias(n, h, i, j)));
          total += p.back();
        }
        for (double& x : p) x = total == 0 ? 0 : x / total;
        r.weights.insert(r.weights.end(), p.begin(), p.end());
        for (int64_t e = 0; e < out_width; ++e) {
          double sum = 0;
          for (int64_t j = 0; j < columns; ++j)
            sum += p[static_cast<size_t>(j)] * vv[static_cast<size_t>((from + j) * out_width + e)];
          r.output.push_back(sum);
        }
      }
  return r;
}

void check_near(const Tensor& t, const Doubles& wanted, double tolerance = 1e-12) {
  const Doubles found = values(t);
  REQUIRE(found.size() == wanted.size());
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::fabs(found[i] - wanted[i]));
  CHECK(worst < tolerance);
}

double none(int64_t, int64_t, int64_t, int64_t) { return 0; }
double causal(int64_t, int64_t, int64_t i, int64_t j) { return j <= i ? 0 : -kInfinity; }

}  // namespace

TEST_CASE("attention equals plain loops, with its scale, causality and layouts", "[attention]") {
  manual_seed(1);
  const Tensor q = doubles({2, 3, 4, 6}), k = doubles({2, 3, 7, 6}), v = doubles({2, 3, 7, 5});
  check_near(scaled_dot_product_attention(q, k, v), plain(q, k, v, 1 / std::sqrt(6.0), none).output);
  check_near(scaled_dot_product_attention(q, k, v, {}, 0, false, 0.25), plain(q, k, v, 0.25, none).output);
  check_near(scaled_dot_product_attention(q, k, v, {}, 0, true),
             plain(q, k, v, 1 / std::sqrt(6.0), causal).output);
  // As a model gives them: heads side by side in the last axis.
  const Tensor wide = doubles({2, 4, 18});
  const Tensor heads = wide.reshape({2, 4, 3, 6}).transpose(1, 2);
  check_near(
      scaled_dot_product_attention(heads, heads, heads, {}, 0, true),
      plain(heads.contiguous(), heads.contiguous(), heads.contiguous(), 1 / std::sqrt(6.0), causal).output);
  // Without batches, and without heads.
  const Tensor one = scaled_dot_product_attention(q[0][0], k[0][0], v[0][0]);
  CHECK(one.sizes() == Dims{4, 5});
  CHECK(distance(one, scaled_dot_product_attention(q, k, v)[0][0]) < 1e-14);
  CHECK(scaled_dot_product_attention(q, k.narrow(2, 0, 0), v.narrow(2, 0, 0)).abs().sum().item<double>() ==
        0);
}

TEST_CASE("attention masks: bool and floating, unseen lanes and rows are exactly zero", "[attention]") {
  manual_seed(2);
  const Tensor q = doubles({2, 2, 4, 3}), k = doubles({2, 2, 5, 3}), v = doubles({2, 2, 5, 3});
  const Tensor seen = rand({2, 1, 4, 5}) > 0.4;
  seen.select(2, 1).fill_(false);  // row 1 sees nothing
  const Doubles bits = values(seen);
  const auto bias = [&](int64_t n, int64_t, int64_t i, int64_t j) {
    return bits[static_cast<size_t>((n * 4 + i) * 5 + j)] != 0 ? 0 : -kInfinity;
  };
  const Plain wanted = plain(q, k, v, 1 / std::sqrt(3.0), bias);
  const eager::AttentionResult r = eager::attention(q, k, v, seen, 0, false, {}, {});
  check_near(r.output, wanted.output);
  check_near(r.weights, wanted.weights);
  const Doubles weights = values(r.weights);
  for (size_t i = 0; i < weights.size(); ++i)
    if (wanted.weights[i] == 0) CHECK(weights[i] == 0);
  CHECK(r.output.select(2, 1).abs().sum().item<double>() == 0);

  const Tensor added = doubles({4, 5});
  const Doubles add = values(added);
  check_near(scaled_dot_product_attention(q, k, v, added),
             plain(q, k, v, 1 / std::sqrt(3.0), [&](int64_t, int64_t, int64_t i, int64_t j) {
               return add[static_cast<size_t>(i * 5 + j)];
             }).output);
  const Tensor closed = where(seen, 0.0, -kInfinity);
  CHECK(distance(scaled_dot_product_attention(q, k, v, closed), r.output) == 0);
  // Both at once, as the module asks for it.
  check_near(eager::attention(q, k, v, added, 0, true, {}, {}).output,
             plain(q, k, v, 1 / std::sqrt(3.0), [&](int64_t n, int64_t h, int64_t i, int64_t j) {
               return causal(n, h, i, j) + add[static_cast<size_t>(i * 5 + j)];
             }).output);
  // A row that sees nothing takes part in no gradient.
  for (const Tensor& t : {q, k, v}) t.requires_grad_();
  const Tensor y = scaled_dot_product_attention(q, k, v, seen);
  (y * doubles(y.sizes())).sum().backward();
  CHECK(q.grad().select(2, 1).abs().sum().item<double>() == 0);
  for (const Tensor& t : {q, k, v}) {
    CHECK(isfinite(t.grad()).all().item<bool>());
    CHECK(t.grad().abs().sum().item<double>() > 0);
  }
}

TEST_CASE("attention: a head of k and v serves several of q when asked", "[attention]") {
  manual_seed(3);
  const Tensor q = doubles({2, 6, 4, 3}), k = doubles({2, 2, 5, 3}), v = doubles({2, 2, 5, 4});
  check_near(scaled_dot_product_attention(q, k, v, {}, 0, false, {}, true),
             plain(q, k, v, 1 / std::sqrt(3.0), none).output);
  const Tensor seen = rand({2, 6, 4, 5}) > 0.3;
  for (const Tensor& t : {q, k, v}) t.requires_grad_();
  const Tensor y = scaled_dot_product_attention(q, k, v, seen, 0, false, {}, true);
  const Tensor g = doubles(y.sizes());
  const TensorList grouped = autograd::grad(std::vector{y}, std::vector{q, k, v}, std::vector{g});
  const Tensor repeated =
      scaled_dot_product_attention(q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), seen);
  CHECK(distance(y, repeated) < 1e-13);
  const TensorList wanted = autograd::grad(std::vector{repeated}, std::vector{q, k, v}, std::vector{g});
  for (size_t i = 0; i < 3; ++i) CHECK(distance(grouped[i], wanted[i]) < 1e-12);
}

TEST_CASE("attention's gradients are those of its parts, for the weights too", "[attention]") {
  manual_seed(4);
  const Tensor q = doubles({2, 3, 4}), k = doubles({2, 5, 4}), v = doubles({2, 5, 3}), m = doubles({3, 5});
  const TensorList leaves = {q, k, v, m};
  for (const Tensor& t : leaves) t.requires_grad_();
  const Tensor gy = doubles({2, 3, 3}), gw = doubles({2, 3, 5});
  const eager::AttentionResult r = eager::attention(q, k, v, m, 0, false, 0.7, {});
  const TensorList found = autograd::grad(std::vector{r.output, r.weights}, leaves, std::vector{gy, gw});
  const Tensor w = softmax(matmul(q, k.transpose(1, 2)) * 0.7 + m, -1);
  const Tensor y = matmul(w, v);
  const TensorList wanted = autograd::grad(std::vector{y, w}, leaves, std::vector{gy, gw});
  for (size_t i = 0; i < leaves.size(); ++i) CHECK(distance(found[i], wanted[i]) < 1e-13);
}

TEST_CASE("attention's dropout thins the weights by the counter, and the gradient by the same draws",
          "[attention]") {
  const int64_t n = 64;
  const Tensor q = zeros({4, n, 2}), eye = zeros({4, n, n});
  for (int64_t i = 0; i < n; ++i) eye.select(2, i).select(1, i).fill_(1.0);
  const Tensor v = eye.clone().requires_grad_();
  manual_seed(5);
  const Tensor y = scaled_dot_product_attention(q, q, v, {}, 0.25);
  const Tensor next = rand({4});
  manual_seed(5);
  CHECK(distance(scaled_dot_product_attention(q, q, v, {}, 0.25), y) == 0);
  CHECK(distance(rand({4}), next) == 0);  // so many draws, whatever the values
  CHECK(distance(scaled_dot_product_attention(q, q, v, {}, 0.25), y) > 0);
  const double each = 1.0 / static_cast<double>(n);
  double zeros_seen = 0;
  for (const double x : values(y)) {
    if (x == 0)
      ++zeros_seen;
    else
      CHECK(x == Approx(each / 0.75).epsilon(1e-5));
  }
  CHECK(zeros_seen / static_cast<double>(4 * n * n) == Approx(0.25).margin(0.015));
  y.backward(eye);  // of v: the thinned weights transposed
  CHECK(distance(v.grad(), y.transpose(1, 2)) < 1e-7);
  CHECK(scaled_dot_product_attention(q, q, v, {}, 1.0).abs().sum().item<double>() == 0);
}

TEST_CASE("attention's mistakes are told with shapes and the caller's line", "[attention]") {
  const Tensor q = rand({2, 4, 3, 8}), k = rand({2, 2, 5, 8});
  CHECK_THAT(
      message([&] { scaled_dot_product_attention(q, k, k); }),
      Contains("q has 4 heads and k 2: (2, 4, 3, 8), (2, 2, 5, 8); enable_gqa lets heads of k serve") &&
          Contains("attention_test.cpp"));
  CHECK_THAT(message([&] { scaled_dot_product_attention(k, q, q, {}, 0, false, {}, true); }),
             Contains("2 heads of q are no multiple of 4"));
  CHECK_THAT(message([&] {
               scaled_dot_product_attention(q, q, q, ones({3, 3}), 0, true);
             }),
             Contains("attn_mask and is_causal were both given"));
  CHECK_THAT(message([&] {
               scaled_dot_product_attention(q, q, q, ones({4, 3}));
             }),
             Contains("the mask does not broadcast to (2, 4, 3, 3)"));
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, q, q, {}, 1.5); }),
             Contains("dropout_p must lie in [0, 1], found 1.5"));
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, q, q.to(float64)); }),
             Contains("different types"));
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, q, q.narrow(2, 0, 2)); }),
             Contains("k and v have different lengths"));
}

TEST_CASE("attention that is refused draws nothing", "[attention]") {
  const Tensor q = zeros({2, 3}), k = zeros({2, 4});
  manual_seed(9);
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, k, k, {}, 0.5); }),
             Contains("different widths") && Contains("attention_test.cpp"));
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, q, Tensor(), {}, 0.5); }),
             Contains("attention_test.cpp"));
  CHECK_THAT(message([&] {
               scaled_dot_product_attention(q, q, q, ones({3, 2}), 0.5);
             }),
             Contains("does not broadcast"));
  CHECK(default_generator().offset() == 0);
  const autocast half(bfloat16);  // operands of two types become one, and are then looked at
  CHECK_THAT(message([&] { scaled_dot_product_attention(q, k.to(bfloat16), k, {}, 0.5); }),
             Contains("different widths"));
  CHECK(default_generator().offset() == 0);
  CHECK(scaled_dot_product_attention(q, q.to(bfloat16), q, {}, 0.5).dtype() == bfloat16);
  CHECK(default_generator().offset() == 1);  // four weights
}

TEST_CASE("parts: one gradient pass for all, views where none is noted", "[attention]") {
  const Tensor x = arange(0.f, 22).reshape({11, 2}).requires_grad_();
  const std::vector<int64_t> sizes = {1, 2, 0, 1, 1, 1, 3, 1, 1};
  const std::vector<Tensor> found = eager::parts(x, sizes, 0, {});
  REQUIRE(found.size() == 9);
  Tensor loss = zeros({});
  int64_t start = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].to_vector<float>() == x.narrow(0, start, sizes[i]).to_vector<float>());
    start += sizes[i];
    if (i != 1) loss = loss + (found[i] * static_cast<double>(i + 1)).sum();
  }
  loss.backward();
  CHECK(x.grad().select(1, 0).to_vector<float>() == std::vector<float>{1, 0, 0, 4, 5, 6, 7, 7, 7, 8, 9});
  const NoGrad no_grad;
  CHECK(eager::parts(x, sizes, 0, {})[1].impl()->storage == x.impl()->storage);
}

namespace {

std::vector<std::string> names(const nn::Module& m) {
  std::vector<std::string> out;
  for (const NamedTensor& n : m.named_parameters()) out.push_back(n.name);
  return out;
}

}  // namespace

TEST_CASE("MultiheadAttention: parameters, and what it computes", "[attention][nn]") {
  manual_seed(6);
  nn::MultiheadAttention mha(8, 2, {.batch_first = true}, {.dtype = float64});
  CHECK(names(mha) ==
        std::vector<std::string>{"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"});
  CHECK(mha.in_proj_weight.sizes() == Dims{24, 8});
  CHECK(mha.in_proj_weight.abs().amax().item<double>() <= std::sqrt(6.0 / 32));
  CHECK(mha.in_proj_bias.abs().sum().item<double>() == 0);
  CHECK(mha.out_proj.bias.abs().sum().item<double>() == 0);
  {
    const NoGrad no_grad;
    mha.in_proj_bias.copy_(doubles({24}));
  }
  const Tensor x = doubles({3, 5, 8}).requires_grad_();
  const auto by_hand = [&](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& seen) {
    const auto heads = [&](const Tensor& t, int64_t part) {
      const Tensor y =
          linear(t, mha.in_proj_weight.narrow(0, 8 * part, 8), mha.in_proj_bias.narrow(0, 8 * part, 8));
      return y.reshape({t.size(0), t.size(1), 2, 4}).transpose(1, 2);
    };
    const Tensor y = scaled_dot_product_attention(heads(q, 0), heads(k, 1), heads(v, 2), seen);
    return mha.out_proj(y.transpose(1, 2).reshape({q.size(0), q.size(1), 8}));
  };
  const nn::AttentionOutput r = mha(x, x, x);
  const Tensor wanted = by_hand(x, x, x, {});
  CHECK(distance(r.output, wanted) < 1e-14);
  CHECK(r.weights.sizes() == Dims{3, 5, 5});
  CHECK(distance(r.weights.sum({2}), ones({3, 5}, {.dtype = float64})) < 1e-14);
  const Tensor g = doubles({3, 5, 8});
  const TensorList leaves = {x, mha.in_proj_weight, mha.in_proj_bias, mha.out_proj.weight};
  const TensorList found = autograd::grad(std::vector{r.output}, leaves, std::vector{g});
  const TensorList expected = autograd::grad(std::vector{wanted}, leaves, std::vector{g});
  for (size_t i = 0; i < leaves.size(); ++i) CHECK(distance(found[i], expected[i]) < 1e-12);

  // Attention to something else, with masks: true is not seen.
  const Tensor memory = doubles({3, 4, 8}), padding = rand({3, 4}) > 0.7, blocked = rand({5, 4}) > 0.7;
  const Tensor seen = logical_not(logical_or(padding.reshape({3, 1, 1, 4}), blocked));
  const nn::AttentionOutput c = mha(x, memory, memory, {.key_padding_mask = padding, .attn_mask = blocked});
  CHECK(distance(c.output, by_hand(x, memory, memory, seen)) < 1e-14);
  const Tensor added = doubles({6, 5, 4});
  CHECK(distance(mha(x, memory, memory, {.key_padding_mask = padding, .attn_mask = added}).output,
                 by_hand(x, memory, memory,
                         added.reshape({3, 2, 5, 4}) +
                             where(padding.reshape({3, 1, 1, 4}), -kInfinity, 0.0))) < 1e-14);
  CHECK(distance(mha(x, x, x, {.need_weights = false, .is_causal = true}).output,
                 by_hand(x, x, x, ones({5, 5}).tril().to(bool_))) < 1e-14);
  CHECK_FALSE(mha(x, x, x, {.need_weights = false}).weights.defined());
  CHECK(mha(x, memory, memory, {.average_attn_weights = false}).weights.sizes() == Dims{3, 2, 5, 4});
  // Without a batch.
  const nn::AttentionOutput one = mha(x[1], memory[1], memory[1], {.key_padding_mask = padding[1]});
  CHECK(distance(one.output, mha(x, memory, memory, {.key_padding_mask = padding}).output[1]) < 1e-14);
  CHECK(one.weights.sizes() == Dims{5, 4});
}

TEST_CASE("MultiheadAttention: keys and values behind the others are seen by every query",
          "[attention][nn]") {
  manual_seed(9);
  for (const int which : {1, 2, 3}) {
    const bool learnt = which != 2, zero = which != 1;
    CAPTURE(learnt, zero);
    nn::MultiheadAttention mha(8, 2, {.batch_first = true, .add_bias_kv = learnt, .add_zero_attn = zero},
                               {.dtype = float64});
    std::vector<std::string> wanted_names = {"in_proj_weight", "in_proj_bias", "out_proj.weight",
                                             "out_proj.bias"};
    if (learnt) wanted_names.insert(wanted_names.begin() + 2, {"bias_k", "bias_v"});
    CHECK(names(mha) == wanted_names);
    const int64_t more = learnt + zero;
    const auto by_hand = [&](const Tensor& q, const Tensor& k, const Tensor& unseen) {
      const auto heads = [&](const Tensor& t, int64_t part, const Tensor& behind) {
        TensorList all = {linear(t, mha.in_proj_weight.narrow(0, 8 * part, 8))};
        if (learnt && part > 0) all.push_back(behind.expand({t.size(0), 1, 8}));
        if (zero && part > 0) all.push_back(zeros({t.size(0), 1, 8}, {.dtype = float64}));
        const Tensor y = cat(all, 1);
        return y.reshape({y.size(0), y.size(1), 2, 4}).transpose(1, 2);
      };
      const Tensor keys = heads(k, 1, mha.bias_k), values = heads(k, 2, mha.bias_v);
      const Tensor scores = matmul(heads(q, 0, {}), keys.transpose(2, 3)) / 2.0;
      const Tensor all_seen = zeros({q.size(0), 1, q.size(1), more}, {.dtype = bool_});
      const Tensor blocked = cat({unseen.expand({q.size(0), 1, q.size(1), k.size(1)}), all_seen}, -1);
      const Tensor p = softmax(scores.masked_fill(blocked, -kInfinity), -1);
      return std::pair(mha.out_proj(matmul(p, values).transpose(1, 2).reshape({q.size(0), q.size(1), 8})),
                       p.mean({1}));
    };
    const Tensor x = doubles({3, 5, 8}).requires_grad_(), memory = doubles({3, 4, 8});
    const Tensor padding = rand({3, 4}) > 0.5, blocked = rand({5, 4}) > 0.5;
    const Tensor none = zeros({1, 1, 1, 1}, {.dtype = bool_}),
                 both = logical_or(padding.reshape({3, 1, 1, 4}), blocked);
    const auto same = [&](const nn::AttentionOutput& found, const std::pair<Tensor, Tensor>& wanted) {
      CHECK(distance(found.output, wanted.first) < 1e-13);
      if (found.weights.defined()) CHECK(distance(found.weights, wanted.second) < 1e-13);
    };
    same(mha(x, memory, memory), by_hand(x, memory, none));
    same(mha(x, memory, memory, {.key_padding_mask = padding, .attn_mask = blocked}),
         by_hand(x, memory, both));
    const Tensor added = where(blocked, -kInfinity, 0.0).to(float64);
    same(mha(x, memory, memory, {.key_padding_mask = padding, .need_weights = false, .attn_mask = added}),
         by_hand(x, memory, both));
    const Tensor later = ones({5, 5}, {.dtype = bool_}).triu(1);
    for (const bool weights : {true, false})
      same(mha(x, x, x, {.need_weights = weights, .is_causal = true}), by_hand(x, x, later));
    const Tensor one = mha(x[1], memory[1], memory[1], {.key_padding_mask = padding[1]}).output;
    CHECK(distance(one, mha(x, memory, memory, {.key_padding_mask = padding}).output[1]) < 1e-13);
    TensorList leaves = {x, mha.in_proj_weight};
    if (learnt) leaves.insert(leaves.end(), {mha.bias_k, mha.bias_v});
    const Tensor g = doubles({3, 5, 8});
    const TensorList found =
        autograd::grad(std::vector{mha(x, memory, memory).output}, leaves, std::vector{g});
    const TensorList wanted =
        autograd::grad(std::vector{by_hand(x, memory, none).first}, leaves, std::vector{g});
    for (size_t i = 0; i < leaves.size(); ++i) CHECK(distance(found[i], wanted[i]) < 1e-12);
  }
}

TEST_CASE("MultiheadAttention: lengths first, other widths, dropout, mistakes", "[attention][nn]") {
  manual_seed(7);
  nn::MultiheadAttention first(6, 3, {.batch_first = true}), second(6, 3);
  second.load_state(first.state());
  const Tensor x = randn({2, 4, 6});
  const Tensor turned = x.transpose(0, 1);
  CHECK(distance(second(turned, turned, turned).output.transpose(0, 1), first(x, x, x).output) < 1e-6);
  nn::MultiheadAttention wide(6, 2, {.bias = false, .kdim = 4, .vdim = 5});
  CHECK(names(wide) ==
        std::vector<std::string>{"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"});
  CHECK(wide(randn({3, 2, 6}), randn({7, 2, 4}), randn({7, 2, 5})).output.sizes() == Dims{3, 2, 6});
  nn::MultiheadAttention thin(6, 3, {.dropout = 0.5, .batch_first = true});
  CHECK(distance(thin(x, x, x).output, thin(x, x, x).output) > 0);
  thin.eval();
  CHECK(distance(thin(x, x, x).output, thin(x, x, x).output) == 0);

  CHECK_THAT(message([] { nn::MultiheadAttention(6, 4); }), Contains("4 heads do not divide a width of 6"));
  CHECK_THAT(message([] { nn::MultiheadAttention(6, 3, {.dropout = 2}); }),
             Contains("dropout must lie in [0, 1]"));
  CHECK_THAT(message([&] {
               first(x, x, x, {.attn_mask = ones({3, 4})});
             }),
             Contains("attn_mask must have shape (4, 4), found (3, 4)"));
  CHECK_THAT(message([&] {
               first(x, x, x, {.key_padding_mask = ones({4, 2})});
             }),
             Contains("key_padding_mask must have shape (2, 4), found (4, 2)"));
  CHECK_THAT(message([&] { first(x, x, x[0]); }), Contains("must all have rank 3"));
  // An integer mask is no sum of -infinities, whatever stands beside it.
  const Tensor padding = zeros({2, 4}, {.dtype = bool_}), blocked = zeros({4, 4}, {.dtype = bool_});
  CHECK_THAT(message([&] { first(x, x, x, {.key_padding_mask = padding, .attn_mask = blocked.to(int64)}); }),
             Contains("MultiheadAttention: attn_mask must be bool or floating, found int64"));
  CHECK_THAT(message([&] { first(x, x, x, {.key_padding_mask = padding.to(uint8), .attn_mask = blocked}); }),
             Contains("MultiheadAttention: key_padding_mask must be bool or floating, found uint8"));
  CHECK_THAT(message([] { nn::MultiheadAttention(int64_t{1} << 62, 1); }),
             Contains("MultiheadAttention: 3 * embed_dim") && Contains("attention_test.cpp"));
}

TEST_CASE("TransformerEncoderLayer: PyTorch's names, both places of its norms", "[attention][nn]") {
  manual_seed(8);
  for (const bool norm_first : {false, true}) {
    nn::TransformerEncoderLayer layer(8, 2,
                                      {.dim_feedforward = 12,
                                       .activation = [](const Tensor& x) { return gelu(x); },
                                       .batch_first = true,
                                       .norm_first = norm_first});
    CHECK(names(layer) == std::vector<std::string>{"self_attn.in_proj_weight", "self_attn.in_proj_bias",
                                                   "self_attn.out_proj.weight", "self_attn.out_proj.bias",
                                                   "linear1.weight", "linear1.bias", "linear2.weight",
                                                   "linear2.bias", "norm1.weight", "norm1.bias",
                                                   "norm2.weight", "norm2.bias"});
    const Tensor x = randn({2, 5, 8});
    CHECK(distance(layer(x), layer(x)) > 0);  // dropout
    layer.eval();
    const auto attend = [&](const Tensor& y) { return layer.self_attn(y, y, y, {.is_causal = true}).output; };
    const auto feed = [&](const Tensor& y) { return layer.linear2(gelu(layer.linear1(y))); };
    Tensor wanted;
    if (norm_first) {
      const Tensor y = x + attend(layer.norm1(x));
      wanted = y + feed(layer.norm2(y));
    } else {
      const Tensor y = layer.norm1(x + attend(x));
      wanted = layer.norm2(y + feed(y));
    }
    CHECK(distance(layer(x, {}, {}, true), wanted) < 1e-6);
  }
}

TEST_CASE("attention of halves keeps a number a row, and is as right as the composition", "[attention]") {
  manual_seed(21);
  const Tensor q = randn({2, 4, 9, 6}), k = randn({2, 2, 7, 6}), v = randn({2, 2, 7, 5}),
               seed = randn({2, 4, 9, 5});
  const auto gradients = [&](DType type, bool causal) {
    const Tensor in[] = {q.to(type).requires_grad_(), k.to(type).requires_grad_(),
                         v.to(type).requires_grad_()};
    const Tensor y = scaled_dot_product_attention(in[0], in[1], in[2], {}, 0, causal, 0.4, true);
    std::vector<Tensor> all = {y.detach()};
    const Tensor weighed = (y.to(float64) * seed.to(float64)).sum();
    for (const Tensor& g : autograd::grad({&weighed, 1}, in, {}, true, true)) all.push_back(g);
    const Tensor twice = all[1].to(float64).square().sum();
    for (const Tensor& g : autograd::grad({&twice, 1}, in)) all.push_back(g);
    return all;
  };
  for (const bool causal : {false, true}) {
    const std::vector<Tensor> right = gradients(float64, causal);
    for (const DType type : {float16, bfloat16}) {
      const std::vector<Tensor> found = gradients(type, causal);
      REQUIRE(found.size() == right.size());
      for (size_t i = 0; i < right.size(); ++i) {
        CAPTURE(i, causal, name(type));
        CHECK(found[i].dtype() == type);
        const double most = right[i].detach().abs().amax().item<double>();
        CHECK(distance(found[i].detach().to(float64), right[i].detach()) <
              most * (type == float16 ? 0.01 : 0.06));
      }
    }
  }
  // Nothing to look at.
  const Tensor none =
      scaled_dot_product_attention(zeros({3, 4}, {.dtype = float16}), zeros({0, 4}, {.dtype = float16}),
                                   zeros({0, 2}, {.dtype = float16}));
  CHECK(values(none) == Doubles(6, 0.0));
}

TEST_CASE("attention under autocast runs in its type, whatever it keeps", "[attention]") {
  manual_seed(22);
  const Tensor q = randn({2, 8, 8}).requires_grad_();
  Tensor y;
  {
    const Autocast lower(bfloat16);
    y = scaled_dot_product_attention(q, q, q, {}, 0, true);
  }
  CHECK(y.dtype() == bfloat16);
  const Tensor full = scaled_dot_product_attention(q, q, q, {}, 0, true);
  CHECK(distance(y.detach().to(float64), full.detach().to(float64)) < 0.05);
  y.to(float32).sum().backward();
  CHECK(q.grad().dtype() == float32);
}
