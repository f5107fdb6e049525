// What plans of recurrent layers, batch norms, clipped gradients and casts of weights
// cost, by counts: entries, bytes moved, memory. Hand counts stand beside them.
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

/// Of the second call of a traced body, each op of which was also run eagerly and compared.
template <class Body, class... Args>
td::TraceReport cost(Body body, const Args&... args) {
  auto step = td::trace(body, {.verify = 1});
  step(args...);
  step(args...);
  td::TraceReport r = step.report();
  CHECK(r.plans == 1);
  CHECK(r.op_by_op == 0);
  return r;
}

template <class Layer>
td::TraceReport recurrent() {
  td::manual_seed(5);
  Layer net(32, 48, td::nn::RecurrentOptions{.num_layers = 2});
  const auto r = cost(
      [&](const Tensor& x) {
        for (const Tensor& p : net.parameters()) p.zero_grad();
        const Tensor loss = net(x).first.square().mean();
        loss.backward();
        return loss.detach();
      },
      td::rand({10, 16, 32}));
  INFO(r);
  // Two layers of ten steps. Products: 1 + 10 forward; backward 9 of the state, 10 of its weight, 1 of the
  // input's weight, and 1 of the input between the layers.
  CHECK(r.products == 2 * (1 + 10 + 9 + 10 + 1) + 1);
  CHECK(r.natives == 0);
  // Cells run behind the products of their steps. Besides: the zeros that states begin with, the last step's
  // cell and the sums of biases, a layer each or together, the loss.
  CHECK(r.entries - r.products <= 8);
  return r;
}

}  // namespace

TEST_CASE("the plan of two LSTM layers", "[tracer]") {
  const td::TraceReport r = recurrent<td::nn::LSTM>();
  CHECK(r.bytes_moved <= 7200000);
  CHECK(r.arena_bytes <= 600000);
}

TEST_CASE("the plan of two GRU layers", "[tracer]") {
  const td::TraceReport r = recurrent<td::nn::GRU>();
  CHECK(r.bytes_moved <= 5800000);
  CHECK(r.arena_bytes <= 650000);
}

namespace {

struct ConvBlock : td::nn::Module {
  td::nn::Conv2d conv1 = child<td::nn::Conv2d>("conv1", 8, 8, 3, 1, 1);
  td::nn::BatchNorm2d norm1 = child<td::nn::BatchNorm2d>("norm1", 8);
  td::nn::Conv2d conv2 = child<td::nn::Conv2d>("conv2", 8, 8, 3, 1, 1);
  td::nn::BatchNorm2d norm2 = child<td::nn::BatchNorm2d>("norm2", 8);
  Tensor forward(const Tensor& x) const {
    const Tensor y = td::relu(norm1(conv1(x)));
    return td::relu(norm2(conv2(y)) + x);
  }
};

}  // namespace

TEST_CASE("batch norms read their operand twice for statistics and once more to apply them", "[tracer]") {
  td::manual_seed(5);
  ConvBlock net;
  const auto r = cost(
      [&](const Tensor& x) {
        const td::NoGrad no_grad;
        return net.forward(x);
      },
      td::rand({4, 8, 16, 16}));
  INFO(r);
  constexpr int64_t kPass = 4 * 8 * 16 * 16 * 4;
  // A convolution is a read and a write; a norm three reads and a write; the residual one more read.
  CHECK(r.bytes_moved <= kPass * (2 * (2 + 4) + 1) + kPass / 4);
}

TEST_CASE("a norm of gradients is one entry for all of them, and one for the total", "[tracer]") {
  td::manual_seed(5);
  td::nn::Sequential net;
  for (int i = 0; i < 8; ++i) net.emplace<td::nn::Linear>(24, 24);
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
  const auto body = [&](bool clip) {
    return [&net, &opt, clip](const Tensor& x) {
      const Tensor loss = net(x).square().mean();
      opt.zero_grad();
      loss.backward();
      if (clip) td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
      opt.step();
      return loss.detach();
    };
  };
  const Tensor x = td::rand({16, 24});
  const auto plain = cost(body(false), x), clipped = cost(body(true), x);
  INFO(plain);
  INFO(clipped);
  CHECK(clipped.entries <= plain.entries + 4);
}

TEST_CASE("all weights are cast in one launch", "[tracer]") {
  td::manual_seed(5);
  td::nn::Sequential net;
  for (int i = 0; i < 6; ++i) net.emplace<td::nn::Linear>(64, 64, false);
  const auto r = cost(
      [&](const Tensor& x) {
        for (const Tensor& p : net.parameters()) p.zero_grad();
        Tensor loss;
        {
          const td::autocast mixed(td::bfloat16);
          loss = net(x).square().mean();
        }
        loss.backward();
        return loss.detach();
      },
      td::rand({16, 64}));
  INFO(r);
  // Forward 6 products, backward 11; casts of x and of the weights; the loss; casts of 6 gradients.
  CHECK(r.products == 17);
  CHECK(r.entries - r.products <= 5);
}
