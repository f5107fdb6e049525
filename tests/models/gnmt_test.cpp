// GNMT: its parameters, and that padding is not seen, wherever it stands.
#include "samples/models/gnmt.h"

#include <cmath>
#include <utility>

#include "samples/models/sequence_workloads.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using tandem::test::message;
using td::Tensor;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

double largest_difference(const Tensor& a, const Tensor& b) { return (a - b).abs().amax().item<double>(); }

/// Parameters of a net of `l` layers, `h` wide, with `v` words.
int64_t parameters_of(int64_t v, int64_t h, int64_t l) {
  const auto lstm = [&](int64_t input) { return 4 * h * (input + h) + 8 * h; };
  const int64_t encoder = 2 * lstm(h) + lstm(2 * h) + (l - 2) * lstm(h);
  const int64_t decoder = lstm(h) + (l - 1) * lstm(2 * h) + v * h + v;
  const int64_t attention = 2 * h * h + 2 * h + 1;
  return v * h + encoder + decoder + attention;
}

const samples::GnmtConfig kSmall = {.vocab_size = 23, .hidden_size = 8, .num_layers = 3, .dropout = 0};

/// Three sentences of 5, 2 and 4 words to 4, 4 and 1.
samples::GnmtBatch small_batch() {
  const std::vector<int64_t> source = {4, 5, 6, 7, 8, 9, 10, 0, 0, 0, 11, 12, 13, 14, 0};
  const std::vector<int64_t> input = {2, 15, 16, 17, 2, 18, 19, 20, 2, 0, 0, 0};
  const std::vector<int64_t> target = {15, 16, 17, 3, 18, 19, 20, 3, 3, 0, 0, 0};
  return {td::tensor(source).reshape({3, 5}), td::tensor(std::vector<int64_t>{5, 2, 4}),
          td::tensor(input).reshape({3, 4}), td::tensor(target).reshape({3, 4})};
}

}  // namespace

TEST_CASE("GNMT has the parameters of the model") {
  CHECK(samples::Gnmt(kSmall).num_parameters() == parameters_of(23, 8, 3));
  const samples::Gnmt net({.vocab_size = 10, .hidden_size = 6, .num_layers = 5});
  CHECK(net.num_parameters() == parameters_of(10, 6, 5));
  CHECK(parameters_of(32320, 1024, 4) == 160'671'297);
  const auto parameters = net.named_parameters();
  CHECK(parameters.front().name == "embedder.weight");
  CHECK(parameters[1].name == "encoder.rnn_layers.0.weight_ih_l0");
  CHECK(parameters[5].name == "encoder.rnn_layers.0.weight_ih_l0_reverse");
  CHECK(parameters.back().name == "decoder.classifier.bias");
  CHECK_THAT(message([] { samples::Gnmt net({.num_layers = 1}); }),
             Catch::Contains("at least two layers are needed, found 1"));
  CHECK_THAT(message([] { samples::Gnmt net({.hidden_size = 0}); }), Catch::Contains("found 32320 and 0"));
  const samples::GnmtBatch b = small_batch();
  CHECK_THAT(message([&] { net.forward(b.source.select(0, 0), b.lengths, b.input); }),
             Catch::Contains("tokens (B, T) are needed, found shape (5,)"));
}

TEST_CASE("GNMT does not see padding of the source") {
  td::manual_seed(1);
  const samples::Gnmt net(kSmall);
  const samples::GnmtBatch b = small_batch();
  const Tensor expected = net.forward(b.source, b.lengths, b.input).detach();
  CHECK(expected.sizes() == td::Dims{3, 4, 23});
  // Other words there, of which nothing depends: the same bits.
  const Tensor other = td::where(b.source == 0, 21, b.source);
  CHECK(values(net.forward(other, b.lengths, b.input)) == values(expected));
  CHECK(values(net.forward(b.source, b.lengths.to(td::int32), b.input)) == values(expected));
  // Each sentence alone, without padding.
  for (int64_t i = 0; i < 3; ++i) {
    const int64_t n = b.lengths.select(0, i).item<int64_t>();
    const Tensor alone = net.forward(b.source.narrow(0, i, 1).narrow(1, 0, n),
                                     td::tensor(std::vector<int64_t>{n}), b.input.narrow(0, i, 1));
    CHECK(largest_difference(alone, expected.narrow(0, i, 1)) < 1e-6);
  }
  // And the words are seen.
  const Tensor longer = td::tensor(std::vector<int64_t>{5, 3, 4});
  const Tensor seen = net.forward(other, longer, b.input).detach();
  CHECK(values(seen.select(0, 0)) == values(expected.select(0, 0)));
  CHECK(largest_difference(seen.select(0, 1), expected.select(0, 1)) > 1e-6);
  // A sentence of nothing gives numbers.
  const Tensor none = td::tensor(std::vector<int64_t>{5, 0, 4});
  CHECK(td::isfinite(net.forward(b.source, none, b.input)).all().item<bool>());
}

TEST_CASE("GNMT's loss is that of the words alone") {
  td::manual_seed(2);
  samples::Gnmt net(kSmall);
  samples::GnmtBatch b = small_batch();
  net.loss(b).backward();
  const double expected = net.loss(b).item<double>();
  // By hand: 0.9 of the word's own, 0.1 of the mean over all.
  const Tensor logp = td::log_softmax(net.forward(b.source, b.lengths, b.input).detach(), 2);
  const auto p = values(logp);
  const auto target = b.target.to_vector<int64_t>();
  double sum = 0;
  int words = 0;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] == 0) continue;
    double mean = 0;
    for (size_t w = 0; w < 23; ++w) mean += p[i * 23 + w] / 23;
    sum -= 0.9 * p[i * 23 + static_cast<size_t>(target[i])] + 0.1 * mean;
    ++words;
  }
  CHECK(words == 9);
  CHECK(expected == Approx(sum / words));
  // Padding has no embedding to learn, and begins as zero.
  const Tensor padding = net.embedder.weight.detach().select(0, 0);
  CHECK(values(padding) == std::vector<double>(8, 0.0));
  CHECK(values(net.embedder.weight.grad().select(0, 0)) == std::vector<double>(8, 0.0));
  CHECK(net.embedder.weight.grad().select(0, 14).abs().sum().item<double>() > 0);
  // What goes into the decoder behind a sentence's end changes nothing.
  b.input = td::where(b.input == 0, 22, b.input);
  CHECK(net.loss(b).item<double>() == expected);
}

TEST_CASE("Random sentences are padded behind their lengths") {
  td::manual_seed(3);
  const samples::GnmtBatch b = samples::random_sentences(kSmall, 6, 9);
  const auto source = b.source.to_vector<int64_t>(), input = b.input.to_vector<int64_t>(),
             target = b.target.to_vector<int64_t>(), lengths = b.lengths.to_vector<int64_t>();
  CHECK(lengths[0] == 9);
  for (size_t i = 0; i < 6; ++i) {
    size_t end = 0;
    while (target[i * 9 + end] != 3) ++end;
    CHECK(input[i * 9] == 2);
    for (size_t t = 0; t < 9; ++t) {
      CHECK((source[i * 9 + t] == 0) == (static_cast<int64_t>(t) >= lengths[i]));
      CHECK((input[i * 9 + t] == 0) == (t > end));
      CHECK((target[i * 9 + t] == 0) == (t > end));
      if (t < end) CHECK(target[i * 9 + t] == input[i * 9 + t + 1]);
      CHECK(target[i * 9 + t] < 23);
    }
  }
}
