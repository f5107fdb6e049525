// Models of sequences, eager and traced from the same seed, bit for bit: a transformer block and recurrent
// layers over several training steps, with dropout, masks and lengths.
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

struct Outcome {
  std::vector<float> numbers;
  td::TraceReport report;
};

void append(std::vector<float>& out, const Tensor& t) {
  const std::vector<float> v = t.detach().to_vector<float>();
  out.insert(out.end(), v.begin(), v.end());
}

/// Five steps of a model made by `make`, whose `loss(model, x)` is followed by AdamW.
template <class Make, class Loss>
Outcome train(bool traced, Make make, Loss loss, const td::Dims& sizes) {
  td::manual_seed(21);
  auto net = make();
  td::optim::AdamW opt(net->parameters(), {.lr = 1e-2});
  const auto body = [&](const Tensor& x) {
    const Tensor l = loss(*net, x);
    opt.zero_grad();
    l.backward();
    opt.step();
    return l;
  };
  auto step = td::trace(body);
  Outcome out;
  const Tensor x = td::randn(sizes);
  for (int i = 0; i < 5; ++i) append(out.numbers, traced ? step(x) : body(x));
  for (const Tensor& p : net->parameters()) {
    append(out.numbers, p);
    append(out.numbers, p.grad());
  }
  out.report = step.report();
  return out;
}

template <class Make, class Loss>
void check_equal(Make make, Loss loss, const td::Dims& sizes) {
  const Outcome eager = train(false, make, loss, sizes), traced = train(true, make, loss, sizes);
  CHECK(eager.numbers == traced.numbers);
  CHECK(eager.numbers[4] != eager.numbers[0]);
  CHECK(traced.report.recorded == 1);
  CHECK(traced.report.plans == 1);
  CHECK(traced.report.op_by_op == 0);
}

}  // namespace

TEST_CASE("a transformer block is equal traced and eager, with dropout and masks", "[sequence]") {
  for (const bool causal : {true, false}) {
    INFO((causal ? "causal" : "padded"));
    const auto make = [] {
      return std::make_unique<td::nn::TransformerEncoderLayer>(
          8, 2,
          td::nn::TransformerLayerOptions{
              .dim_feedforward = 16, .dropout = 0.1, .batch_first = true, .norm_first = true});
    };
    const Tensor padding = td::arange(0.f, 6) >= td::tensor({6.f, 3.f, 4.f}).unsqueeze(1);
    const auto loss = [&](const td::nn::TransformerEncoderLayer& net, const Tensor& x) {
      const Tensor y = causal ? net(x, {}, {}, true) : net(x, {}, padding);
      return (y - x.flip({1})).square().mean();
    };
    check_equal(make, loss, {3, 6, 8});
  }
}

TEST_CASE("a transformer is equal traced and eager", "[sequence]") {
  const auto make = [] {
    return std::make_unique<td::nn::Transformer>(
        8, 2, 1, 2,
        td::nn::TransformerLayerOptions{.dim_feedforward = 16, .dropout = 0.1, .batch_first = true});
  };
  const auto loss = [](const td::nn::Transformer& net, const Tensor& x) {
    return (net(x, x.flip({1}), {.tgt_is_causal = true}) - x).square().mean();
  };
  check_equal(make, loss, {3, 6, 8});
}

TEST_CASE("recurrent layers are equal traced and eager over several steps", "[sequence]") {
  const Tensor lengths = td::tensor<int64_t>({5, 2, 4});
  const td::nn::RecurrentOptions options{
      .num_layers = 2, .batch_first = true, .dropout = 0.2, .bidirectional = true};
  SECTION("LSTM") {
    check_equal([&] { return std::make_unique<td::nn::LSTM>(4, 3, options); },
                [&](const td::nn::LSTM& net, const Tensor& x) {
                  const auto [y, state] = net(x, {}, lengths);
                  return (y - 0.5).square().mean() + state.c.square().mean();
                },
                {3, 5, 4});
  }
  SECTION("GRU") {
    check_equal([&] { return std::make_unique<td::nn::GRU>(4, 3, options); },
                [&](const td::nn::GRU& net, const Tensor& x) {
                  const auto [y, state] = net(x, {}, lengths);
                  return (y - 0.5).square().mean() + state.square().mean();
                },
                {3, 5, 4});
  }
  SECTION("RNN, without lengths") {
    check_equal([&] { return std::make_unique<td::nn::RNN>(4, 3, options); },
                [](const td::nn::RNN& net, const Tensor& x) {
                  const auto [y, state] = net(x);
                  return (y - 0.5).square().mean() + state.square().mean();
                },
                {3, 5, 4});
  }
}

TEST_CASE("an LSTM's state goes from traced call to traced call", "[sequence]") {
  const auto run = [](bool traced) {
    td::manual_seed(4);
    td::nn::LSTM net(3, 4);
    td::optim::SGD opt(net.parameters(), {.lr = 0.1});
    const auto body = [&](const Tensor& x, const Tensor& h, const Tensor& c) {
      const auto [y, state] = net(x, {h, c});
      const Tensor loss = (y - 0.25).square().mean();
      opt.zero_grad();
      loss.backward();
      opt.step();
      return std::vector<Tensor>{loss.detach(), state.h.detach(), state.c.detach()};
    };
    auto step = td::trace(body);
    std::vector<float> out;
    Tensor h = td::zeros({1, 2, 4}), c = td::zeros({1, 2, 4});
    for (int i = 0; i < 4; ++i) {
      const Tensor x = td::randn({6, 2, 3});
      const std::vector<Tensor> r = traced ? step(x, h, c) : body(x, h, c);
      for (const Tensor& t : r) append(out, t);
      h = r[1], c = r[2];
    }
    return out;
  };
  CHECK(run(false) == run(true));
}

TEST_CASE("a frozen step of a transformer block goes on as the eager one, with and without dropout",
          "[sequence]") {
  for (const double p : {0.0, 0.2}) {
    INFO(p);
    const auto run = [&](bool frozen) {
      td::manual_seed(9);
      td::nn::TransformerEncoderLayer net(8, 2, {.dim_feedforward = 16, .dropout = p, .batch_first = true});
      td::nn::GRU gru(8, 4, {.num_layers = 2, .batch_first = true, .dropout = p});
      std::vector<Tensor> parameters = net.parameters();
      for (const Tensor& w : gru.parameters()) parameters.push_back(w);
      td::optim::AdamW opt(parameters, {.lr = 1e-2});
      auto step = td::trace([&](const Tensor& x) {
        const Tensor loss = gru(net(x, {}, {}, true)).first.square().mean();
        opt.zero_grad();
        loss.backward();
        opt.step();
        return loss.detach();
      });
      std::vector<float> out;
      const auto calls = [&](int n, auto& f) {
        for (int i = 0; i < n; ++i) {
          const Tensor x = td::randn({3, 5, 8});
          append(out, f(x));
        }
      };
      calls(3, step);
      if (frozen) {
        auto core = step.freeze();
        calls(3, core);
      } else {
        calls(3, step);
      }
      for (const Tensor& w : parameters) append(out, w);
      return out;
    };
    CHECK(run(true) == run(false));
  }
}

TEST_CASE("a traced attention with its gradient is six products and a kernel", "[sequence]") {
  const Tensor q = td::randn({2, 3, 8, 4}).requires_grad_(), k = td::randn({2, 3, 8, 4}).requires_grad_(),
               v = td::randn({2, 3, 8, 4}).requires_grad_();
  auto step = td::trace([&](const Tensor& g) {
    for (const Tensor& t : {q, k, v}) t.zero_grad();
    const Tensor y = td::scaled_dot_product_attention(q, k, v, {}, 0, true);
    y.backward(g);
    return y.detach();
  });
  const Tensor g = td::randn({2, 3, 8, 4});
  for (int i = 0; i < 3; ++i) step(g);
  const td::TraceReport r = step.report();
  CHECK(r.products == 6);  // the scores and probabilities are not computed again
  CHECK(r.kernels == 1);   // softmax and its gradient; the mask is known with the plan
  CHECK(r.natives == 0);
}

TEST_CASE("between gelu and its gradient go the operand and one value more", "[sequence]") {
  for (const bool tanh : {false, true}) {
    INFO(tanh);
    const Tensor x = td::randn({64, 64}).requires_grad_(), w = td::randn({64, 64});
    auto step = td::trace([&] {
      x.zero_grad();
      const Tensor loss = td::matmul(td::gelu(x, tanh), w).square().sum();
      loss.backward();
      return loss.detach();
    });
    for (int i = 0; i < 3; ++i) step();
    // Forward x, gelu, bend; the product; its square's sum and gradient; a product; x, bend, g, the result.
    CHECK(step.report().bytes_moved <= (3 + 3 + 2 + 3 + 4) * x.impl()->nbytes() + 1024);
  }
}
