#include "tandem/eager/attention.h"

#include <algorithm>
#include <bit>

#include "tandem/core/modes.h"
#include "tandem/eager/autocast.h"
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
  return eager::attention_output(q, k, v, attn_mask, dropout_p, is_causal, scale, where);
}

namespace eager {

namespace {

/// With dropout the check and the casts of autocast come before the draw, not in the dispatcher: a call that
/// is refused leaves the generator where it was.
AttentionResult with_dropout(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                             double dropout_p, bool is_causal, std::optional<double> scale, Location where) {
  TensorImpl* in[] = {q.impl(), k.impl(), v.impl(), mask.impl()};
  constexpr size_t kSeed = 5, kOffset = 6;
  int64_t words[] = {is_causal,
                     scale.has_value(),
                     modes().tf32,
                     std::bit_cast<int64_t>(scale.value_or(0)),
                     std::bit_cast<int64_t>(dropout_p),
                     0,
                     0};
  const Call given{.op = OpId::scaled_dot_product_attention_dropout,
                   .n_in = 4,
                   .n_words = std::size(words),
                   .in = in,
                   .words = words,
                   .where = where};
  std::optional<AutocastCall> cast;
  if (modes().autocast) cast.emplace(given);
  const Call& call = cast ? cast->call() : given;
  if (interceptor())
    check_operands_of_trace(call);
  else
    check_operands(call);
  const auto weights = static_cast<uint64_t>(numel(infer_call(call)[1].sizes));
  Generator& g = default_generator();
  words[kSeed] = static_cast<int64_t>(g.seed());
  words[kOffset] = static_cast<int64_t>(g.advance((weights + 7) / 8));
  Ref<TensorImpl> out[2];
  call_into(call, out);
  return {Tensor(std::move(out[0])), Tensor(std::move(out[1]))};
}

}  // namespace

namespace {

void check_dropout(double p, Location where) {
  if (!(p >= 0 && p <= 1))
    fail("scaled_dot_product_attention: dropout_p must lie in [0, 1], found " + std::to_string(p), where);
}

/// Whether the op will run in a half: autocast's, or that of q itself.
bool in_halves(const Tensor& q) {
  DType type = q.dtype();
  if (modes().autocast && is_floating(type) && type != DType::float64)
    type = static_cast<DType>(modes().autocast - 1);
  return type == DType::float16 || type == DType::bfloat16;
}

}  // namespace

Tensor attention_output(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                        double dropout_p, bool is_causal, std::optional<double> scale, Location where) {
  check_dropout(dropout_p, where);
  if (dropout_p > 0 || mask.defined() || !in_halves(q))
    return attention(q, k, v, mask, dropout_p, is_causal, scale, where).output;
  return CallBuilder(OpId::attention_forward, where)
      .in(q)
      .in(k)
      .in(v)
      .word(is_causal)
      .word(scale.has_value())
      .word(modes().tf32)
      .word(false)
      .floating(scale.value_or(0))
      .run_first();
}

AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          double dropout_p, bool is_causal, std::optional<double> scale, Location where) {
  check_dropout(dropout_p, where);
  if (dropout_p > 0) return with_dropout(q, k, v, mask, dropout_p, is_causal, scale, where);
  ValuesIndices r = CallBuilder(OpId::scaled_dot_product_attention, where)
                        .in(q)
                        .in(k)
                        .in(v)
                        .in(mask)
                        .word(is_causal)
                        .word(scale.has_value())
                        .word(modes().tf32)
                        .floating(scale.value_or(0))
                        .run2();
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
