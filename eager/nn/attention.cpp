#include "tandem/eager/nn/attention.h"

#include <limits>
#include <utility>

#include "tandem/eager/nn/init.h"

namespace tandem::nn {

namespace {

Tensor xavier(const Dims& sizes, const TensorOptions& options, Location where) {
  Tensor w = empty(sizes, options, where);
  init::xavier_uniform_(w, 1, nullptr, where);
  return w;
}

/// A key or value that is learnt.
Tensor learnt(int64_t width, const TensorOptions& options, Location where) {
  Tensor b = empty({1, 1, width}, options, where);
  init::xavier_normal_(b, 1, nullptr, where);
  return b;
}

/// Added to scores: -infinity where a bool mask holds.
Tensor added(const Tensor& mask, Location where) {
  if (mask.dtype() != bool_) return mask;
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return tandem::where(Operand(mask, where), Operand(-kInfinity, where), Operand(0.0, where));
}

/// Two masks as one; either may be undefined.
Tensor merged(const Tensor& a, const Tensor& b, Location where) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  if (a.dtype() == bool_ && b.dtype() == bool_) return logical_or(Operand(a, where), Operand(b, where));
  const Tensor first = added(a, where);
  return add(Operand(first, where), Operand(added(b, where), where));
}

/// The mask with `n` keys more, which all are seen.
Tensor with_seen_keys(const Tensor& mask, int64_t n, Location where) {
  if (!mask.defined()) return mask;
  Dims more = mask.sizes();
  more[more.rank() - 1] = n;
  return cat({mask, zeros(more, {.dtype = mask.dtype(), .device = mask.device()}, where)}, -1, where);
}

void need_mask_type(const Tensor& mask, const char* what, Location where) {
  if (mask.defined() && mask.dtype() != bool_ && !is_floating(mask.dtype()))
    fail(
        std::string("MultiheadAttention: ") + what + " must be bool or floating, found " + name(mask.dtype()),
        where);
}

/// Rows of the three projections in one weight.
int64_t packed_rows(int64_t embed_dim, Location where) {
  return checked_mul(3, embed_dim, "MultiheadAttention: 3 * embed_dim", where);
}

void need_sizes(const Tensor& t, const Dims& sizes, const char* what, Location where) {
  if (t.sizes(where) != sizes)
    fail(std::string("MultiheadAttention: ") + what + " must have shape " + to_string(sizes) + ", found " +
             to_string(t.sizes()),
         where);
}

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t embed_dim, int64_t num_heads, MultiheadAttentionOptions o,
                                       TensorOptions tensors, Location where)
    : embed_dim(embed_dim),
      num_heads(num_heads),
      options([&] {
        if (embed_dim < 1 || num_heads < 1 || embed_dim % num_heads != 0)
          fail("MultiheadAttention: " + std::to_string(num_heads) + " heads do not divide a width of " +
                   std::to_string(embed_dim),
               made_at(where));
        if (!(o.dropout >= 0 && o.dropout <= 1))
          fail("MultiheadAttention: dropout must lie in [0, 1], found " + std::to_string(o.dropout),
               made_at(where));
        tensors.requires_grad = false;  // parameter() asks for gradients
        if (o.kdim == 0) o.kdim = embed_dim;
        if (o.vdim == 0) o.vdim = embed_dim;
        return o;
      }()),
      in_proj_weight(options.kdim == embed_dim && options.vdim == embed_dim
                         ? parameter("in_proj_weight",
                                     xavier({packed_rows(embed_dim, made_at(where)), embed_dim}, tensors,
                                            made_at(where)),
                                     made_at(where))
                         : Tensor()),
      q_proj_weight(in_proj_weight.defined()
                        ? Tensor()
                        : parameter("q_proj_weight", xavier({embed_dim, embed_dim}, tensors, made_at(where)),
                                    made_at(where))),
      k_proj_weight(in_proj_weight.defined()
                        ? Tensor()
                        : parameter("k_proj_weight",
                                    xavier({embed_dim, options.kdim}, tensors, made_at(where)),
                                    made_at(where))),
      v_proj_weight(in_proj_weight.defined()
                        ? Tensor()
                        : parameter("v_proj_weight",
                                    xavier({embed_dim, options.vdim}, tensors, made_at(where)),
                                    made_at(where))),
      in_proj_bias(options.bias
                       ? parameter("in_proj_bias",
                                   zeros({packed_rows(embed_dim, made_at(where))}, tensors, made_at(where)),
                                   made_at(where))
                       : Tensor()),
      bias_k(options.add_bias_kv
                 ? parameter("bias_k", learnt(embed_dim, tensors, made_at(where)), made_at(where))
                 : Tensor()),
      bias_v(options.add_bias_kv
                 ? parameter("bias_v", learnt(embed_dim, tensors, made_at(where)), made_at(where))
                 : Tensor()),
      out_proj(child<Linear>(Name("out_proj", made_at(where)), embed_dim, embed_dim, options.bias, tensors)) {
  if (options.bias) init::zeros_(out_proj.bias, made_at(where));
}

std::vector<Tensor> MultiheadAttention::projected(const Tensor& query, const Tensor& key, const Tensor& value,
                                                  Location where) const {
  const int64_t e = embed_dim, thirds[] = {e, e, e};
  const bool self = query.impl() == key.impl() && key.impl() == value.impl();
  if (in_proj_weight.defined() && self)
    return eager::parts(linear(query, in_proj_weight, in_proj_bias, where), thirds, -1, where);
  std::vector<Tensor> weights = {q_proj_weight, k_proj_weight, v_proj_weight}, biases(3);
  if (in_proj_weight.defined()) weights = eager::parts(in_proj_weight, thirds, 0, where);
  if (options.bias) biases = eager::parts(in_proj_bias, thirds, 0, where);
  const Tensor q = linear(query, weights[0], biases[0], where);
  const Tensor k = linear(key, weights[1], biases[1], where);
  return {q, k, linear(value, weights[2], biases[2], where)};
}

AttentionOutput MultiheadAttention::forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                            const AttentionMasks& masks, Location where) const {
  const int rank = query.dim(where);
  if ((rank != 2 && rank != 3) || key.dim(where) != rank || value.dim(where) != rank)
    fail("MultiheadAttention: query, key and value must all have rank 3, or 2 without a batch, found " +
             to_string(query.sizes()) + ", " + to_string(key.sizes()) + " and " + to_string(value.sizes()),
         where);
  // Each mask by itself: a sum of two may be floating although one is not.
  need_mask_type(masks.key_padding_mask, "key_padding_mask", where);
  need_mask_type(masks.attn_mask, "attn_mask", where);
  const int batch_axis = options.batch_first ? 0 : 1, length_axis = 1 - batch_axis;
  std::vector<Tensor> qkv = projected(query, key, value, where);
  const Tensor behind[] = {Tensor(), bias_k, bias_v};
  for (size_t i = 0; i < 3; ++i) {  // (N, heads, length, width of a head)
    Tensor& t = qkv[i];
    if (rank == 2) t = t.unsqueeze(batch_axis, where);
    Dims one = t.sizes();
    one[length_axis] = 1;
    if (behind[i].defined()) t = cat({t, behind[i].expand(one, where)}, length_axis, where);
    if (i > 0 && options.add_zero_attn)
      t = cat({t, zeros(one, {.dtype = t.dtype(), .device = t.device()}, where)}, length_axis, where);
    const Dims s = t.sizes();
    t = t.reshape({s[0], s[1], num_heads, embed_dim / num_heads}, where)
            .permute({batch_axis, 2, length_axis, 3}, where);
  }
  const int64_t more = options.add_bias_kv + options.add_zero_attn;
  const int64_t n = qkv[0].size(0), l = qkv[0].size(2), s = qkv[1].size(2) - more;
  Tensor padding = masks.key_padding_mask, mask = masks.attn_mask;
  if (padding.defined()) {
    if (rank == 2) padding = padding.unsqueeze(0, where);
    need_sizes(padding, {n, s}, "key_padding_mask", where);
    padding = padding.reshape({n, 1, 1, s}, where);
  }
  if (mask.defined() && mask.dim(where) == 3) {
    need_sizes(mask, {n * num_heads, l, s}, "attn_mask", where);
    mask = mask.reshape({n, num_heads, l, s}, where);
  } else if (mask.defined()) {
    need_sizes(mask, {l, s}, "attn_mask", where);
  }
  Tensor both = merged(padding, mask, where);
  bool causal = masks.is_causal;
  if (more > 0) {
    if (std::exchange(causal, false)) {
      const Tensor later = ones({l, s}, {.dtype = bool_, .device = query.device()}, where).triu(1, where);
      both = merged(both, later, where);
    }
    both = with_seen_keys(both, more, where);
  }
  if (both.defined() && both.dtype() == bool_) both = logical_not(both, where);  // what is seen
  const double dropout = is_training() ? options.dropout : 0;
  eager::AttentionResult r;
  if (masks.need_weights)
    r = eager::attention(qkv[0], qkv[1], qkv[2], both, dropout, causal, {}, where);
  else
    r.output = eager::attention_output(qkv[0], qkv[1], qkv[2], both, dropout, causal, {}, where);
  const Tensor heads =
      options.batch_first ? r.output.permute({0, 2, 1, 3}, where) : r.output.permute({2, 0, 1, 3}, where);
  Tensor joined = heads.reshape({heads.size(0), heads.size(1), embed_dim}, where);
  if (rank == 2) joined = joined.squeeze(batch_axis, where);
  AttentionOutput out{out_proj(joined, where), {}};
  if (!masks.need_weights) return out;
  out.weights = masks.average_attn_weights ? r.weights.mean({1}, false, where) : r.weights;
  if (rank == 2) out.weights = out.weights.squeeze(0, where);
  return out;
}

}  // namespace tandem::nn
