// Layers: PyTorch's names of parameters and buffers and their initial values, what each computes, state that
// goes to another module and back, and what they refuse.
#include <cmath>

#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

using Values = std::vector<double>;
using Names = std::vector<std::string>;

Values values(const Tensor& t) { return t.to_vector<double>(); }
Names names(const std::vector<NamedTensor>& list) {
  Names out;
  for (const NamedTensor& n : list) out.push_back(n.name);
  return out;
}
bool same(const Tensor& a, const Tensor& b) { return a.sizes() == b.sizes() && values(a) == values(b); }

struct Net : nn::Module {
  nn::BatchNorm2d norm = child<nn::BatchNorm2d>("norm", 2);
  nn::PReLU bend = child<nn::PReLU>("bend", 2);
  nn::MaxPool2d pool = child<nn::MaxPool2d>("pool", 2);
  nn::GroupNorm groups = child<nn::GroupNorm>("groups", 1, 2);
  nn::RMSNorm rms = child<nn::RMSNorm>("rms", 3);
  nn::InstanceNorm2d instances = child<nn::InstanceNorm2d>("instances", 2);
  nn::CrossEntropyLoss loss = child<nn::CrossEntropyLoss>("loss", CrossEntropyOptions{.weight = ones({4})});
};

}  // namespace

TEST_CASE("layers: names and initial values are PyTorch's", "[nn]") {
  Net net;
  CHECK(names(net.named_parameters()) ==
        Names{"norm.weight", "norm.bias", "bend.weight", "groups.weight", "groups.bias", "rms.weight"});
  CHECK(names(net.named_buffers()) ==
        Names{"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "loss.weight"});
  CHECK(values(net.norm.weight) == Values{1, 1});
  CHECK(values(net.norm.bias) == Values{0, 0});
  CHECK(values(net.norm.running_mean) == Values{0, 0});
  CHECK(values(net.norm.running_var) == Values{1, 1});
  CHECK(net.norm.num_batches_tracked.dtype() == int64);
  CHECK(net.norm.num_batches_tracked.sizes() == Dims{});
  CHECK(values(net.bend.weight) == Values{0.25, 0.25});
  CHECK(values(net.groups.bias) == Values{0, 0});
  CHECK(values(net.rms.weight) == Values{1, 1, 1});
  CHECK(nn::BatchNorm1d(3, 1e-5, 0.1, false, false).state().empty());
  CHECK(names(nn::InstanceNorm1d(3, 1e-5, 0.1, true, true).state()) ==
        Names{"weight", "bias", "running_mean", "running_var", "num_batches_tracked"});
}

TEST_CASE("layers: state goes to another module", "[nn]") {
  manual_seed(8);
  Net a, b;
  for (int i = 0; i < 3; ++i) a.norm(randn({4, 2, 3, 3}) * 2.f + 1.f);
  b.load_state(a.state());
  CHECK(b.norm.num_batches_tracked.item<int64_t>() == 3);
  a.eval(), b.eval();
  const Tensor x = randn({2, 2, 3, 3});
  CHECK(same(a.norm(x), b.norm(x)));
  const auto copy = nn::clone(a);
  CHECK(same(copy->norm(x), a.norm(x)));
  a.to(float64);
  CHECK(a.norm.running_mean.dtype() == float64);
  CHECK(a.norm.num_batches_tracked.dtype() == int64);
  a.train();
  a.norm(x.to(float64));
  CHECK(a.norm.num_batches_tracked.item<int64_t>() == 4);
}

TEST_CASE("layers: each is its function", "[nn]") {
  manual_seed(1);
  const Tensor x = randn({2, 4, 6, 6}) * 2.f;
  CHECK(same(nn::MaxPool2d(3, 2, 1)(x), max_pool2d(x, 3, 2, 1)));
  CHECK(same(nn::AvgPool2d(Dims{2, 3})(x), avg_pool2d(x, {2, 3})));
  CHECK(same(nn::AdaptiveAvgPool2d(Dims{1, 2})(x), adaptive_avg_pool2d(x, {1, 2})));
  CHECK(same(nn::AdaptiveMaxPool2d(3)(x), adaptive_max_pool2d(x, 3)));
  CHECK(same(nn::Upsample({.scale_factor = {2}})(x), interpolate(x, {.scale_factor = {2}})));
  CHECK(nn::Flatten()(x).sizes() == Dims{2, 144});
  CHECK(nn::Unflatten(1, {2, -1})(x).sizes() == Dims{2, 2, 2, 6, 6});
  CHECK(nn::Identity()(x).impl() == x.impl());
  const Tensor line = x.flatten(2);
  CHECK(same(nn::MaxPool1d(2)(line), max_pool1d(line, 2)));
  CHECK(same(nn::AvgPool1d(3, 1, 1)(line), avg_pool1d(line, 3, 1, 1)));
  CHECK(same(nn::AdaptiveAvgPool1d(5)(line), adaptive_avg_pool1d(line, 5)));
  CHECK(same(nn::AdaptiveMaxPool1d(5)(line), adaptive_max_pool1d(line, 5)));
  CHECK(same(nn::GroupNorm(2, 4)(x), group_norm(x, 2)));
  CHECK(same(nn::RMSNorm(6)(x), rms_norm(x, 1, {}, std::numeric_limits<float>::epsilon())));

  CHECK(same(nn::ELU(2)(x), elu(x, 2)));
  CHECK(same(nn::CELU(2)(x), celu(x, 2)));
  CHECK(same(nn::LeakyReLU()(x), leaky_relu(x, 0.01)));
  CHECK(same(nn::Softplus()(x), softplus(x)));
  CHECK(same(nn::Hardtanh(-0.5, 2)(x), hardtanh(x, -0.5, 2)));
  CHECK(same(nn::Softshrink()(x), softshrink(x)));
  CHECK(same(nn::Hardshrink(1)(x), hardshrink(x, 1)));
  CHECK(same(nn::Threshold(0.1, 20)(x), threshold(x, 0.1, 20)));
  CHECK(same(nn::Softmax(1)(x), softmax(x, 1)));
  CHECK(same(nn::Softmin(1)(x), softmax(-x, 1)));
  CHECK(same(nn::LogSoftmax(-1)(x), log_softmax(x, -1)));
  CHECK(same(nn::GLU(1)(x), glu(x, 1)));
  CHECK(same(nn::Tanhshrink()(x), tanhshrink(x)));
  CHECK(same(nn::GELU(true)(x), gelu(x, true)));
  CHECK(same(nn::PReLU()(x), leaky_relu(x, 0.25)));
}

TEST_CASE("layers: losses", "[nn]") {
  manual_seed(2);
  const Tensor a = rand({3, 4}), b = rand({3, 4}), labels = tensor<int64_t>({1, 0, 3});
  const Tensor weight = tensor<float>({1, 2, 3, 4}), signs = tensor<float>({1, -1, 1});
  using R = Reduction;
  CHECK(same(nn::MSELoss()(a, b), mse_loss(a, b)));
  CHECK(same(nn::L1Loss(R::sum)(a, b), l1_loss(a, b, R::sum)));
  CHECK(same(nn::SmoothL1Loss(R::none, 0.2)(a, b), smooth_l1_loss(a, b, R::none, 0.2)));
  CHECK(same(nn::HuberLoss(R::mean, 0.3)(a, b), huber_loss(a, b, R::mean, 0.3)));
  CHECK(same(nn::SoftMarginLoss()(a, b), soft_margin_loss(a, b)));
  CHECK(same(nn::KLDivLoss(R::batchmean)(a, b), kl_div(a, b, R::batchmean)));
  CHECK(same(nn::BCELoss()(a, b), binary_cross_entropy(a, b)));
  CHECK(same(nn::BCEWithLogitsLoss({}, R::mean, weight)(a, b),
             binary_cross_entropy_with_logits(a, b, {}, R::mean, weight)));
  CHECK(same(nn::CrossEntropyLoss({.label_smoothing = 0.1})(a, labels),
             cross_entropy(a, labels, {.label_smoothing = 0.1})));
  CHECK(same(nn::NLLLoss(weight, 0)(a, labels), nll_loss(a, labels, weight, R::mean, 0)));
  CHECK(same(nn::HingeEmbeddingLoss(2)(signs, signs), hinge_embedding_loss(signs, signs, 2)));
  CHECK(same(nn::MarginRankingLoss(0.1)(a[0], b[0], weight), margin_ranking_loss(a[0], b[0], weight, 0.1)));
  CHECK(same(nn::CosineEmbeddingLoss(0.1)(a, b, signs), cosine_embedding_loss(a, b, signs, 0.1)));
  CHECK(same(nn::TripletMarginLoss(0.5)(a, b, b + 1.f), triplet_margin_loss(a, b, b + 1.f, 0.5)));
  CHECK(same(nn::CosineSimilarity()(a, b), cosine_similarity(a, b)));
  CHECK(names(nn::BCEWithLogitsLoss(a, R::mean, weight).state()) == Names{"weight", "pos_weight"});
  nn::NLLLoss moved(weight.clone());
  moved.to(float64);
  CHECK(moved.weight.dtype() == float64);
}

TEST_CASE("layers: what they refuse", "[nn]") {
  CHECK_THAT(message([] {
               nn::BatchNorm2d(3)(ones({2, 3}));
             }),
             Contains("BatchNorm2d: x must have 4 axes, found shape (2, 3)"));
  CHECK_THAT(message([] {
               nn::BatchNorm1d(3)(ones({2, 3, 4, 5}));
             }),
             Contains("BatchNorm1d: x must have 2 or 3 axes"));
  CHECK_THAT(message([] {
               nn::BatchNorm1d(3)(ones({2, 4}));
             }),
             Contains("made for 3 channels, found shape (2, 4)"));
  CHECK_THAT(message([] { nn::BatchNorm1d(3)(ones({1, 3})); }), Contains("more than one value per channel"));
  CHECK_THAT(message([] { nn::InstanceNorm1d(3)(ones({2, 5})); }), Contains("made for 3 channels"));
  CHECK_THAT(message([] { nn::GroupNorm(2, 3); }), Contains("GroupNorm: 2 groups do not divide 3 channels"));
  CHECK_THAT(message([] {
               nn::RMSNorm(4)(ones({2, 3}));
             }),
             Contains("RMSNorm: the last axes must have sizes (4,)"));
  CHECK_THAT(message([] { nn::BatchNorm1d(3, -1); }), Contains("BatchNorm1d: eps must not be negative"));
  CHECK_THAT(message([] { nn::Dropout2d(2); }), Contains("p must lie in [0, 1]"));
}

TEST_CASE("layers: a loss keeps weights of its own", "[nn]") {
  const Tensor w = ones({3});
  nn::NLLLoss nll(w);
  nn::CrossEntropyLoss entropy({.weight = w});
  nn::BCEWithLogitsLoss logits(w, Reduction::mean, w);
  nll.to(float64);
  CHECK(nll.weight.dtype() == float64);
  CHECK(w.dtype() == float32);
  entropy.load_state({{"weight", full({3}, 7.f)}});
  CHECK(entropy.options.weight.to_vector<float>() == std::vector<float>{7, 7, 7});
  logits.load_state({{"weight", full({3}, 7.f)}, {"pos_weight", full({3}, 5.f)}});
  CHECK(w.to_vector<float>() == std::vector<float>{1, 1, 1});
  const auto copy = nn::clone(nll, w);
  nll.weight.detach().mul_(3.0);
  CHECK(copy->weight.to_vector<double>() == std::vector<double>{1, 1, 1});
}
