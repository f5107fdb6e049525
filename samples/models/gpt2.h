// GPT-2 ("Language Models are Unsupervised Multitask Learners", Radford et al., 2019) under Hugging Face's
// parameter names: "transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", ... Its head is the token
// embedding, one tensor under one name. Layers are nn::Linear, weights (out, in); Hugging Face's files hold
// the blocks' weights (in, out), which load_hugging_face and save_hugging_face turn. Ownership and threads as
// in eager/nn/module.h.
#pragma once

#include <tandem/tandem.h>

#include <string>
#include <vector>

namespace samples {

/// Hugging Face's names; embd_pdrop, resid_pdrop and attn_pdrop are dropout's probabilities after the
/// embeddings, before each sum and of the attention's weights.
struct Gpt2Config {
  int64_t n_layer = 12, n_head = 12, n_embd = 768, n_positions = 1024, vocab_size = 50257;
  double embd_pdrop = 0.1, resid_pdrop = 0.1, attn_pdrop = 0.1, layer_norm_epsilon = 1e-5;

  /// "tiny" (4 layers of 128, 4 heads, 256 positions, bytes), "124M", "355M", "774M" or "1558M"; an Error for
  /// other names.
  static Gpt2Config preset(const std::string& name, tandem::Location where = tandem::Location::here());
};

/// What one attention keeps of the tokens that it has read: (B, n_head, room, n_embd / n_head).
struct Gpt2Kept {
  tandem::Tensor keys, values;
};

/// Where tokens that follow others are put, and what they see.
struct Gpt2Next {
  tandem::Tensor positions;  // (T) int64
  tandem::Tensor seen;       // (T, room) bool
};

struct Gpt2Attention : tandem::nn::Module {
  explicit Gpt2Attention(const Gpt2Config& config);
  tandem::Tensor forward(const tandem::Tensor& x) const;  // (B, T, n_embd), position i sees 0 to i
  /// The same of what is at the positions of `next`, whose keys and values `kept` takes.
  tandem::Tensor forward(const tandem::Tensor& x, const Gpt2Next& next, const Gpt2Kept& kept) const;

  const Gpt2Config config;
  tandem::nn::Linear c_attn, c_proj;  // c_attn: queries, keys, values side by side
  tandem::nn::Dropout resid_dropout;

 private:
  std::vector<tandem::Tensor> heads(const tandem::Tensor& x) const;  // queries, keys, values by heads
  tandem::Tensor joined(const tandem::Tensor& y) const;
};

struct Gpt2Mlp : tandem::nn::Module {
  explicit Gpt2Mlp(const Gpt2Config& config);
  tandem::Tensor forward(const tandem::Tensor& x) const;

  tandem::nn::Linear c_fc, c_proj;
  tandem::nn::Dropout dropout;
};

/// x + attn(ln_1(x)), then x + mlp(ln_2(x)).
struct Gpt2Block : tandem::nn::Module {
  explicit Gpt2Block(const Gpt2Config& config);
  tandem::Tensor forward(const tandem::Tensor& x) const;
  tandem::Tensor forward(const tandem::Tensor& x, const Gpt2Next& next, const Gpt2Kept& kept) const;

  tandem::nn::LayerNorm ln_1;
  Gpt2Attention attn;
  tandem::nn::LayerNorm ln_2;
  Gpt2Mlp mlp;
};

/// Everything below the head.
struct Gpt2Transformer : tandem::nn::Module {
  explicit Gpt2Transformer(const Gpt2Config& config);
  tandem::Tensor forward(const tandem::Tensor& ids) const;  // (B, T) -> (B, T, n_embd)
  /// Of tokens at `positions`, (T) int64, which see what `kept` (one a layer) holds of those before them, and
  /// are kept, too.
  tandem::Tensor forward(const tandem::Tensor& ids, const tandem::Tensor& positions,
                         const std::vector<Gpt2Kept>& kept) const;

  tandem::nn::Embedding wte, wpe;
  tandem::nn::Dropout drop;
  tandem::nn::ModuleList<Gpt2Block> h;
  tandem::nn::LayerNorm ln_f;
};

struct Gpt2 : tandem::nn::Module {
  /// Weights are drawn normally with deviation 0.02, those of the c_proj, which are added to the stream, 0.02
  /// / sqrt(2 n_layer); biases are 0. An Error for sizes below 1 and for heads that do not divide n_embd.
  explicit Gpt2(const Gpt2Config& config, tandem::Location where = tandem::Location::here());

  /// Tokens (B, T) int64, T at most n_positions -> logits (B, T, vocab_size) of the tokens that follow.
  tandem::Tensor forward(const tandem::Tensor& ids) const;
  tandem::Tensor operator()(const tandem::Tensor& ids) const { return forward(ids); }
  /// Mean cross-entropy, a scalar in nats a token, of `targets` (B, T), which follow `ids`: the text from one
  /// token later on. Targets of -100 count nothing.
  tandem::Tensor loss(const tandem::Tensor& ids, const tandem::Tensor& targets) const;

  /// Takes the weights of a model.safetensors file of GPT2LMHeadModel or GPT2Model: with "transformer."
  /// before each name or without it. Masks ("attn.bias", "attn.masked_bias") are passed over, and so is an
  /// "lm_head.weight" that equals the token embedding. Errors, naming the file and changing nothing: another
  /// lm_head.weight; names that are missing or unexpected, other shapes or types.
  void load_hugging_face(const std::string& path, tandem::Location where = tandem::Location::here());
  /// Writes such a file, with the prefix and without the head.
  void save_hugging_face(const std::string& path, tandem::Location where = tandem::Location::here()) const;

  const Gpt2Config config;
  Gpt2Transformer transformer;
};

/// ids (B, T) with `n` more tokens each, (B, T + n): each drawn from softmax(logits / temperature) over the
/// top_k most likely ones (0: all), or the likeliest at temperature 0, where top_k means nothing. What lies
/// further back than n_positions is not seen. Keys and values are kept, so that a token is read once, in a
/// traced call, until there are more than n_positions; then all are read for each. Without dropout, whatever
/// the mode, which stays. Draws from `generator`, else from the default one. Errors: a negative n,
/// temperature or top_k; ids without a token.
tandem::Tensor generate(Gpt2& net, const tandem::Tensor& ids, int64_t n, double temperature = 1,
                        int64_t top_k = 0, tandem::Generator* generator = nullptr,
                        tandem::Location where = tandem::Location::here());

}  // namespace samples
