// The transformer ("Attention Is All You Need", Vaswani et al., 2017) and its parts, with PyTorch's parameter
// names, initialisation and meaning of masks (attention.h). Ownership and threads as in module.h.
//
// Sequences are (S, N, d_model), or (N, S, d_model) with batch_first, or without N.
#pragma once

#include <functional>
#include <memory>

#include "tandem/eager/nn/attention.h"
#include "tandem/eager/nn/containers.h"

namespace tandem::nn {

struct TransformerLayerOptions {
  int64_t dim_feedforward = 2048;
  double dropout = 0.1;
  std::function<Tensor(const Tensor&)> activation = {};  // relu unless given
  double layer_norm_eps = 1e-5;
  bool batch_first = false, norm_first = false, bias = true;
};

/// What is not seen, as AttentionMasks says: by the source of itself, by the target of itself, and by the
/// target of the memory, which is what the encoder makes of the source.
struct TransformerMasks {
  Tensor src_mask = {}, tgt_mask = {}, memory_mask = {};
  Tensor src_key_padding_mask = {}, tgt_key_padding_mask = {}, memory_key_padding_mask = {};
  bool src_is_causal = false, tgt_is_causal = false, memory_is_causal = false;
};

/// What the layers share: a network of two layers behind the attentions. Each of these is added to its input
/// and normalised after the sum, or with norm_first its input.
class TransformerLayer : public Module {
 public:
  const TransformerLayerOptions options;

 protected:
  explicit TransformerLayer(TransformerLayerOptions options) : options(std::move(options)) {}
  MultiheadAttention attention(const char* name, int64_t d_model, int64_t nhead, const TensorOptions& tensors,
                               Location where);
  Linear linear(const char* name, int64_t from, int64_t to, const TensorOptions& tensors, Location where);
  LayerNorm norm(const char* name, int64_t d_model, const TensorOptions& tensors, Location where);
  Dropout drop(const char* name, Location where);
  Tensor feed(const Tensor& x, const Linear& first, const Dropout& between, const Linear& second,
              Location where) const;
  /// x and what `part` makes of it.
  template <class Part>
  Tensor with(const Tensor& x, const LayerNorm& norm, Location where, Part&& part) const {
    if (options.norm_first) return x.add(Operand(part(norm(x, where)), where));
    return norm(x.add(Operand(part(x), where)), where);
  }
};

/// Self-attention and the network.
class TransformerEncoderLayer : public TransformerLayer {
 public:
  TransformerEncoderLayer(int64_t d_model, int64_t nhead, TransformerLayerOptions options = {},
                          TensorOptions tensors = {}, Location where = Location::here());
  Tensor forward(const Tensor& src, const Tensor& src_mask = {}, const Tensor& src_key_padding_mask = {},
                 bool is_causal = false, Location where = Location::here()) const;
  Tensor operator()(const Tensor& src, const Tensor& src_mask = {}, const Tensor& src_key_padding_mask = {},
                    bool is_causal = false, Location where = Location::here()) const {
    return forward(src, src_mask, src_key_padding_mask, is_causal, where);
  }

  MultiheadAttention self_attn;
  Linear linear1;
  Dropout dropout;
  Linear linear2;
  LayerNorm norm1, norm2;
  Dropout dropout1, dropout2;
};

/// Self-attention, attention to the memory, and the network.
class TransformerDecoderLayer : public TransformerLayer {
 public:
  TransformerDecoderLayer(int64_t d_model, int64_t nhead, TransformerLayerOptions options = {},
                          TensorOptions tensors = {}, Location where = Location::here());
  Tensor forward(const Tensor& tgt, const Tensor& memory, const TransformerMasks& masks = {},
                 Location where = Location::here()) const;
  Tensor operator()(const Tensor& tgt, const Tensor& memory, const TransformerMasks& masks = {},
                    Location where = Location::here()) const {
    return forward(tgt, memory, masks, where);
  }

  MultiheadAttention self_attn, multihead_attn;
  Linear linear1;
  Dropout dropout;
  Linear linear2;
  LayerNorm norm1, norm2, norm3;
  Dropout dropout1, dropout2, dropout3;
};

/// Layers one after another, each drawn by itself, and a LayerNorm behind them if asked for.
template <class Layer>
class TransformerStack : public Module {
 public:
  TransformerStack(int64_t d_model, int64_t nhead, int64_t num_layers,
                   const TransformerLayerOptions& options = {}, bool with_norm = false,
                   TensorOptions tensors = {}, Location where = Location::here());

  ModuleList<Layer> layers;
  const std::unique_ptr<LayerNorm> norm;  // null: none
};

class TransformerEncoder : public TransformerStack<TransformerEncoderLayer> {
 public:
  using TransformerStack::TransformerStack;
  Tensor forward(const Tensor& src, const Tensor& mask = {}, const Tensor& src_key_padding_mask = {},
                 bool is_causal = false, Location where = Location::here()) const;
  Tensor operator()(const Tensor& src, const Tensor& mask = {}, const Tensor& src_key_padding_mask = {},
                    bool is_causal = false, Location where = Location::here()) const {
    return forward(src, mask, src_key_padding_mask, is_causal, where);
  }
};

class TransformerDecoder : public TransformerStack<TransformerDecoderLayer> {
 public:
  using TransformerStack::TransformerStack;
  Tensor forward(const Tensor& tgt, const Tensor& memory, const TransformerMasks& masks = {},
                 Location where = Location::here()) const;
  Tensor operator()(const Tensor& tgt, const Tensor& memory, const TransformerMasks& masks = {},
                    Location where = Location::here()) const {
    return forward(tgt, memory, masks, where);
  }
};

/// Both, each with a LayerNorm behind it; matrices are drawn by xavier_uniform_.
class Transformer : public Module {
 public:
  explicit Transformer(int64_t d_model = 512, int64_t nhead = 8, int64_t num_encoder_layers = 6,
                       int64_t num_decoder_layers = 6, const TransformerLayerOptions& options = {},
                       TensorOptions tensors = {}, Location where = Location::here());
  /// As tgt.
  Tensor forward(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks = {},
                 Location where = Location::here()) const;
  Tensor operator()(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks = {},
                    Location where = Location::here()) const {
    return forward(src, tgt, masks, where);
  }
  /// (size, size): -infinity above the diagonal, else 0.
  static Tensor generate_square_subsequent_mask(int64_t size, TensorOptions options = {},
                                                Location where = Location::here());

  TransformerEncoder encoder;
  TransformerDecoder decoder;
};

}  // namespace tandem::nn
