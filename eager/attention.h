// Attention, and the parting of packed tensors for gradients. Names, argument order and defaults of the
// public function are PyTorch's. Included by functions.h. Stateless but for dropout's draws; any thread.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tandem/eager/tensor.h"

namespace tandem {

/// softmax(scale * q k^T + mask) v (Vaswani et al., 2017) of q (..., Hq, L, E), k (..., Hk, S, E) and v
/// (..., Hk, S, Ev), one floating type: (..., Hq, L, Ev). Without an axis of heads: (L, E), (S, E), (S, Ev).
/// `attn_mask` broadcasts to (..., Hq, L, S): bool, true where q may look, or floating, added. `is_causal`:
/// position i of q sees positions 0 to i of k; an Error together with a mask. `scale` is 1 / sqrt(E) unless
/// given. With `enable_gqa` a head of k and v serves Hq / Hk heads of q. Lanes that are not seen have
/// probability 0 exactly, and a row that sees nothing gives zeros, as in PyTorch 2.5. For the gradient the
/// probabilities (..., Hq, L, S) are kept, but for halves without mask and dropout, which keep a number a
/// row. Those go to cuDNN on CUDA where it takes them (widths that are multiples of 8 up to 256), which
/// rounds the probabilities to halves before it multiplies v with them; elsewhere halves are multiplied in
/// float32 and rounded once. A call that is refused draws nothing.
Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& attn_mask = {}, double dropout_p = 0,
                                    bool is_causal = false, std::optional<double> scale = {},
                                    bool enable_gqa = false, Location where = Location::here());

namespace eager {

struct AttentionResult {
  Tensor output, weights;  // weights: the probabilities before dropout
};
/// The same with its weights; mask and `is_causal` may come together, heads may be grouped.
AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          double dropout_p, bool is_causal, std::optional<double> scale, Location where);

/// The output alone. In halves (autocast's, or those of q) without mask and dropout it is an op of its own,
/// which keeps a number a row for the gradient, not the probabilities; cuDNN may do it.
Tensor attention_output(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                        double dropout_p, bool is_causal, std::optional<double> scale, Location where);

/// Parts of the sizes listed along an axis. Where gradients are noted, theirs are joined by a few passes over
/// memory, however many parts there are (those of views would each be widened to the whole and added); else
/// views.
std::vector<Tensor> parts(const Tensor& t, std::span<const int64_t> sizes, int64_t axis, Location where);

}  // namespace eager
}  // namespace tandem
