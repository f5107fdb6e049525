// GNMT v2: translation by two stacks of LSTMs with normalised additive attention ("Google's Neural Machine
// Translation System", Wu et al., 2016; attention of Bahdanau et al., 2015, normalised as in Salimans and
// Kingma, 2016). The encoder's first layer runs both ways; from the third layer on each adds its input; the
// decoder's first layer asks the attention, whose answer joins the input of all later ones. Source and target
// share one embedding. Sequences are padded: lengths mask the source, padding targets the loss. Parameter
// names are PyTorch's of the layers. Ownership and threads as in eager/nn/module.h.
#pragma once

#include <tandem/tandem.h>

namespace samples {

struct GnmtConfig {
  int64_t vocab_size = 32320, hidden_size = 1024, num_layers = 4;  // in the encoder, and in the decoder
  double dropout = 0.2;                                            // of the input of each LSTM
  double label_smoothing = 0.1;
  int64_t padding = 0;  // the token that pads; its embedding is zero and stays so
};

/// v . tanh(linear_q(q) + linear_k(k) + bias) with v = normalize_scalar * linear_att / |linear_att|, softmax
/// over the keys that are there, and the mean of the keys by it.
struct BahdanauAttention : tandem::nn::Module {
  explicit BahdanauAttention(int64_t hidden_size);
  /// Queries (B, Tq, H), keys (B, Tk, H), mask (B, 1, Tk), true where a key is padding -> (B, Tq, H). A row
  /// that is padding alone is the mean of all its keys.
  tandem::Tensor forward(const tandem::Tensor& queries, const tandem::Tensor& keys,
                         const tandem::Tensor& mask) const;

  tandem::nn::Linear linear_q, linear_k;
  const tandem::Tensor linear_att, normalize_scalar, normalize_bias;  // (H), (), (H)
};

struct GnmtEncoder : tandem::nn::Module {
  explicit GnmtEncoder(const GnmtConfig& config);
  /// Embedded words (T, B, H) and lengths (B) -> states (T, B, H). What lies beyond a length is no state.
  tandem::Tensor forward(const tandem::Tensor& x, const tandem::Tensor& lengths) const;

  tandem::nn::Dropout dropout;
  tandem::nn::ModuleList<tandem::nn::LSTM> rnn_layers;  // the first one runs both ways
};

struct GnmtDecoder : tandem::nn::Module {
  explicit GnmtDecoder(const GnmtConfig& config);
  /// Embedded words (T, B, H), keys (B, Tk, H) and their mask (B, 1, Tk) -> logits (T, B, vocab_size).
  tandem::Tensor forward(const tandem::Tensor& x, const tandem::Tensor& keys,
                         const tandem::Tensor& mask) const;

  tandem::nn::Dropout dropout;
  tandem::nn::LSTM att_rnn;
  BahdanauAttention attention;
  tandem::nn::ModuleList<tandem::nn::LSTM> rnn_layers;  // all but the first
  tandem::nn::Linear classifier;
};

/// A batch of sentence pairs: tokens int64, lengths int64 or int32.
struct GnmtBatch {
  tandem::Tensor source;   // (B, S)
  tandem::Tensor lengths;  // (B), words of each source, 1 to S; not read on the host
  tandem::Tensor input;    // (B, T): the target behind its first mark
  tandem::Tensor target;   // (B, T): what is to follow each word of the input, else padding
};

struct Gnmt : tandem::nn::Module {
  /// Weights and embedding are drawn uniformly within 0.1, the attention's vector within 1 / sqrt(H). An
  /// Error for fewer than two layers and sizes below 1.
  explicit Gnmt(const GnmtConfig& config = {}, tandem::Location where = tandem::Location::here());

  /// Logits (B, T, vocab_size) of the words that follow each of `input`.
  tandem::Tensor forward(const tandem::Tensor& source, const tandem::Tensor& lengths,
                         const tandem::Tensor& input) const;
  /// Mean over the targets that are no padding of the cross-entropy with smoothed labels, a scalar.
  tandem::Tensor loss(const GnmtBatch& batch) const;

  const GnmtConfig config;
  tandem::nn::Embedding embedder;
  GnmtEncoder encoder;
  GnmtDecoder decoder;

 private:
  tandem::Tensor logits_by_step(const tandem::Tensor& source, const tandem::Tensor& lengths,
                                const tandem::Tensor& input) const;  // (T, B, vocab_size)
};

}  // namespace samples
