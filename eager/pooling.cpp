// Pooling: words of the ops in ops/pooling.def. The largest elements are looked up at the positions that
// max_pool_positions finds, so that gradients of any order are those of gather.
#include "tandem/eager/pooling.h"

#include <cmath>

#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

/// One number an axis.
Dims per_axis(const Dims& given, int rank, const char* op, const char* what, Location where) {
  if (given.size() == rank) return given;
  if (given.size() != 1)
    fail(std::string(op) + ": " + what + " must be one number or " + std::to_string(rank) + ", found " +
             to_string(given),
         where);
  return Dims::filled(rank, given[0]);
}

/// Kernel, stride, padding and, if given, dilation of each axis.
Dims windows(int rank, const char* op, const Dims& kernel, const Dims& stride, const Dims& padding,
             const Dims& dilation, Location where) {
  const Dims k = per_axis(kernel, rank, op, "kernel_size", where);
  const Dims s = stride.empty() ? k : per_axis(stride, rank, op, "stride", where);
  const Dims p = per_axis(padding, rank, op, "padding", where);
  const Dims d = dilation.empty() ? dilation : per_axis(dilation, rank, op, "dilation", where);
  Dims list;
  for (int i = 0; i < rank; ++i) {
    list.push_back(k[i]), list.push_back(s[i]), list.push_back(p[i]);
    if (!d.empty()) list.push_back(d[i]);
  }
  return list;
}

Dims adaptive_windows(const Tensor& x, int rank, const char* op, const Dims& output_size, Location where) {
  Dims sizes = per_axis(output_size, rank, op, "output_size", where);
  for (int i = 0; i < rank; ++i)
    if (sizes[i] == -1) sizes[i] = x.size(i - rank, where);
  return sizes;
}

ValuesIndices max_pool(const Tensor& x, int rank, bool ceil, bool adaptive, const Dims& list,
                       Location where) {
  const Tensor at =
      CallBuilder(OpId::max_pool_positions, where).in(x).word(ceil).word(adaptive).list(list).run();
  const Tensor plane = rank == 1 ? x : x.flatten(-rank, -1, where);
  const Tensor places = rank == 1 ? at : at.flatten(-rank, -1, where);
  const Tensor values = plane.gather(-1, places, where);
  return {rank == 1 ? values : values.view(at.sizes(), where), at};
}

Tensor avg_pool(const Tensor& x, bool ceil, bool adaptive, bool count_include_pad, int64_t divisor,
                const Dims& list, Location where) {
  return CallBuilder(OpId::avg_pool, where)
      .in(x)
      .word(ceil)
      .word(adaptive)
      .word(count_include_pad)
      .word(divisor)
      .list(list)
      .run();
}

Tensor adaptive_avg_pool(const Tensor& x, int rank, const char* op, const Dims& output_size, Location where) {
  const Dims windows = adaptive_windows(x, rank, op, output_size, where);
  Dims spatial;
  bool whole = x.dim(where) == rank + 1 || x.dim(where) == rank + 2;
  for (int i = 0; i < rank; ++i) {
    spatial.push_back(i - rank);
    whole = whole && windows[i] == 1 && x.size(i - rank, where) > 0;
  }
  if (whole) return x.mean(spatial, true, where);  // one window: a reduction, which is fused and faster
  return avg_pool(x, false, true, false, 0, windows, where);
}

}  // namespace

ValuesIndices max_pool1d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride,
                                      const Dims& padding, const Dims& dilation, bool ceil_mode,
                                      Location where) {
  return max_pool(x, 1, ceil_mode, false,
                  windows(1, "max_pool1d", kernel_size, stride, padding, dilation, where), where);
}
ValuesIndices max_pool2d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride,
                                      const Dims& padding, const Dims& dilation, bool ceil_mode,
                                      Location where) {
  return max_pool(x, 2, ceil_mode, false,
                  windows(2, "max_pool2d", kernel_size, stride, padding, dilation, where), where);
}
Tensor max_pool1d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  const Dims& dilation, bool ceil_mode, Location where) {
  return max_pool1d_with_indices(x, kernel_size, stride, padding, dilation, ceil_mode, where).values;
}
Tensor max_pool2d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  const Dims& dilation, bool ceil_mode, Location where) {
  return max_pool2d_with_indices(x, kernel_size, stride, padding, dilation, ceil_mode, where).values;
}

Tensor avg_pool1d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  bool ceil_mode, bool count_include_pad, Location where) {
  return avg_pool(x, ceil_mode, false, count_include_pad, 0,
                  windows(1, "avg_pool1d", kernel_size, stride, padding, {}, where), where);
}
Tensor avg_pool2d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override,
                  Location where) {
  if (divisor_override && *divisor_override < 1)
    fail("avg_pool2d: divisor_override must be positive, found " + std::to_string(*divisor_override), where);
  return avg_pool(x, ceil_mode, false, count_include_pad, divisor_override.value_or(0),
                  windows(2, "avg_pool2d", kernel_size, stride, padding, {}, where), where);
}

Tensor adaptive_avg_pool1d(const Tensor& x, const Dims& output_size, Location where) {
  return adaptive_avg_pool(x, 1, "adaptive_avg_pool1d", output_size, where);
}
Tensor adaptive_avg_pool2d(const Tensor& x, const Dims& output_size, Location where) {
  return adaptive_avg_pool(x, 2, "adaptive_avg_pool2d", output_size, where);
}
ValuesIndices adaptive_max_pool1d_with_indices(const Tensor& x, const Dims& output_size, Location where) {
  return max_pool(x, 1, false, true, adaptive_windows(x, 1, "adaptive_max_pool1d", output_size, where),
                  where);
}
ValuesIndices adaptive_max_pool2d_with_indices(const Tensor& x, const Dims& output_size, Location where) {
  return max_pool(x, 2, false, true, adaptive_windows(x, 2, "adaptive_max_pool2d", output_size, where),
                  where);
}
Tensor adaptive_max_pool1d(const Tensor& x, const Dims& output_size, Location where) {
  return adaptive_max_pool1d_with_indices(x, output_size, where).values;
}
Tensor adaptive_max_pool2d(const Tensor& x, const Dims& output_size, Location where) {
  return adaptive_max_pool2d_with_indices(x, output_size, where).values;
}

Tensor interpolate(const Tensor& x, const InterpolateOptions& o, Location where) {
  const int rank = x.dim(where) - 2;
  if (rank < 1 || rank > 3)
    fail("interpolate: x must be (N, C) with one to three axes behind, found shape " + to_string(x.sizes()),
         where);
  if (o.size.empty() == o.scale_factor.empty()) fail("interpolate: give either size or scale_factor", where);
  const int mode = static_cast<int>(o.mode);
  if (mode != 0 && mode != rank)
    fail("interpolate: linear is for one spatial axis, bilinear for two, trilinear for three; found shape " +
             to_string(x.sizes()),
         where);
  double scales[3] = {1, 1, 1};
  Dims sizes;
  if (o.size.empty()) {
    const auto n = static_cast<int>(o.scale_factor.size());
    if (n != 1 && n != rank)
      fail("interpolate: scale_factor must be one number or " + std::to_string(rank) + ", found " +
               std::to_string(n),
           where);
    for (int i = 0; i < rank; ++i) {
      scales[i] = o.scale_factor[static_cast<size_t>(n == 1 ? 0 : i)];
      const double size = std::floor(static_cast<double>(x.size(2 + i)) * scales[i]);
      if (!(scales[i] > 0) || !(size < 0x1p62))
        fail("interpolate: scale_factor must be positive and finite, found " + std::to_string(scales[i]),
             where);
      sizes.push_back(static_cast<int64_t>(size));
    }
  } else {
    sizes = per_axis(o.size, rank, "interpolate", "size", where);
  }
  return CallBuilder(OpId::interpolate, where)
      .in(x)
      .word(mode != 0)
      .word(o.align_corners)
      .word(o.size.empty() && !o.recompute_scale_factor)
      .floating(scales[0])
      .floating(scales[1])
      .floating(scales[2])
      .list(sizes)
      .run();
}

}  // namespace tandem
