// A step with batch norm, pooling, channel dropout and interpolation, eager and traced from the same seed:
// bit for bit, one recording, running statistics as slots.
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
namespace nn = tandem::nn;
using td::Tensor;

namespace {

using Numbers = std::vector<double>;

struct Net : nn::Module {
  explicit Net(std::optional<double> momentum)
      : norm(child<nn::BatchNorm2d>("norm", 3, 1e-5, momentum)),
        instances(child<nn::InstanceNorm2d>("instances", 3, 1e-5, 0.1, true, true)) {}
  nn::BatchNorm2d norm;
  nn::InstanceNorm2d instances;
  nn::MaxPool2d pool = child<nn::MaxPool2d>("pool", 3, 2, 1);
  nn::PReLU bend = child<nn::PReLU>("bend", 3);
  nn::Dropout2d drop = child<nn::Dropout2d>("drop", 0.3);
  nn::GroupNorm groups = child<nn::GroupNorm>("groups", 3, 3);
  nn::Upsample wider = child<nn::Upsample>(
      "wider", td::InterpolateOptions{.scale_factor = {1.5}, .mode = td::Interpolation::bilinear});
  nn::BatchNorm1d flat = child<nn::BatchNorm1d>("flat", 3, 1e-5, momentum_of());
  nn::Linear out = child<nn::Linear>("out", 3, 4);

  std::optional<double> momentum_of() const { return norm.momentum; }
  Tensor forward(const Tensor& x) {
    const Tensor pooled = pool(bend(norm(x)));
    const Tensor wide = wider(drop(groups(instances(pooled))));
    return out(flat(td::adaptive_avg_pool2d(wide, 1).flatten(1)));
  }
};

void append(Numbers& out, const Tensor& t) {
  for (const double v : t.to_vector<double>()) out.push_back(v);
}

struct Outcome {
  Numbers numbers;
  td::TraceReport report;
};

Outcome train(bool traced, std::optional<double> momentum, td::TraceOptions options = {}) {
  td::manual_seed(7);
  Net net(momentum);
  td::optim::SGD opt(net.parameters(), {.lr = 0.1, .momentum = 0.9});
  const auto body = [&](const Tensor& x, const Tensor& y) {
    const Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
  const auto guess = [&](const Tensor& x) { return net.forward(x); };
  auto step = td::trace(body, options);
  auto look = td::trace(guess, options);
  Outcome out;
  for (int i = 0; i < 9; ++i) {
    const Tensor x = td::randn({4, 3, 6, 7}), y = td::randint(0, 4, {4});
    append(out.numbers, traced ? step(x, y) : body(x, y));
    if (i % 3 != 2) continue;
    net.eval();
    append(out.numbers, traced ? look(x) : guess(x));
    net.train();
  }
  for (const td::NamedTensor& n : net.state()) append(out.numbers, n.tensor);
  out.report = step.report();
  return out;
}

}  // namespace

TEST_CASE("channels: a traced step equals the eager one bit for bit, and is one recording", "[tracer]") {
  for (const std::optional<double> momentum : {std::optional<double>(0.1), {}}) {
    CAPTURE(momentum.value_or(-1));
    const Outcome eager = train(false, momentum), traced = train(true, momentum);
    CHECK(eager.numbers == traced.numbers);
    CHECK(traced.report.recorded == 1);
    CHECK(traced.report.segments == 1);
    CHECK(traced.report.op_by_op == 0);
    CHECK(traced.report.eager_calls == 0);
  }
}

TEST_CASE("channels: verified calls agree", "[tracer]") {
  const Outcome eager = train(false, 0.1), verified = train(true, 0.1, {.compile = false, .verify = -1});
  CHECK(eager.numbers == verified.numbers);
  CHECK(verified.report.verified > 0);
}

TEST_CASE("a cross entropy of places and one of probabilities are traced", "[tracer]") {
  td::manual_seed(4);
  const Tensor x = td::randn({2, 4, 3, 2}), labels = td::randint(0, 4, {2, 3, 2}),
               target = td::softmax(td::randn({2, 4, 3, 2}), 1), weight = td::tensor({0.5, 1.0, 2.0, 1.5});
  const auto train = [&](bool traced) {
    const Tensor w = td::ones({4, 1, 1}).requires_grad_();
    td::optim::SGD opt({w}, {.lr = 0.5});
    const auto body = [&](const Tensor& in) {
      const Tensor logits = in * w;
      const Tensor weighed = td::cross_entropy(logits, labels, {.weight = weight, .label_smoothing = 0.1});
      const Tensor plain = td::cross_entropy(logits, labels);
      const Tensor loss = weighed + plain + td::cross_entropy(logits, target);
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    };
    auto step = td::trace(body);
    Numbers out;
    for (int i = 0; i < 4; ++i) append(out, traced ? step(x) : body(x));
    if (traced) CHECK(step.report().recorded == 1);
    return out;
  };
  const Numbers eager = train(false);
  CHECK(train(true) == eager);
  CHECK(eager.back() < eager.front());
}
