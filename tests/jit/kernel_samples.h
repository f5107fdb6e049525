// Kernels by hand for tests of the printers and the evaluator: a small builder, and the shapes that matter
// most. Values; any thread.
#pragma once

#include <string>
#include <utility>

#include "tandem/jit/kernel.h"

namespace tandem::jit::samples {

using ops::S;
using ops::ScalarOp;

/// Builds a Kernel load by load; buffers are numbered as they come.
struct Builder {
  Kernel k;

  Builder(std::string name, KernelKind kind, int kept_rank, int reduced_rank) {
    k.name = std::move(name);
    k.kind = kind;
    k.kept_rank = kept_rank;
    k.reduced_rank = reduced_rank;
  }
  S load(DType type, Inner inner, bool row_level = false, S index = {}) {
    k.loads.push_back({k.buffers++, type, inner, row_level, index.id});
    return k.scalars.node(ScalarOp::load, type, {}, {}, {}, static_cast<int64_t>(k.loads.size()) - 1);
  }
  S number(DType type = DType::float64) {
    return k.scalars.node(ScalarOp::number, type, {}, {}, {}, k.numbers++);
  }
  S constant(DType type, double value) { return k.scalars.constant(type, value); }
  S index() { return k.scalars.node(ScalarOp::index, DType::int64); }
  S reduce(ReduceOp op, S input) {
    const bool finds_index = op == ReduceOp::argmax || op == ReduceOp::argmin;
    const DType type = finds_index ? DType::int64 : input.type();
    k.reductions.push_back({op, input.id, type});
    return k.scalars.node(ScalarOp::reduced, type, {}, {}, {}, static_cast<int64_t>(k.reductions.size()) - 1);
  }
  void store(S value, Inner inner, bool row_level = false) {
    k.stores.push_back({k.buffers++, value.type(), inner, row_level, value.id});
  }
};

/// (rows; n): (x - mean) * rstd * gamma + beta, with mean and rstd as row-level results. Numbers: 1 / n, eps.
inline Kernel layer_norm() {
  Builder b("layer_norm", KernelKind::row, 1, 1);
  const S x = b.load(DType::float32, Inner::contiguous);
  const S gamma = b.load(DType::float32, Inner::contiguous), beta = b.load(DType::float32, Inner::contiguous);
  const S scale = cast(b.number(), DType::float32), eps = cast(b.number(), DType::float32);
  const S mean = b.reduce(ReduceOp::sum, x) * scale;
  const S d = x - mean;
  const S variance = b.reduce(ReduceOp::sum, d * d) * scale;
  const S rstd = 1.0 / s_sqrt(variance + eps);
  b.store(d * rstd * gamma + beta, Inner::contiguous);
  b.store(mean, Inner::constant, true);
  b.store(rstd, Inner::constant, true);
  return b.k;
}

/// (rows; n): exp(x - max) / sum.
inline Kernel softmax() {
  Builder b("softmax", KernelKind::row, 1, 1);
  const S x = b.load(DType::float32, Inner::contiguous);
  const S e = s_exp(x - b.reduce(ReduceOp::max, x));
  b.store(e / b.reduce(ReduceOp::sum, e), Inner::contiguous);
  return b.k;
}

/// (rows, n): gelu(x + bias) by erf.
inline Kernel bias_gelu() {
  Builder b("add gelu", KernelKind::pointwise, 2, 0);
  const S input = b.load(DType::float32, Inner::contiguous), bias = b.load(DType::float32, Inner::contiguous);
  const S x = input + bias;
  const S half = x * 0.5;
  b.store(half * (s_erf(x * 0.70710678118654752440) + 1.0), Inner::contiguous);
  return b.k;
}

/// (n): AdamW on flat parameters. Numbers: lr, beta1, beta2, eps, weight decay, 1 - beta1^t, 1 - beta2^t.
inline Kernel adamw() {
  Builder b("adamw", KernelKind::pointwise, 1, 0);
  const S p = b.load(DType::float32, Inner::contiguous), g = b.load(DType::float32, Inner::contiguous);
  const S m = b.load(DType::float32, Inner::contiguous), v = b.load(DType::float32, Inner::contiguous);
  const S lr = b.number(), beta1 = b.number(), beta2 = b.number(), eps = b.number(), decay = b.number();
  const S bias1 = b.number(), bias2 = b.number();
  const auto f = [](S s) { return cast(s, DType::float32); };
  const S m1 = m * f(beta1) + g * f(1.0 - beta1);
  const S v1 = v * f(beta2) + g * g * f(1.0 - beta2);
  const S kept = p * f(1.0 - lr * decay);
  b.store(kept - f(lr / bias1) * m1 / (s_sqrt(v1) / f(s_sqrt(bias2)) + f(eps)), Inner::contiguous);
  b.store(m1, Inner::contiguous);
  b.store(v1, Inner::contiguous);
  return b.k;
}

/// (n; rows): dx = x > 0 ? dy : 0 and the sum of it over the rows.
inline Kernel relu_backward_bias() {
  Builder b("relu_backward sum", KernelKind::column, 1, 1);
  const S x = b.load(DType::float32, Inner::contiguous), dy = b.load(DType::float32, Inner::contiguous);
  const S zero = b.constant(DType::float32, 0);
  const S dx = select(s_gt(x, zero), dy, zero);
  b.store(dx, Inner::contiguous);
  b.store(b.reduce(ReduceOp::sum, dx), Inner::contiguous, true);
  return b.k;
}

/// (n): x * scale where a 16-bit draw is below `keep`, else 0. Numbers: seed, offset (int64), keep, scale.
inline Kernel dropout() {
  Builder b("dropout", KernelKind::pointwise, 1, 0);
  const S x = b.load(DType::float32, Inner::contiguous);
  const S index = b.index(), seed = b.number(DType::int64), offset = b.number(DType::int64);
  const S keep = cast(b.number(), DType::float32), scale = cast(b.number(), DType::float32);
  const S kept = s_lt(s_uniform16(index, seed, offset), keep);
  b.store(select(kept, x * scale, b.constant(DType::float32, 0)), Inner::contiguous);
  return b.k;
}

}  // namespace tandem::jit::samples
