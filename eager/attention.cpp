#include "tandem/eager/attention.h"

#include <algorithm>

#include "tandem/core/modes.h"
#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& attn_mask, double dropout_p, bool is_causal,
                                    std::optional<double> scale, bool enable_gqa, Location where) {
  constexpr const char* kName = "scaled_dot_product_attention: ";
  if (attn_mask.defined() && is_causal)
    fail(std::string(kName) + "attn_mask and is_causal were both given; let the mask say what is seen",
         where);
  const Dims &qs = q.sizes(where), &ks = k.sizes(where);
  const int heads = qs.rank() - 3;
  if (!enable_gqa && heads >= 0 && ks.rank() == qs.rank() && qs[heads] != ks[heads])
    fail(std::string(kName) + "q has " + std::to_string(qs[heads]) + " heads and k " +
             std::to_string(ks[heads]) + ": " + to_string(qs) + ", " + to_string(ks) +
             "; enable_gqa lets heads of k serve several of q",
         where);
  return eager::attention(q, k, v, attn_mask, dropout_p, is_causal, scale, where).output;
}

namespace eager {

AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          double dropout_p, bool is_causal, std::optional<double> scale, Location where) {
  if (!(dropout_p >= 0 && dropout_p <= 1))
    fail("scaled_dot_product_attention: dropout_p must lie in [0, 1], found " + std::to_string(dropout_p),
         where);
  const bool drops = dropout_p > 0;
  CallBuilder call(drops ? OpId::scaled_dot_product_attention_dropout : OpId::scaled_dot_product_attention,
                   where);
  call.in(q).in(k).in(v).in(mask);
  call.word(is_causal).word(scale.has_value()).word(modes().tf32).floating(scale.value_or(0));
  if (drops) {
    const Dims &qs = q.sizes(where), &ks = k.sizes(where);
    uint64_t weights = qs.rank() < 2 || ks.rank() < 2 ? 0 : static_cast<uint64_t>(ks[ks.rank() - 2]);
    for (int i = 0; i + 1 < qs.rank(); ++i) weights *= static_cast<uint64_t>(qs[i]);
    Generator& g = default_generator();
    call.floating(dropout_p);
    call.word(static_cast<int64_t>(g.seed())).word(static_cast<int64_t>(g.advance((weights + 7) / 8)));
  }
  ValuesIndices r = call.run2();
  return {std::move(r.values), std::move(r.indices)};
}

namespace {

/// At most four parts: one op.
std::vector<Tensor> few_parts(const Tensor& t, const Dims& sizes, int64_t axis, Location where) {
  if (sizes.size() == 1) return {t};
  constexpr OpId kOps[] = {OpId::split2, OpId::split3, OpId::split4};
  std::vector<int64_t> words = {axis, sizes.size()};
  words.insert(words.end(), sizes.begin(), sizes.end());
  TensorImpl* in[] = {&t.checked(where)};
  Ref<TensorImpl> out[4];
  call_into({.op = kOps[sizes.size() - 2],
             .n_in = 1,
             .n_words = static_cast<uint32_t>(words.size()),
             .in = in,
             .words = words.data(),
             .where = where},
            out);
  std::vector<Tensor> result;
  for (int64_t i = 0; i < sizes.size(); ++i) result.emplace_back(std::move(out[i]));
  return result;
}

/// Positions [begin, end) of `sizes`, all of `t`: a tree with four branches a node.
void grow(const Tensor& t, std::span<const int64_t> sizes, int64_t axis, Location where,
          std::vector<Tensor>& out) {
  const size_t n = sizes.size(), branch = n <= 4 ? 1 : (n + 3) / 4;
  if (n == 1) {
    out.push_back(t);
    return;
  }
  Dims totals;
  for (size_t from = 0; from < n; from += branch) {
    int64_t total = 0;
    for (size_t i = from; i < std::min(n, from + branch); ++i) total += sizes[i];
    totals.push_back(total);
  }
  const std::vector<Tensor> branches = few_parts(t, totals, axis, where);
  for (size_t b = 0; b < branches.size(); ++b)
    grow(branches[b], sizes.subspan(b * branch, std::min(branch, n - b * branch)), axis, where, out);
}

}  // namespace

std::vector<Tensor> parts(const Tensor& t, std::span<const int64_t> sizes, int64_t axis, Location where) {
  std::vector<Tensor> out;
  if (modes().grad && t.requires_grad()) {
    grow(t, sizes, axis, where, out);
    return out;
  }
  int64_t start = 0;
  for (const int64_t size : sizes) {
    out.push_back(t.narrow(axis, start, size, where));
    start += size;
  }
  return out;
}

}  // namespace eager
}  // namespace tandem
