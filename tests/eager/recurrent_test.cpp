// Recurrent cells and layers against plain loops in double; lengths against each sequence alone; gradients.
#include <cmath>
#include <functional>
#include <map>

#include "tandem/eager/autograd.h"
#include "tandem/eager/nn/nn.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

using Doubles = std::vector<double>;
const TensorOptions kDouble{.dtype = float64};

Doubles values(const Tensor& t) { return t.to_vector<double>(); }
double distance(const Tensor& a, const Tensor& b) {
  if (a.sizes() != b.sizes()) return 1e9;
  return (a - b).abs().amax().item<double>();
}
double distance(const Tensor& a, const Doubles& b) {
  const Doubles v = values(a);
  if (v.size() != b.size()) return 1e9;
  double worst = 0;
  for (size_t i = 0; i < v.size(); ++i) worst = std::max(worst, std::fabs(v[i] - b[i]));
  return worst;
}

/// W x + b
Doubles affine(const Tensor& w, const Tensor& b, const Doubles& x) {
  const Doubles wv = values(w), bv = b.defined() ? values(b) : Doubles(static_cast<size_t>(w.size(0)));
  Doubles y = bv;
  for (size_t i = 0; i < y.size(); ++i)
    for (size_t j = 0; j < x.size(); ++j) y[i] += wv[i * x.size() + j] * x[j];
  return y;
}
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

struct State {
  Doubles h, c;
};
/// One step of one sequence.
State plain_step(const std::string& kind, const nn::RecurrentWeights& w, const Doubles& x, const State& s) {
  const size_t n = s.h.size();
  const Doubles a = affine(w.weight_ih, w.bias_ih, x), b = affine(w.weight_hh, w.bias_hh, s.h);
  State r = s;
  for (size_t i = 0; i < n; ++i) {
    const auto sum = [&](size_t gate) { return a[gate * n + i] + b[gate * n + i]; };
    if (kind == "tanh") r.h[i] = std::tanh(sum(0));
    if (kind == "relu") r.h[i] = std::max(sum(0), 0.0);
    if (kind == "lstm") {
      r.c[i] = sigmoid_of(sum(1)) * s.c[i] + sigmoid_of(sum(0)) * std::tanh(sum(2));
      r.h[i] = sigmoid_of(sum(3)) * std::tanh(r.c[i]);
    }
    if (kind == "gru") {
      const double z = sigmoid_of(sum(1));
      const double fresh = std::tanh(a[2 * n + i] + sigmoid_of(sum(0)) * b[2 * n + i]);
      r.h[i] = (1 - z) * fresh + z * s.h[i];
    }
  }
  return r;
}

/// What a layer gives: the output (T, N, directions * H) and the states per layer and direction.
struct Outcome {
  Tensor output, h, c;
};
struct Plain {
  Doubles output, h, c;
};

/// `x` (T, N, I), initial states (stacks, N, H).
Plain plain_layers(const std::string& kind, const nn::RecurrentLayers& m, const Tensor& x, const Tensor& h0,
                   const Tensor& c0) {
  const int64_t steps = x.size(0), batch = x.size(1), hidden = m.hidden_size;
  const int64_t directions = m.options.bidirectional ? 2 : 1;
  Plain r;
  r.h.resize(m.weights.size() * static_cast<size_t>(batch * hidden));
  r.c = r.h;
  r.output.resize(static_cast<size_t>(steps * batch * directions * hidden));
  for (int64_t n = 0; n < batch; ++n) {
    std::vector<Doubles> line;
    for (int64_t t = 0; t < steps; ++t) line.push_back(values(x[t][n]));
    for (int64_t layer = 0; layer < m.options.num_layers; ++layer) {
      std::vector<Doubles> next(line.size());
      for (int64_t d = 0; d < directions; ++d) {
        const int64_t at = layer * directions + d;
        State s{values(h0[at][n]), values(c0[at][n])};
        std::vector<Doubles> out(line.size());
        for (size_t k = 0; k < line.size(); ++k) {
          const size_t t = d == 0 ? k : line.size() - 1 - k;
          s = plain_step(kind, m.weights[static_cast<size_t>(at)], line[t], s);
          out[t] = s.h;
        }
        for (size_t t = 0; t < line.size(); ++t) next[t].insert(next[t].end(), out[t].begin(), out[t].end());
        std::copy(s.h.begin(), s.h.end(), r.h.begin() + (at * batch + n) * hidden);
        std::copy(s.c.begin(), s.c.end(), r.c.begin() + (at * batch + n) * hidden);
      }
      line = next;
    }
    for (int64_t t = 0; t < steps; ++t)
      std::copy(line[static_cast<size_t>(t)].begin(), line[static_cast<size_t>(t)].end(),
                r.output.begin() + (t * batch + n) * directions * hidden);
  }
  return r;
}

/// The four kinds of layers behind one face.
struct Layers {
  std::string kind;
  std::unique_ptr<nn::RecurrentLayers> module;
  Outcome operator()(const Tensor& x, const Tensor& h = {}, const Tensor& c = {},
                     const Tensor& lengths = {}) const {
    if (kind == "lstm") {
      auto [y, s] = static_cast<nn::LSTM&>(*module)(x, {h, c}, lengths);
      return {y, s.h, s.c};
    }
    const auto r = kind == "gru" ? static_cast<nn::GRU&>(*module)(x, h, lengths)
                                 : static_cast<nn::RNN&>(*module)(x, h, lengths);
    return {r.first, r.second, {}};
  }
};
Layers layers(const std::string& kind, int64_t input, int64_t hidden, nn::RecurrentOptions o) {
  Layers l{kind, nullptr};
  if (kind == "lstm") l.module = std::make_unique<nn::LSTM>(input, hidden, o, kDouble);
  if (kind == "gru") l.module = std::make_unique<nn::GRU>(input, hidden, o, kDouble);
  if (!l.module)
    l.module = std::make_unique<nn::RNN>(
        input, hidden, o, kind == "relu" ? nn::Nonlinearity::relu : nn::Nonlinearity::tanh, kDouble);
  return l;
}
const std::vector<std::string> kKinds = {"tanh", "relu", "lstm", "gru"};

std::vector<std::string> names(const nn::Module& m) {
  std::vector<std::string> out;
  for (const NamedTensor& n : m.named_parameters()) out.push_back(n.name);
  return out;
}

}  // namespace

TEST_CASE("recurrent layers equal plain loops: layers, directions, states", "[recurrent]") {
  manual_seed(1);
  for (const std::string& kind : kKinds)
    for (const bool both : {false, true})
      for (const bool bias : {true, false}) {
        INFO(kind << (both ? " both directions" : "") << (bias ? "" : " without bias"));
        const Layers l = layers(kind, 3, 4, {.num_layers = 2, .bias = bias, .bidirectional = both});
        const int64_t stacks = both ? 4 : 2;
        const Tensor x = randn({6, 2, 3}, kDouble), h = randn({stacks, 2, 4}, kDouble),
                     c = randn({stacks, 2, 4}, kDouble), none = zeros({stacks, 2, 4}, kDouble);
        const Outcome r = l(x, h, c), from_zero = l(x);
        const Plain wanted = plain_layers(kind, *l.module, x, h, c);
        CHECK(r.output.sizes() == Dims{6, 2, both ? 8 : 4});
        CHECK(distance(r.output, wanted.output) < 1e-13);
        CHECK(distance(r.h, wanted.h) < 1e-13);
        if (kind == "lstm") CHECK(distance(r.c, wanted.c) < 1e-13);
        CHECK(distance(from_zero.output, plain_layers(kind, *l.module, x, none, none).output) < 1e-13);
      }
}

TEST_CASE("recurrent layers with lengths equal each sequence alone, values and gradients", "[recurrent]") {
  manual_seed(2);
  const std::vector<int64_t> lengths = {3, 6, 1, 5};
  for (const std::string& kind : kKinds) {
    INFO(kind);
    const Layers l = layers(kind, 3, 2, {.num_layers = 2, .batch_first = true, .bidirectional = true});
    const Tensor x = randn({4, 6, 3}, kDouble).requires_grad_(), h = randn({4, 4, 2}, kDouble),
                 c = randn({4, 4, 2}, kDouble);
    const Tensor g = randn({4, 6, 4}, kDouble), gh = randn({4, 4, 2}, kDouble);
    const Outcome all = l(x, h, c, tensor(lengths));
    TensorList leaves = l.module->parameters();
    leaves.push_back(x);
    const TensorList found = autograd::grad(std::vector{all.output, all.h}, leaves, std::vector{g, gh});
    TensorList sums;
    for (int64_t n = 0; n < 4; ++n) {
      const int64_t t = lengths[static_cast<size_t>(n)];
      const Outcome one = l(x.narrow(0, n, 1).narrow(1, 0, t), h.narrow(1, n, 1), c.narrow(1, n, 1));
      CHECK(distance(all.output.narrow(0, n, 1).narrow(1, 0, t), one.output) < 1e-14);
      if (t < 6) CHECK(all.output[n].narrow(0, t, 6 - t).abs().amax().item<double>() == 0);
      CHECK(distance(all.h.narrow(1, n, 1), one.h) < 1e-14);
      if (kind == "lstm") CHECK(distance(all.c.narrow(1, n, 1), one.c) < 1e-14);
      const TensorList own =
          autograd::grad(std::vector{one.output, one.h}, leaves,
                         std::vector{g.narrow(0, n, 1).narrow(1, 0, t), gh.narrow(1, n, 1)});
      for (size_t i = 0; i < own.size(); ++i) {
        if (n == 0)
          sums.push_back(own[i]);
        else
          sums[i] = sums[i] + own[i];
      }
    }
    for (size_t i = 0; i < sums.size(); ++i) CHECK(distance(found[i], sums[i]) < 1e-12);
  }
}

TEST_CASE("recurrent layers: gradients equal differences of the plain loops", "[recurrent]") {
  manual_seed(3);
  for (const std::string kind : {"tanh", "lstm", "gru"}) {
    INFO(kind);
    const Layers l = layers(kind, 2, 3, {.num_layers = 2, .bidirectional = true});
    const Tensor x = randn({5, 2, 2}, kDouble).requires_grad_(),
                 h = randn({4, 2, 3}, kDouble).requires_grad_(),
                 c = randn({4, 2, 3}, kDouble).requires_grad_(), g = randn({5, 2, 6}, kDouble);
    TensorList leaves = l.module->parameters();
    leaves.push_back(x);
    leaves.push_back(h);
    if (kind == "lstm") leaves.push_back(c);
    const TensorList found = autograd::grad(std::vector{l(x, h, c).output}, leaves, std::vector{g});
    const Doubles weights = values(g);
    const auto loss = [&] {
      const Doubles y = plain_layers(kind, *l.module, x, h, c).output;
      double sum = 0;
      for (size_t i = 0; i < y.size(); ++i) sum += y[i] * weights[i];
      return sum;
    };
    const NoGrad no_grad;
    for (size_t i = 0; i < leaves.size(); ++i) {
      const Tensor direction = randn(leaves[i].sizes(), kDouble);
      constexpr double kStep = 1e-5;
      leaves[i].add_(direction * kStep);
      const double up = loss();
      leaves[i].sub_(direction * (2 * kStep));
      const double down = loss();
      leaves[i].add_(direction * kStep);
      CHECK((found[i] * direction).sum().item<double>() ==
            Approx((up - down) / (2 * kStep)).epsilon(1e-6).margin(1e-8));
    }
  }
}

TEST_CASE("recurrent layers: PyTorch's names, shapes and bounds", "[recurrent]") {
  manual_seed(4);
  nn::LSTM m(3, 4, {.num_layers = 2, .bidirectional = true});
  std::vector<std::string> wanted;
  for (const std::string suffix : {"_l0", "_l0_reverse", "_l1", "_l1_reverse"})
    for (const std::string part : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"})
      wanted.push_back(part + suffix);
  CHECK(names(m) == wanted);
  CHECK(m.weights[0].weight_ih.sizes() == Dims{16, 3});
  CHECK(m.weights[2].weight_ih.sizes() == Dims{16, 8});
  CHECK(m.weights[3].weight_hh.sizes() == Dims{16, 4});
  for (const Tensor& p : m.parameters()) {
    CHECK(p.abs().amax().item<double>() <= 0.5);
    CHECK(p.abs().amax().item<double>() > 0.3);
  }
  CHECK(nn::GRU(3, 4).weights[0].weight_ih.sizes() == Dims{12, 3});
  CHECK(names(nn::RNN(3, 4, {.bias = false})) == std::vector<std::string>{"weight_ih_l0", "weight_hh_l0"});
  CHECK(names(nn::GRUCell(3, 4)) == std::vector<std::string>{"weight_ih", "weight_hh", "bias_ih", "bias_hh"});
}

TEST_CASE("recurrent layers: batch first, dropout between layers", "[recurrent]") {
  manual_seed(5);
  nn::GRU first(3, 4, {.num_layers = 2, .batch_first = true, .dropout = 0.5}),
      second(3, 4, {.num_layers = 2});
  second.load_state(first.state());
  const Tensor x = randn({2, 5, 3});
  CHECK(distance(first(x).first, first(x).first) > 0);
  first.eval();
  CHECK(distance(first(x).first, second(x.transpose(0, 1)).first.transpose(0, 1)) < 1e-6);
  for (const nn::GRU* m : {&first, &second}) {  // without a batch
    const Tensor h = randn({2, 2, 4});
    const Tensor one = x[1], own = h.select(1, 1);
    const bool turned = m == &second;
    second.eval();
    const auto [y, state] = (*m)(turned ? x.transpose(0, 1) : x, h);
    const auto [y1, state1] = (*m)(one, own);
    CHECK(distance(y1, y.select(turned ? 1 : 0, 1)) < 1e-6);
    CHECK(distance(state1, state.select(1, 1)) < 1e-6);
  }
  nn::GRU single(3, 4, {.dropout = 0.5});
  CHECK(distance(single(x).first, single(x).first) == 0);  // no layer above
}

TEST_CASE("recurrent cells equal a layer of one step", "[recurrent]") {
  manual_seed(6);
  const Tensor x = randn({2, 3}), h = randn({2, 4}), c = randn({2, 4});
  const auto filled = [](nn::RecurrentCell& cell, const nn::RecurrentLayers& layer) {
    const TensorList to = cell.parameters(), from = layer.parameters();
    const NoGrad no_grad;
    for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
  };
  nn::LSTM lstm(3, 4);
  nn::LSTMCell lstm_cell(3, 4);
  filled(lstm_cell, lstm);
  const nn::LstmState s = lstm_cell(x, {h, c});
  const auto [y, state] = lstm(x.unsqueeze(0), {h.unsqueeze(0), c.unsqueeze(0)});
  CHECK(distance(s.h, state.h[0]) == 0);
  CHECK(distance(s.c, state.c[0]) == 0);
  CHECK(distance(lstm_cell(x[1], {h[1], c[1]}).h, s.h[1]) < 1e-6);  // without a batch
  nn::GRU gru(3, 4);
  nn::GRUCell gru_cell(3, 4);
  filled(gru_cell, gru);
  CHECK(distance(gru_cell(x, h), gru(x.unsqueeze(0), h.unsqueeze(0)).second[0]) == 0);
  nn::RNN rnn(3, 4, {}, nn::Nonlinearity::relu);
  nn::RNNCell rnn_cell(3, 4, true, nn::Nonlinearity::relu);
  filled(rnn_cell, rnn);
  CHECK(distance(rnn_cell(x), rnn(x.unsqueeze(0)).second[0]) == 0);
}

TEST_CASE("recurrent layers: mistakes are told with shapes and the caller's line", "[recurrent]") {
  nn::LSTM m(3, 4, {.num_layers = 2});
  const Tensor x = randn({5, 2, 3});
  CHECK_THAT(message([&] {
               m(randn({5, 2, 4}));
             }),
             Contains("LSTM: input (T, N, 3), not empty, is needed, found (5, 2, 4)") &&
                 Contains("recurrent_test.cpp"));
  CHECK_THAT(message([&] {
               m(x, {randn({1, 2, 4}), {}});
             }),
             Contains("the initial state must have shape (2, 2, 4), found (1, 2, 4)"));
  CHECK_THAT(message([&] { m(x, {}, ones({2})); }), Contains("lengths must be integers of shape (2,)"));
  CHECK_THAT(message([&] { m(x, {}, ones({3}, {.dtype = int64})); }), Contains("found (3,) of type int64"));
  CHECK_THAT(message([] { nn::GRU(3, 0); }), Contains("GRU: input_size and hidden_size must be at least 1"));
  CHECK_THAT(message([] { nn::GRU(3, 4, {.num_layers = 0}); }), Contains("num_layers must be at least 1"));
  CHECK_THAT(message([] { nn::GRU(3, 4, {.dropout = -1}); }), Contains("dropout must lie in [0, 1]"));
  CHECK_THAT(message([] {
               nn::LSTMCell(3, 4)(randn({2, 5}));
             }),
             Contains("LSTMCell: input (N, 3) is needed"));
}

TEST_CASE("recurrent cells refuse states of other shapes, which would broadcast", "[recurrent]") {
  nn::RNNCell rnn(2, 3);
  nn::GRUCell gru(2, 3);
  nn::LSTMCell lstm(2, 3);
  const Tensor x = randn({5, 2}), good = zeros({5, 3}), row = zeros({1, 3});
  CHECK_THAT(
      message([&] { rnn(x, row); }),
      Contains("RNNCell: the state must have shape (5, 3), found (1, 3)") && Contains("recurrent_test.cpp"));
  CHECK_THAT(message([&] {
               rnn(randn({2}), zeros({7, 3}));
             }),
             Contains("RNNCell: the state must have shape (3,), found (7, 3)"));
  CHECK_THAT(message([&] { gru(x, row); }),
             Contains("GRUCell: the state must have shape (5, 3), found (1, 3)"));
  CHECK_THAT(message([&] {
               lstm(x, {row, good});
             }),
             Contains("LSTMCell: the state must have shape (5, 3), found (1, 3)"));
  CHECK_THAT(message([&] {
               lstm(x, {good, zeros({5, 1})});
             }),
             Contains("LSTMCell: the cell must have shape (5, 3), found (5, 1)"));
  CHECK(lstm(x, {good, {}}).c.sizes() == Dims{5, 3});
}

TEST_CASE("recurrent layers: sizes of gates beyond int64 are refused", "[recurrent]") {
  CHECK_THAT(message([] { nn::LSTM m(1, int64_t{1} << 62); }),
             Contains("LSTM: gates * hidden_size") && Contains("recurrent_test.cpp"));
  CHECK_THAT(message([] { nn::GRUCell m(1, int64_t{1} << 62); }), Contains("GRU: gates * hidden_size"));
}

TEST_CASE("recurrent layers: what lies in the padding reaches nothing", "[recurrent]") {
  manual_seed(7);
  const Tensor lengths = tensor(std::vector<int64_t>{3, 4});
  for (const std::string& kind : kKinds)
    for (const bool both : {false, true}) {
      INFO(kind << (both ? " both directions" : ""));
      const Layers l = layers(kind, 2, 3, {.num_layers = 2, .bidirectional = both});
      const Tensor clean = randn({4, 2, 2}, kDouble);
      const Tensor dirty = clean.clone();
      dirty[3][0].fill_(std::nan(""));
      TensorList grads[2];
      Tensor outputs[2];
      for (const size_t i : {0, 1}) {
        const Tensor x = (i == 0 ? clean : dirty).clone().requires_grad_();
        const Outcome r = l(x, {}, {}, lengths);
        outputs[i] = r.output;
        TensorList leaves = l.module->parameters();
        leaves.push_back(x);
        grads[i] = autograd::grad(std::vector{r.output.sum() + r.h.sum()}, leaves);
      }
      CHECK(distance(outputs[0], outputs[1]) == 0);
      for (size_t i = 0; i < grads[0].size(); ++i) CHECK(values(grads[0][i]) == values(grads[1][i]));
    }
}

TEST_CASE("recurrent layers: types and limits of lengths", "[recurrent]") {
  manual_seed(8);
  nn::GRU m(2, 3);
  const Tensor x = randn({4, 2, 2}), h = randn({1, 2, 3});
  const auto run = [&](const std::vector<int64_t>& lengths, DType type = int64) {
    return m(x, h, tensor(lengths).to(type));
  };
  for (const DType type : {bool_, uint8, float32})
    CHECK_THAT(message([&] {
                 run({1, 1}, type);
               }),
               Contains("lengths must be integers of shape (2,), int64 or int32") &&
                   Contains(std::string("of type ") + tandem::name(type)));
  CHECK(distance(run({2, 3}, int32).first, run({2, 3}).first) == 0);
  const auto limited = run({0, 4}), beyond = run({-5, 9});  // clamped
  CHECK(distance(limited.first, beyond.first) == 0);
  CHECK(distance(limited.second, beyond.second) == 0);
  CHECK(distance(limited.second[0][0], h[0][0]) == 0);  // no step
}

TEST_CASE("recurrent layers: lengths change no type under autocast", "[recurrent]") {
  manual_seed(9);
  const Tensor x = randn({3, 2, 2}), h = randn({1, 2, 4}), lengths = tensor(std::vector<int64_t>{1, 3});
  nn::LSTM lstm(2, 4);
  nn::GRU gru(2, 4);
  nn::RNN rnn(2, 4);
  const autocast half(bfloat16);
  for (const Tensor& first : {Tensor(), h}) {
    const auto plain = lstm(x, {first, first}), padded = lstm(x, {first, first}, lengths);
    CHECK(plain.second.h.dtype() == bfloat16);
    CHECK(padded.first.dtype() == plain.first.dtype());
    CHECK(padded.second.h.dtype() == plain.second.h.dtype());
    CHECK(padded.second.c.dtype() == plain.second.c.dtype());
    CHECK(gru(x, first, lengths).second.dtype() == gru(x, first).second.dtype());
    CHECK(rnn(x, first, lengths).second.dtype() == rnn(x, first).second.dtype());
  }
}

TEST_CASE("recurrent layers: mistakes without a batch are told in the shapes given", "[recurrent]") {
  nn::LSTM m(2, 3);
  const Tensor x = randn({4, 2});
  CHECK_THAT(message([&] {
               m(x, {zeros({1, 1, 3}), {}});
             }),
             Contains("LSTM: the initial state must have shape (1, 3), found (1, 1, 3)"));
  CHECK_THAT(message([&] {
               m(x, {zeros({1, 3}), zeros({3})});
             }),
             Contains("LSTM: the initial cell must have shape (1, 3), found (3,)"));
  CHECK_THAT(message([&] {
               m(randn({4, 5}));
             }),
             Contains("LSTM: input (T, 2), not empty, is needed, found (4, 5)"));
}
