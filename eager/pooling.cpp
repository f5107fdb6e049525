// Pooling: words of the ops in ops/pooling.def.
#include "tandem/eager/pooling.h"

#include <cmath>

#include "tandem/eager/call.h"
#include "tandem/eager/per_axis.h"
#include "tandem/ops/windows.h"

namespace tandem {

using eager::CallBuilder;
using eager::per_axis;
using ops::OpId;

namespace {

/// Kernel, stride, padding and, if given, dilation of each axis.
Dims windows(int rank, const char* op, const Dims& kernel, const Dims& stride, const Dims& padding,
             const Dims& dilation, Location where) {
  const Dims k = per_axis(op, "kernel_size", kernel, rank, where);
  const Dims s = stride.empty() ? k : per_axis(op, "stride", stride, rank, where);
  const Dims p = per_axis(op, "padding", padding, rank, where);
  const Dims d = dilation.empty() ? dilation : per_axis(op, "dilation", dilation, rank, where);
  Dims list;
  for (int i = 0; i < rank; ++i) {
    list.push_back(k[i]), list.push_back(s[i]), list.push_back(p[i]);
    if (!d.empty()) list.push_back(d[i]);
  }
  return list;
}

Dims adaptive_windows(const Tensor& x, int rank, const char* op, const Dims& output_size, Location where) {
  Dims sizes = per_axis(op, "output_size", output_size, rank, where);
  for (int i = 0; i < rank; ++i)
    if (sizes[i] == -1) sizes[i] = x.size(i - rank, where);
  return sizes;
}

/// The largest elements, and where they are: in the plane if `positions`, else as only their gradient takes
/// it.
ValuesIndices max_pool(const Tensor& x, bool ceil, bool adaptive, bool positions, const Dims& list,
                       Location where) {
  const int rank = list.size() / (adaptive ? 1 : 4);
  if (x.dim(where) > rank + 2)  // the op takes blocks of channels
    fail("max_pool: x must have " + std::to_string(rank) + " axes behind (N, C) or (C), found shape " +
             to_string(x.sizes()),
         where);
  return CallBuilder(OpId::max_pool, where).in(x).word(ceil).word(adaptive).word(positions).list(list).run2();
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

/// x (..., D, H, W) as (N, C, D, H, W); an Error for another rank.
Tensor volumes(const Tensor& x, const char* op, Location where) {
  if (x.dim(where) != 4 && x.dim() != 5)
    fail(std::string(op) + ": x must have 3 axes behind (N, C) or (C), found shape " + to_string(x.sizes()),
         where);
  return x.dim() == 5 ? x : x.unsqueeze(0, where);
}

/// Windows of three axes: of the planes, and of what lies across them, whose planes' elements are one axis of
/// windows of one position.
struct VolumeWindows {
  Dims plane, across;
};
VolumeWindows volume_windows(const char* op, const Dims& kernel, const Dims& stride, const Dims& padding,
                             const Dims& dilation, Location where) {
  const auto part = [&](const Dims& given, const char* what, int first, int n) {
    const Dims own = per_axis(op, what, given, 3, where);
    return Dims(own.data() + first, n);
  };
  const auto parts = [&](int first, int n) {
    return windows(n, op, part(kernel, "kernel_size", first, n),
                   stride.empty() ? stride : part(stride, "stride", first, n),
                   part(padding, "padding", first, n),
                   dilation.empty() ? dilation : part(dilation, "dilation", first, n), where);
  };
  VolumeWindows w{parts(1, 2), parts(0, 1)};
  for (const int64_t word : {1, 1, 0}) w.across.push_back(word);
  if (!dilation.empty()) w.across.push_back(1);
  return w;
}

std::string type_text(const Tensor& x) { return ops::to_string({x.dtype(), x.device(), false, x.sizes()}); }

/// An Error that names the given shape if its axes have no such windows: each of the poolings knows its own
/// operand alone.
void check_volume(const Tensor& given, const char* op, bool ceil, const VolumeWindows& w, Location where) {
  const int rank = given.dim(), n = w.plane.size() / 2;
  for (int i = 0; i < 3; ++i) {
    ops::WindowAxis axis = ops::window_axis(i == 0 ? w.across.data() : w.plane.data() + (i - 1) * n, n,
                                            given.sizes()[rank - 3 + i]);
    if (const std::string why = ops::count_windows(axis, ceil); !why.empty())
      fail(std::string(op) + ": " + why + "; x is " + type_text(given), where);
  }
}

/// Max pooling over three axes: the largest of each plane's windows, then the largest of those. That is the
/// first of equal ones in row-major order, and of several NaN the last, as within a plane.
ValuesIndices max_pool_volume(const Tensor& given, const char* op, bool ceil, bool adaptive, bool positions,
                              const VolumeWindows& w, Location where) {
  const Tensor x = volumes(given, op, where);
  check_volume(given, op, ceil, w, where);
  const int64_t batch = x.size(0), channels = x.size(1), depth = x.size(2), plane = x.size(3) * x.size(4);
  const ValuesIndices flat = max_pool(x.reshape({batch * channels, depth, x.size(3), x.size(4)}, where), ceil,
                                      adaptive, positions, w.plane, where);
  const int64_t high = flat.values.size(2), wide = flat.values.size(3);
  const Dims rows = {batch * channels, depth, high * wide};
  Dims across = w.across;
  if (adaptive) across = {across[0], rows[2]};
  const ValuesIndices best =
      max_pool(flat.values.reshape(rows, where), ceil, adaptive, positions, across, where);
  Dims sizes = given.sizes();
  const int rank = sizes.rank();
  sizes[rank - 3] = best.values.size(1), sizes[rank - 2] = high, sizes[rank - 1] = wide;
  const Tensor values = best.values.reshape(sizes, where);
  if (!positions) return {values, {}};
  const Tensor start =
      arange(0, static_cast<double>(depth), 1, {.dtype = int64, .device = x.device()}, where);
  const Tensor above = mul(Operand(start.reshape({depth, 1}, where), where), Operand(plane, where));
  const Tensor whole = add(Operand(flat.indices.reshape(rows, where), where), Operand(above, where));
  const Tensor found = whole.flatten(-2, -1, where).gather(-1, best.indices.flatten(-2, -1, where), where);
  return {values, found.reshape(sizes, where)};
}

Tensor avg_pool_volume(const Tensor& given, const char* op, bool ceil, bool adaptive, bool count_include_pad,
                       int64_t divisor, const VolumeWindows& w, Location where) {
  const Tensor x = volumes(given, op, where);
  if (!is_floating(x.dtype()))
    fail(std::string(op) + ": needs a floating type, found " + type_text(given) + "; cast with to(float32)",
         where);
  check_volume(given, op, ceil, w, where);
  const Tensor planes = x.reshape({x.size(0) * x.size(1), x.size(2), x.size(3), x.size(4)}, where);
  const Tensor flat =
      avg_pool(planes, ceil, adaptive, count_include_pad, divisor == 0 ? 0 : 1, w.plane, where);
  const int64_t high = flat.size(2), wide = flat.size(3);
  Dims across = w.across;
  if (adaptive) across = {across[0], high * wide};
  const Tensor out =
      avg_pool(flat.flatten(-2, -1, where), ceil, adaptive, count_include_pad, divisor, across, where);
  Dims sizes = given.sizes();
  const int rank = sizes.rank();
  sizes[rank - 3] = out.size(1), sizes[rank - 2] = high, sizes[rank - 1] = wide;
  return out.reshape(sizes, where);
}

VolumeWindows adaptive_volume(const Tensor& x, const char* op, const Dims& output_size, Location where) {
  volumes(x, op, where);
  const Dims n = adaptive_windows(x, 3, op, output_size, where);
  return {{n[1], n[2]}, {n[0]}};
}

Tensor max_unpool(const char* op, int rank, const Tensor& x, const Tensor& indices, const Dims& kernel_size,
                  const Dims& stride, const Dims& padding, const Dims& output_size, Location where) {
  Dims sizes = x.sizes(where);
  if (sizes.rank() != rank + 1 && sizes.rank() != rank + 2)
    fail(std::string(op) + ": x must have " + std::to_string(rank) +
             " axes behind (N, C) or (C), found shape " + to_string(sizes),
         where);
  if (indices.sizes(where) != sizes)
    fail(std::string(op) + ": indices must have x's shape " + to_string(sizes) + ", found " +
             to_string(indices.sizes()),
         where);
  const int skipped = sizes.rank() - rank;
  const Dims k = per_axis(op, "kernel_size", kernel_size, rank, where);
  const Dims s = stride.empty() ? k : per_axis(op, "stride", stride, rank, where);
  const Dims p = per_axis(op, "padding", padding, rank, where);
  int64_t places = 1;
  for (int i = 0; i < rank; ++i) {
    int64_t& size = sizes[skipped + i];
    size = (size - 1) * s[i] - 2 * p[i] + k[i];
    if (output_size.size() == rank) size = output_size[i];
    if (output_size.size() == sizes.rank()) size = output_size[skipped + i];
    if (size < 1 ||
        (!output_size.empty() && output_size.size() != rank && output_size.size() != sizes.rank()))
      fail(std::string(op) + ": no result of sizes " + to_string(output_size) + " from x " +
               to_string(x.sizes()),
           where);
    places = checked_mul(places, size, op, where);
  }
  Dims flat = sizes;
  flat.resize(skipped + 1);
  flat[skipped] = places;
  const Tensor none = zeros(flat, {.dtype = x.dtype(), .device = x.device()}, where);
  const Tensor at = rank == 1 ? indices : indices.flatten(-rank, -1, where);
  const Tensor values = rank == 1 ? x : x.flatten(-rank, -1, where);
  return none.scatter(-1, at, values, where).reshape(sizes, where);
}

Tensor lp_pool(const Tensor& means, double norm_type, const Dims& kernel_size, int rank, const char* op,
               Location where) {
  double count = 1;
  for (const int64_t k : per_axis(op, "kernel_size", kernel_size, rank, where))
    count *= static_cast<double>(k);
  const Tensor zero = eq(Operand(means, where), Operand(0, where));
  const Tensor safe = tandem::where(Operand(zero, where), Operand(1.0, where), Operand(means, where));
  const Tensor sums = mul(Operand(safe, where), Operand(count, where));
  const Tensor roots = pow(Operand(sums, where), Operand(1 / norm_type, where));
  return tandem::where(Operand(zero, where), Operand(0.0, where), Operand(roots, where));
}

}  // namespace

ValuesIndices max_pool3d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride,
                                      const Dims& padding, const Dims& dilation, bool ceil_mode,
                                      Location where) {
  return max_pool_volume(x, "max_pool3d", ceil_mode, false, true,
                         volume_windows("max_pool3d", kernel_size, stride, padding, dilation, where), where);
}
Tensor max_pool3d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  const Dims& dilation, bool ceil_mode, Location where) {
  return max_pool_volume(x, "max_pool3d", ceil_mode, false, false,
                         volume_windows("max_pool3d", kernel_size, stride, padding, dilation, where), where)
      .values;
}
Tensor avg_pool3d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  bool ceil_mode, bool count_include_pad, std::optional<int64_t> divisor_override,
                  Location where) {
  if (divisor_override && *divisor_override < 1)
    fail("avg_pool3d: divisor_override must be positive, found " + std::to_string(*divisor_override), where);
  return avg_pool_volume(x, "avg_pool3d", ceil_mode, false, count_include_pad, divisor_override.value_or(0),
                         volume_windows("avg_pool3d", kernel_size, stride, padding, {}, where), where);
}
Tensor adaptive_avg_pool3d(const Tensor& x, const Dims& output_size, Location where) {
  const VolumeWindows w = adaptive_volume(x, "adaptive_avg_pool3d", output_size, where);
  return avg_pool_volume(x, "adaptive_avg_pool3d", false, true, false, 0, w, where);
}
ValuesIndices adaptive_max_pool3d_with_indices(const Tensor& x, const Dims& output_size, Location where) {
  const VolumeWindows w = adaptive_volume(x, "adaptive_max_pool3d", output_size, where);
  return max_pool_volume(x, "adaptive_max_pool3d", false, true, true, w, where);
}
Tensor adaptive_max_pool3d(const Tensor& x, const Dims& output_size, Location where) {
  const VolumeWindows w = adaptive_volume(x, "adaptive_max_pool3d", output_size, where);
  return max_pool_volume(x, "adaptive_max_pool3d", false, true, false, w, where).values;
}

#define TANDEM_MAX_UNPOOL(name, rank)                                                              \
  Tensor name(const Tensor& x, const Tensor& indices, const Dims& kernel_size, const Dims& stride, \
              const Dims& padding, const Dims& output_size, Location where) {                      \
    return max_unpool(#name, rank, x, indices, kernel_size, stride, padding, output_size, where);  \
  }
TANDEM_MAX_UNPOOL(max_unpool1d, 1)
TANDEM_MAX_UNPOOL(max_unpool2d, 2)
TANDEM_MAX_UNPOOL(max_unpool3d, 3)
#undef TANDEM_MAX_UNPOOL

Tensor lp_pool1d(const Tensor& x, double norm_type, const Dims& kernel_size, const Dims& stride,
                 bool ceil_mode, Location where) {
  const Tensor powers = pow(Operand(x, where), Operand(norm_type, where));
  return lp_pool(avg_pool1d(powers, kernel_size, stride, 0, ceil_mode, true, where), norm_type, kernel_size,
                 1, "lp_pool1d", where);
}
Tensor lp_pool2d(const Tensor& x, double norm_type, const Dims& kernel_size, const Dims& stride,
                 bool ceil_mode, Location where) {
  const Tensor powers = pow(Operand(x, where), Operand(norm_type, where));
  return lp_pool(avg_pool2d(powers, kernel_size, stride, 0, ceil_mode, true, {}, where), norm_type,
                 kernel_size, 2, "lp_pool2d", where);
}

ValuesIndices max_pool1d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride,
                                      const Dims& padding, const Dims& dilation, bool ceil_mode,
                                      Location where) {
  return max_pool(x, ceil_mode, false, true,
                  windows(1, "max_pool1d", kernel_size, stride, padding, dilation, where), where);
}
ValuesIndices max_pool2d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride,
                                      const Dims& padding, const Dims& dilation, bool ceil_mode,
                                      Location where) {
  return max_pool(x, ceil_mode, false, true,
                  windows(2, "max_pool2d", kernel_size, stride, padding, dilation, where), where);
}
Tensor max_pool1d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  const Dims& dilation, bool ceil_mode, Location where) {
  return max_pool(x, ceil_mode, false, false,
                  windows(1, "max_pool1d", kernel_size, stride, padding, dilation, where), where)
      .values;
}
Tensor max_pool2d(const Tensor& x, const Dims& kernel_size, const Dims& stride, const Dims& padding,
                  const Dims& dilation, bool ceil_mode, Location where) {
  return max_pool(x, ceil_mode, false, false,
                  windows(2, "max_pool2d", kernel_size, stride, padding, dilation, where), where)
      .values;
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
  return max_pool(x, false, true, true, adaptive_windows(x, 1, "adaptive_max_pool1d", output_size, where),
                  where);
}
ValuesIndices adaptive_max_pool2d_with_indices(const Tensor& x, const Dims& output_size, Location where) {
  return max_pool(x, false, true, true, adaptive_windows(x, 2, "adaptive_max_pool2d", output_size, where),
                  where);
}
Tensor adaptive_max_pool1d(const Tensor& x, const Dims& output_size, Location where) {
  return max_pool(x, false, true, false, adaptive_windows(x, 1, "adaptive_max_pool1d", output_size, where),
                  where)
      .values;
}
Tensor adaptive_max_pool2d(const Tensor& x, const Dims& output_size, Location where) {
  return max_pool(x, false, true, false, adaptive_windows(x, 2, "adaptive_max_pool2d", output_size, where),
                  where)
      .values;
}

Tensor interpolate(const Tensor& x, const InterpolateOptions& o, Location where) {
  const int rank = x.dim(where) - 2;
  if (rank < 1 || rank > 3)
    fail("interpolate: x must be (N, C) with one to three axes behind, found shape " + to_string(x.sizes()),
         where);
  if (o.size.empty() == o.scale_factor.empty()) fail("interpolate: give either size or scale_factor", where);
  const bool cubic = o.mode == Interpolation::bicubic;
  const int mode = cubic ? 2 : static_cast<int>(o.mode);
  if (mode != 0 && mode != rank)
    fail(
        "interpolate: linear is for one spatial axis, bilinear and bicubic for two, trilinear for three; "
        "found shape " +
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
    sizes = per_axis("interpolate", "size", o.size, rank, where);
  }
  bool same = true;
  for (int i = 0; i < rank; ++i) same = same && sizes[i] == x.size(2 + i);
  // Where no size changes, linear modes take the elements as they are, whatever the factor.
  const bool linear = mode != 0 && !cubic, by_factor = o.size.empty() && !o.recompute_scale_factor;
  return CallBuilder(OpId::interpolate, where)
      .in(x)
      .word(linear)
      .word(cubic)
      .word(o.align_corners)
      .word(by_factor && !(linear && same))
      .floating(scales[0])
      .floating(scales[1])
      .floating(scales[2])
      .list(sizes)
      .run();
}

}  // namespace tandem
