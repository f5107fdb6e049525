// Calls of kernels by hand, over sizes that a test names, for tests of the CUDA printer. Values; any thread.
#pragma once

#include <utility>
#include <vector>

#include "tests/elements.h"
#include "tests/jit/random_kernels.h"

namespace tandem::jit::samples {

inline Case whole(Generator& generator, KernelKind kind) {
  Case c = generator.make(kind);
  c.begin = 0;
  c.end = 1;
  for (int d = 0; d < c.k.kept_rank; ++d) c.end *= c.dims[static_cast<size_t>(d)];
  return c;
}

/// A case of `k` over `dims`: row-major operands, broadcast along the dimensions of `still` (a bit each).
inline Case by_hand(const Kernel& k, std::vector<int64_t> dims, std::vector<unsigned> still = {}) {
  Case c;
  c.k = k;
  c.dims = std::move(dims);
  std::mt19937_64 random(k.scalars.nodes().size() + static_cast<size_t>(c.dims.back()));
  const int rank = k.kept_rank + k.reduced_rank;
  for (size_t s = 0; s < k.loads.size() + k.stores.size(); ++s) {
    const bool is_load = s < k.loads.size();
    const bool row_level = is_load ? k.loads[s].row_level : k.stores[s - k.loads.size()].row_level;
    const DType type = is_load ? k.loads[s].dtype : k.stores[s - k.loads.size()].dtype;
    std::vector<int64_t> strides(static_cast<size_t>(rank), 0);
    int64_t step = 1;
    // In memory a column kernel's columns lie innermost.
    std::vector<int> order;
    for (int d = rank - 1; d >= 0; --d) order.push_back(d);
    if (k.kind == KernelKind::column) {
      order.erase(std::find(order.begin(), order.end(), k.kept_rank - 1));
      order.insert(order.begin(), k.kept_rank - 1);
    }
    for (const int d : order) {
      if (row_level && d >= k.kept_rank) continue;
      if (s < still.size() && (still[s] >> d & 1) != 0) continue;
      strides[static_cast<size_t>(d)] = step;
      step *= c.dims[static_cast<size_t>(d)];
    }
    c.strides.insert(c.strides.end(), strides.begin(), strides.end());
    if (is_load && k.loads[s].index >= 0) {
      c.strides.push_back(3);  // planes of an operand
      c.strides.push_back(step);
      step *= 3;
    }
    c.types.push_back(type);
    step = (step + 15) / 16 * 16;  // so that it begins at an address for 16 bytes
    std::string bytes(static_cast<size_t>(step * itemsize(type)), '\x5a');
    for (int64_t i = 0; is_load && i < step; ++i) {
      const auto u = static_cast<double>(random() >> 11) * 0x1p-53;
      test::write_element(bytes.data(), type, i, is_floating(type) ? 4 * u - 2 : std::floor(3 * u));
    }
    c.buffers.push_back(std::move(bytes));
  }
  for (const Across& a : k.across) {
    const DType type = k.scalars[a.input].type;
    int64_t rows = 1;
    for (int d = 0; d < k.kept_rank; ++d) rows *= c.dims[static_cast<size_t>(d)];
    const int64_t n = (rows + kColumnBlock - 1) / kColumnBlock * c.dims.back();
    c.types.push_back(type);
    c.buffers.emplace_back(static_cast<size_t>(n * itemsize(type)), '\x5a');
  }
  for (int i = 0; i < k.numbers; ++i) c.numbers.push_back(i == 0 ? 77 : 1000 + i);
  c.end = 1;
  for (int d = 0; d < k.kept_rank; ++d) c.end *= c.dims[static_cast<size_t>(d)];
  return c;
}

// (kept...; reduced...): sum, argmax and a centred copy.
inline Kernel several_reductions(KernelKind kind, int kept, int reduced, DType type = DType::float32) {
  Builder b("several", kind, kept, reduced);
  const S x = b.load(type, Inner::contiguous);
  const S sum = b.reduce(ReduceOp::sum, x), most = b.reduce(ReduceOp::argmax, x);
  const S least = b.reduce(ReduceOp::min, x - sum);
  b.store(x - sum, Inner::contiguous);
  const Inner of_row = kind == KernelKind::row ? Inner::constant : Inner::contiguous;
  b.store(sum, of_row, true);
  b.store(most, of_row, true);
  b.store(least, of_row, true);
  return b.k;
}

// What is built, with results of blocks of rows.
inline Kernel leaving(samples::Builder b, const std::vector<std::pair<ReduceOp, S>>& across) {
  for (const auto& [op, input] : across) b.k.across.push_back({op, input.id, b.k.buffers++});
  return b.k;
}

// (rows; n): a norm's gradient, from x, dy and weight: of x, and across the rows of weight and bias.
inline Kernel layer_norm_backward(DType type = DType::float32) {
  samples::Builder b("layer_norm_backward", KernelKind::row, 1, 1);
  const S x = cast(b.load(type, Inner::contiguous), DType::float32);
  const S dy = cast(b.load(type, Inner::contiguous), DType::float32);
  const S weight = cast(b.load(type, Inner::contiguous), DType::float32);
  const S centered = x - b.reduce(ReduceOp::sum, x) * 0.01;
  const S rstd = 1.0 / s_sqrt(b.reduce(ReduceOp::sum, centered * centered) + 1e-5);
  const S xhat = centered * rstd, h = dy * weight;
  const S mean = b.reduce(ReduceOp::sum, h) * 0.01, along = b.reduce(ReduceOp::sum, h * xhat) * 0.01;
  b.store(cast((h - mean - xhat * along) * rstd, type), Inner::contiguous);
  return leaving(std::move(b), {{ReduceOp::sum, dy * xhat}, {ReduceOp::sum, dy}});
}

// The element's number and draws by it, and their sum.
inline Kernel drawn(KernelKind kind, int kept, int reduced) {
  Builder b("drawn", kind, kept, reduced);
  const S seed = b.number(DType::int64), offset = b.number(DType::int64), index = b.index();
  const S x =
      s_normal(index, seed, offset) + s_uniform(index, seed, offset) + s_uniform16(index, seed, offset);
  b.store(index, Inner::contiguous);
  b.store(x, Inner::contiguous);
  if (kind != KernelKind::pointwise)
    b.store(b.reduce(ReduceOp::sum, x), kind == KernelKind::row ? Inner::constant : Inner::contiguous, true);
  return b.k;
}

// x[index], where an index may be out of range.
inline Kernel picked(KernelKind kind, bool out_of_range) {
  Builder b("picked", kind, 1, kind == KernelKind::pointwise ? 0 : 1);
  const S index = b.load(DType::int64, Inner::contiguous);
  const S i = out_of_range ? index + b.constant(DType::int64, 1) : index;
  const S x = b.load(DType::float32, Inner::contiguous, false, i);
  b.store(x, Inner::contiguous);
  if (kind != KernelKind::pointwise)
    b.store(b.reduce(ReduceOp::sum, x), kind == KernelKind::row ? Inner::constant : Inner::contiguous, true);
  return b.k;
}

// (a, b): all widths, an operand without its rows, one without its columns, and a draw.
inline Kernel several_types() {
  Builder b("types", KernelKind::pointwise, 2, 0);
  const S x = cast(b.load(DType::bfloat16, Inner::contiguous), DType::float32);
  const S y = b.load(DType::float32, Inner::constant), flag = b.load(DType::bool_, Inner::contiguous);
  const S h = cast(b.load(DType::float16, Inner::contiguous), DType::float32);
  const S seed = b.number(DType::int64), offset = b.number(DType::int64);
  const S z = select(flag, x * y, h) + s_normal(b.index(), seed, offset);
  b.store(cast(z, DType::float16), Inner::contiguous);
  b.store(s_gt(z, y), Inner::contiguous);
  b.store(z, Inner::contiguous);
  return b.k;
}

}  // namespace tandem::jit::samples
