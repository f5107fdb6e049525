#include "tandem/eager/nn/transformer.h"

#include <limits>
#include <utility>

#include "tandem/eager/nn/init.h"

namespace tandem::nn {

MultiheadAttention TransformerLayer::attention(const char* name, int64_t d_model, int64_t nhead,
                                               const TensorOptions& tensors, Location where) {
  return child<MultiheadAttention>(
      Name(name, made_at(where)), d_model, nhead,
      MultiheadAttentionOptions{
          .dropout = options.dropout, .bias = options.bias, .batch_first = options.batch_first},
      tensors);
}
Linear TransformerLayer::linear(const char* name, int64_t from, int64_t to, const TensorOptions& tensors,
                                Location where) {
  return child<Linear>(Name(name, made_at(where)), from, to, options.bias, tensors);
}
LayerNorm TransformerLayer::norm(const char* name, int64_t d_model, const TensorOptions& tensors,
                                 Location where) {
  return child<LayerNorm>(Name(name, made_at(where)), Dims{d_model}, options.layer_norm_eps, true,
                          options.bias, tensors);
}
Dropout TransformerLayer::drop(const char* name, Location where) {
  return child<Dropout>(Name(name, made_at(where)), options.dropout);
}
Tensor TransformerLayer::feed(const Tensor& x, const Linear& first, const Dropout& between,
                              const Linear& second, Location where) const {
  const Tensor h = first(x, where);
  const Tensor a = options.activation ? options.activation(h) : relu(h, where);
  return second(between(a, where), where);
}

TransformerEncoderLayer::TransformerEncoderLayer(int64_t d_model, int64_t nhead, TransformerLayerOptions o,
                                                 TensorOptions tensors, Location where)
    : TransformerLayer(std::move(o)),
      self_attn(attention("self_attn", d_model, nhead, tensors, where)),
      linear1(linear("linear1", d_model, options.dim_feedforward, tensors, where)),
      dropout(drop("dropout", where)),
      linear2(linear("linear2", options.dim_feedforward, d_model, tensors, where)),
      norm1(norm("norm1", d_model, tensors, where)),
      norm2(norm("norm2", d_model, tensors, where)),
      dropout1(drop("dropout1", where)),
      dropout2(drop("dropout2", where)) {}

Tensor TransformerEncoderLayer::forward(const Tensor& src, const Tensor& src_mask,
                                        const Tensor& src_key_padding_mask, bool is_causal,
                                        Location where) const {
  const AttentionMasks masks{.key_padding_mask = src_key_padding_mask,
                             .need_weights = false,
                             .attn_mask = src_mask,
                             .is_causal = is_causal};
  const Tensor x = with(src, norm1, where, [&](const Tensor& in) {
    return dropout1(self_attn(in, in, in, masks, where).output, where);
  });
  return with(x, norm2, where,
              [&](const Tensor& in) { return dropout2(feed(in, linear1, dropout, linear2, where), where); });
}

TransformerDecoderLayer::TransformerDecoderLayer(int64_t d_model, int64_t nhead, TransformerLayerOptions o,
                                                 TensorOptions tensors, Location where)
    : TransformerLayer(std::move(o)),
      self_attn(attention("self_attn", d_model, nhead, tensors, where)),
      multihead_attn(attention("multihead_attn", d_model, nhead, tensors, where)),
      linear1(linear("linear1", d_model, options.dim_feedforward, tensors, where)),
      dropout(drop("dropout", where)),
      linear2(linear("linear2", options.dim_feedforward, d_model, tensors, where)),
      norm1(norm("norm1", d_model, tensors, where)),
      norm2(norm("norm2", d_model, tensors, where)),
      norm3(norm("norm3", d_model, tensors, where)),
      dropout1(drop("dropout1", where)),
      dropout2(drop("dropout2", where)),
      dropout3(drop("dropout3", where)) {}

Tensor TransformerDecoderLayer::forward(const Tensor& tgt, const Tensor& memory,
                                        const TransformerMasks& masks, Location where) const {
  const AttentionMasks own{.key_padding_mask = masks.tgt_key_padding_mask,
                           .need_weights = false,
                           .attn_mask = masks.tgt_mask,
                           .is_causal = masks.tgt_is_causal};
  const AttentionMasks of_memory{.key_padding_mask = masks.memory_key_padding_mask,
                                 .need_weights = false,
                                 .attn_mask = masks.memory_mask,
                                 .is_causal = masks.memory_is_causal};
  const Tensor x = with(tgt, norm1, where, [&](const Tensor& in) {
    return dropout1(self_attn(in, in, in, own, where).output, where);
  });
  const Tensor y = with(x, norm2, where, [&](const Tensor& in) {
    return dropout2(multihead_attn(in, memory, memory, of_memory, where).output, where);
  });
  return with(y, norm3, where,
              [&](const Tensor& in) { return dropout3(feed(in, linear1, dropout, linear2, where), where); });
}

template <class Layer>
TransformerStack<Layer>::TransformerStack(int64_t d_model, int64_t nhead, int64_t num_layers,
                                          const TransformerLayerOptions& options, bool with_norm,
                                          TensorOptions tensors, Location where)
    : layers(child<ModuleList<Layer>>(Name("layers", made_at(where)))),
      norm(with_norm ? new LayerNorm(child<LayerNorm>(Name("norm", made_at(where)), Dims{d_model},
                                                      options.layer_norm_eps, true, options.bias, tensors))
                     : nullptr) {
  if (num_layers < 0)
    fail("Transformer: a number of layers of at least 0 is needed, found " + std::to_string(num_layers),
         made_at(where));
  for (int64_t i = 0; i < num_layers; ++i) layers.emplace(d_model, nhead, options, tensors, made_at(where));
}
template class TransformerStack<TransformerEncoderLayer>;
template class TransformerStack<TransformerDecoderLayer>;

Tensor TransformerEncoder::forward(const Tensor& src, const Tensor& mask, const Tensor& src_key_padding_mask,
                                   bool is_causal, Location where) const {
  Tensor x = src;
  for (const auto& layer : layers) x = layer->forward(x, mask, src_key_padding_mask, is_causal, where);
  return norm ? norm->forward(x, where) : x;
}

Tensor TransformerDecoder::forward(const Tensor& tgt, const Tensor& memory, const TransformerMasks& masks,
                                   Location where) const {
  Tensor x = tgt;
  for (const auto& layer : layers) x = layer->forward(x, memory, masks, where);
  return norm ? norm->forward(x, where) : x;
}

Transformer::Transformer(int64_t d_model, int64_t nhead, int64_t num_encoder_layers,
                         int64_t num_decoder_layers, const TransformerLayerOptions& options,
                         TensorOptions tensors, Location where)
    : encoder(child<TransformerEncoder>(Name("encoder", made_at(where)), d_model, nhead, num_encoder_layers,
                                        options, true, tensors)),
      decoder(child<TransformerDecoder>(Name("decoder", made_at(where)), d_model, nhead, num_decoder_layers,
                                        options, true, tensors)) {
  for (const Tensor& p : parameters())
    if (p.dim() > 1) init::xavier_uniform_(p, 1, nullptr, made_at(where));
}

Tensor Transformer::forward(const Tensor& src, const Tensor& tgt, const TransformerMasks& masks,
                            Location where) const {
  const Tensor memory = encoder(src, masks.src_mask, masks.src_key_padding_mask, masks.src_is_causal, where);
  return decoder(tgt, memory, masks, where);
}

Tensor Transformer::generate_square_subsequent_mask(int64_t size, TensorOptions options, Location where) {
  return full({size, size}, -std::numeric_limits<double>::infinity(), options, where).triu(1, where);
}

}  // namespace tandem::nn
