#include "tandem/jit/cudnn_attention.h"

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem::jit {

using cuda::Cudnn;
using Tensor = CudnnGraph::Tensor;
using Pointwise = Cudnn::Pointwise;

namespace {

Dims swapped(Dims dims) {
  std::swap(dims[2], dims[3]);
  return dims;
}

/// The parts of one graph, in the patterns that the library knows as attention.
class Writer {
 public:
  Writer(const Cudnn& api, const CudnnAttention& shape) : g_(api), s_(shape) {}

  CudnnGraph forward() {
    const Tensor q = operand(s_.q(), s_.q_strides), k = operand(swapped(s_.k()), swapped(s_.k_strides)),
                 v = operand(s_.v(), s_.v_strides), scale = g_.number(4), y = operand(s_.y()), stats = rows();
    Tensor lowest = 0;
    if (s_.causal) lowest = g_.number(4);
    const Tensor x = scores(q, k, scale, lowest);
    const Tensor best = row(), less = score(), powers = score(), total = row(), log = row(),
                 p = g_.between(type(), scores_sizes());
    g_.reduce(Cudnn::Reduce::max, x, best);
    g_.pointwise(Pointwise::sub, x, best, less);
    g_.pointwise(Pointwise::exp, less, 0, powers);
    g_.reduce(Cudnn::Reduce::add, powers, total);
    g_.pointwise(Pointwise::log, total, 0, log);
    g_.pointwise(Pointwise::add, best, log, stats);
    g_.pointwise(Pointwise::div, powers, total, p);
    g_.product(p, v, y);
    return std::move(g_);
  }

  // p = exp(x - stats), dv = p^T g, dp = g v^T, ds = scale p (dp - sum(g y)), dk = ds^T q, dq = ds k.
  CudnnGraph backward() {
    const Tensor q = operand(s_.q(), s_.q_strides), k = operand(swapped(s_.k()), swapped(s_.k_strides)),
                 v = operand(swapped(s_.v()), swapped(s_.v_strides)), scale = g_.number(4),
                 y = operand(s_.y()), stats = rows(), grad = operand(s_.y(), s_.grad_strides),
                 dq = operand(s_.q()), dk = operand(s_.k()), dv = operand(s_.v()), lowest = g_.number(4),
                 one = g_.number(4), along = rows();
    const Tensor gy = g_.between(Cudnn::kFloat, s_.y()), sum = row();
    g_.pointwise(Pointwise::mul, grad, y, gy);
    g_.reduce(Cudnn::Reduce::add, gy, sum);
    g_.pointwise(Pointwise::mul, sum, one, along);
    const Tensor raw = score(), x = score(), less = score();
    g_.product(q, k, raw);
    g_.pointwise(Pointwise::mul, raw, scale, x);
    g_.pointwise(Pointwise::sub, x, stats, less);
    const Tensor seen = s_.causal ? masked(less, lowest) : less, p = score();
    g_.pointwise(Pointwise::exp, seen, 0, p);
    gradient_of_shared(p, grad, dv, s_.out_width);
    const Tensor dp = score(), centred = score(), times = score(), ds = score();
    g_.product(grad, v, dp);
    g_.pointwise(Pointwise::sub, dp, along, centred);
    g_.pointwise(Pointwise::mul, centred, p, times);
    g_.pointwise(Pointwise::mul, times, scale, ds);
    gradient_of_shared(ds, q, dk, s_.width);
    const Tensor upright = g_.between(type(), s_.k(), s_.k_strides);
    g_.reshape(k, upright);
    g_.product(ds, upright, dq);
    return std::move(g_);
  }

 private:
  int type() const { return cudnn_type(s_.dtype); }
  Dims scores_sizes() const { return {s_.batch, s_.heads, s_.rows, s_.columns}; }
  Tensor operand(const Dims& sizes, const Dims& strides) {
    return g_.memory(type(), sizes, strides, kAttentionAlignment);
  }
  Tensor operand(const Dims& sizes) { return operand(sizes, contiguous_strides(sizes)); }
  Tensor rows() {
    return g_.memory(Cudnn::kFloat, s_.stats(), contiguous_strides(s_.stats()), kAttentionAlignment);
  }
  Tensor score() { return g_.between(Cudnn::kFloat, scores_sizes()); }
  Tensor row() { return g_.between(Cudnn::kFloat, s_.stats()); }

  Tensor scores(Tensor q, Tensor k, Tensor scale, Tensor lowest) {
    const Tensor raw = score(), x = score();
    g_.product(q, k, raw);
    g_.pointwise(Pointwise::mul, raw, scale, x);
    return s_.causal ? masked(x, lowest) : x;
  }

  Tensor masked(Tensor x, Tensor lowest) {
    const Tensor i = g_.between(Cudnn::kInt32, scores_sizes()), j = g_.between(Cudnn::kInt32, scores_sizes()),
                 sees = g_.between(Cudnn::kBoolean, scores_sizes()), y = score();
    g_.index(x, 2, i);
    g_.index(x, 3, j);
    g_.pointwise(Pointwise::greater_equal, i, j, sees);
    g_.pointwise(Pointwise::select, x, lowest, y, sees);
    return y;
  }

  /// result = m^T b of scores m, added up over the heads that share one of k and v.
  void gradient_of_shared(Tensor m, Tensor b, Tensor result, int64_t width) {
    const Dims sizes = swapped(scores_sizes());
    const Tensor turned = g_.between(type(), sizes, swapped(contiguous_strides(scores_sizes())));
    g_.reshape(m, turned);
    if (s_.heads == s_.shared) return g_.product(turned, b, result);
    const Tensor each = g_.between(type(), {s_.batch, s_.heads, s_.columns, width});
    g_.product(turned, b, each);
    g_.reduce(Cudnn::Reduce::add, each, result);
  }

  CudnnGraph g_;
  const CudnnAttention& s_;
};

}  // namespace

std::string to_string(const CudnnAttention& s) {
  return std::string(s.backward ? "backward " : "forward ") + name(s.dtype) + " (" + std::to_string(s.batch) +
         ", " + std::to_string(s.heads) + " of " + std::to_string(s.shared) + ", " + std::to_string(s.rows) +
         " x " + std::to_string(s.columns) + ", " + std::to_string(s.width) +
         (s.width == s.out_width ? "" : " and " + std::to_string(s.out_width)) + ")" +
         (s.causal ? " causal" : "");
}

CudnnGraph attention_graph(const Cudnn& api, const CudnnAttention& shape) {
  Writer writer(api, shape);
  return shape.backward ? writer.backward() : writer.forward();
}

CudnnTerms attention_terms(const CudnnAttention& s) {
  return {.exact = false,
          .compiled = true,
          .workspace_bytes = std::max(kCudnnWorkspace, 4 * s.batch * s.heads * s.rows * s.columns)};
}

}  // namespace tandem::jit
