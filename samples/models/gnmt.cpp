// The states run by step, (T, B, H), as the layers' loops do, so that nothing is transposed but the tokens
// and, for the attention, keys and queries.
#include "samples/models/gnmt.h"

#include <cmath>

namespace samples {
namespace td = tandem;
namespace nn = tandem::nn;
using td::Tensor;

namespace {

/// Below every score, and finite in all floating types.
constexpr double kUnseen = -65504;

const GnmtConfig& checked(const GnmtConfig& c, td::Location where) {
  if (c.vocab_size < 1 || c.hidden_size < 1)
    td::fail("Gnmt: vocab_size and hidden_size must be at least 1, found " + std::to_string(c.vocab_size) +
                 " and " + std::to_string(c.hidden_size),
             where);
  if (c.num_layers < 2)
    td::fail("Gnmt: at least two layers are needed, found " + std::to_string(c.num_layers), where);
  return c;
}

/// The states of all steps, from a state of zeros.
Tensor through(const nn::LSTM& layer, const Tensor& x, const Tensor& lengths = {}) {
  return layer(x, {}, lengths).first;
}

}  // namespace

BahdanauAttention::BahdanauAttention(int64_t hidden_size)
    : linear_q(child<nn::Linear>("linear_q", hidden_size, hidden_size, false)),
      linear_k(child<nn::Linear>("linear_k", hidden_size, hidden_size, false)),
      linear_att(parameter("linear_att", td::empty({hidden_size}))),
      normalize_scalar(
          parameter("normalize_scalar", td::full({}, 1 / std::sqrt(static_cast<double>(hidden_size))))),
      normalize_bias(parameter("normalize_bias", td::zeros({hidden_size}))) {
  const double bound = 1 / std::sqrt(static_cast<double>(hidden_size));
  nn::init::uniform_(linear_att, -bound, bound);
}

Tensor BahdanauAttention::forward(const Tensor& queries, const Tensor& keys, const Tensor& mask) const {
  const Tensor q = linear_q(queries).unsqueeze(2), k = linear_k(keys).unsqueeze(1);
  const Tensor direction = linear_att / linear_att.norm();
  const Tensor v = direction * normalize_scalar;
  // Traced this is one kernel, and of (B, Tq, Tk, H) nothing is stored that caches could not hold: gradients
  // compute the tanh again.
  const Tensor scores = (td::tanh(q + k + normalize_bias) * v).sum({3});
  const Tensor weights = td::softmax(scores.masked_fill(mask, kUnseen), 2);
  return td::matmul(weights, keys);
}

GnmtEncoder::GnmtEncoder(const GnmtConfig& c)
    : dropout(child<nn::Dropout>("dropout", c.dropout)),
      rnn_layers(child<nn::ModuleList<nn::LSTM>>("rnn_layers")) {
  const int64_t h = c.hidden_size;
  rnn_layers.emplace(h, h, nn::RecurrentOptions{.bidirectional = true});
  rnn_layers.emplace(2 * h, h);
  for (int64_t i = 2; i < c.num_layers; ++i) rnn_layers.emplace(h, h);
}

Tensor GnmtEncoder::forward(const Tensor& x, const Tensor& lengths) const {
  // A layer that runs forwards meets padding after the words, where nothing looks any more.
  Tensor y = through(rnn_layers[0], dropout(x), lengths);
  y = through(rnn_layers[1], dropout(y));
  for (size_t i = 2; i < rnn_layers.size(); ++i) y = y + through(rnn_layers[i], dropout(y));
  return y;
}

GnmtDecoder::GnmtDecoder(const GnmtConfig& c)
    : dropout(child<nn::Dropout>("dropout", c.dropout)),
      att_rnn(child<nn::LSTM>("att_rnn", c.hidden_size, c.hidden_size)),
      attention(child<BahdanauAttention>("attention", c.hidden_size)),
      rnn_layers(child<nn::ModuleList<nn::LSTM>>("rnn_layers")),
      classifier(child<nn::Linear>("classifier", c.hidden_size, c.vocab_size)) {
  for (int64_t i = 1; i < c.num_layers; ++i) rnn_layers.emplace(2 * c.hidden_size, c.hidden_size);
}

Tensor GnmtDecoder::forward(const Tensor& x, const Tensor& keys, const Tensor& mask) const {
  Tensor y = through(att_rnn, dropout(x));
  const Tensor context = attention.forward(y.transpose(0, 1), keys, mask).transpose(0, 1);
  y = through(rnn_layers[0], dropout(td::cat({y, context}, 2)));
  for (size_t i = 1; i < rnn_layers.size(); ++i)
    y = y + through(rnn_layers[i], dropout(td::cat({y, context}, 2)));
  return classifier(y);
}

Gnmt::Gnmt(const GnmtConfig& c, td::Location where)
    : config(checked(c, where)),
      embedder(child<nn::Embedding>("embedder", c.vocab_size, c.hidden_size, c.padding)),
      encoder(child<GnmtEncoder>("encoder", c)),
      decoder(child<GnmtDecoder>("decoder", c)) {
  for (const td::NamedTensor& p : named_parameters())
    if (!p.name.starts_with("decoder.attention.") || p.tensor.dim() == 2)
      nn::init::uniform_(p.tensor, -0.1, 0.1);
  nn::init::zeros_(embedder.weight.select(0, c.padding));
}

Tensor Gnmt::logits_by_step(const Tensor& source, const Tensor& lengths, const Tensor& input) const {
  for (const Tensor& t : {source, input})
    if (t.dim() != 2) td::fail("Gnmt: tokens (B, T) are needed, found shape " + td::to_string(t.sizes()));
  const Tensor keys = encoder.forward(embedder(source.t()), lengths).transpose(0, 1);
  const Tensor at =
      td::arange(0, static_cast<double>(source.size(1)), 1, {.dtype = td::int64, .device = source.device()});
  const Tensor mask = (at >= lengths.unsqueeze(1)).unsqueeze(1);
  return decoder.forward(embedder(input.t()), keys, mask);
}

Tensor Gnmt::forward(const Tensor& source, const Tensor& lengths, const Tensor& input) const {
  return logits_by_step(source, lengths, input).transpose(0, 1);
}

Tensor Gnmt::loss(const GnmtBatch& b) const {
  const Tensor logits = logits_by_step(b.source, b.lengths, b.input);
  return td::cross_entropy(logits.flatten(0, 1), b.target.t().reshape({-1}),
                           {.ignore_index = config.padding, .label_smoothing = config.label_smoothing});
}

}  // namespace samples
