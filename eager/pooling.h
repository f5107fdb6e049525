// Pooling and interpolation of x (N, C, ...), or (C, ...) for the poolings. Names, argument order and
// defaults are PyTorch's; a size is one number for all axes or one per axis. Included by functions.h.
// Stateless; any thread.
#pragma once

#include <vector>

#include "tandem/eager/arrange.h"

namespace tandem {

/// The largest element of each window of kernel_size positions, `dilation` apart, NaN being larger than
/// numbers; windows begin `stride` apart (kernel_size unless said), the first at -padding. With ceil_mode a
/// last window may reach beyond the padding. Errors: padding above half of a window, no window that fits.
Tensor max_pool1d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  const Dims& dilation = 1, bool ceil_mode = false, Location where = Location::here());
Tensor max_pool2d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  const Dims& dilation = 1, bool ceil_mode = false, Location where = Location::here());
Tensor max_pool3d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  const Dims& dilation = 1, bool ceil_mode = false, Location where = Location::here());
/// The same, and where the elements are: positions in the flattened spatial axes, int64; of equal ones the
/// first.
ValuesIndices max_pool1d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride = {},
                                      const Dims& padding = 0, const Dims& dilation = 1,
                                      bool ceil_mode = false, Location where = Location::here());
ValuesIndices max_pool2d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride = {},
                                      const Dims& padding = 0, const Dims& dilation = 1,
                                      bool ceil_mode = false, Location where = Location::here());
ValuesIndices max_pool3d_with_indices(const Tensor& x, const Dims& kernel_size, const Dims& stride = {},
                                      const Dims& padding = 0, const Dims& dilation = 1,
                                      bool ceil_mode = false, Location where = Location::here());
/// x put back to where max_pool<n>d_with_indices found it, among zeros; of several at one place any.
/// output_size (of the spatial axes, or of all) unless it follows from the windows: (n - 1) * stride - 2 *
/// padding + kernel_size.
Tensor max_unpool1d(const Tensor& x, const Tensor& indices, const Dims& kernel_size, const Dims& stride = {},
                    const Dims& padding = 0, const Dims& output_size = {}, Location where = Location::here());
Tensor max_unpool2d(const Tensor& x, const Tensor& indices, const Dims& kernel_size, const Dims& stride = {},
                    const Dims& padding = 0, const Dims& output_size = {}, Location where = Location::here());
Tensor max_unpool3d(const Tensor& x, const Tensor& indices, const Dims& kernel_size, const Dims& stride = {},
                    const Dims& padding = 0, const Dims& output_size = {}, Location where = Location::here());
/// The mean of each window. Positions of the padding are zeros, which count unless count_include_pad is off;
/// divisor_override, if given, is what the sums are divided by.
Tensor avg_pool1d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  bool ceil_mode = false, bool count_include_pad = true, Location where = Location::here());
Tensor avg_pool2d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  bool ceil_mode = false, bool count_include_pad = true,
                  std::optional<int64_t> divisor_override = {}, Location where = Location::here());
/// Over three axes by two poolings, of the planes and then across them.
Tensor avg_pool3d(const Tensor& x, const Dims& kernel_size, const Dims& stride = {}, const Dims& padding = 0,
                  bool ceil_mode = false, bool count_include_pad = true,
                  std::optional<int64_t> divisor_override = {}, Location where = Location::here());
/// The p-th root of the sum of x^p over each window (norm_type p); 0 where the sum is 0, as its gradient. As
/// in PyTorch x keeps its sign: odd powers of negative numbers may sum up to NaN.
Tensor lp_pool1d(const Tensor& x, double norm_type, const Dims& kernel_size, const Dims& stride = {},
                 bool ceil_mode = false, Location where = Location::here());
Tensor lp_pool2d(const Tensor& x, double norm_type, const Dims& kernel_size, const Dims& stride = {},
                 bool ceil_mode = false, Location where = Location::here());
/// So many windows an axis, of positions [o * n / windows, (o + 1) * n / windows) widened to whole ones; -1:
/// as many as positions.
Tensor adaptive_avg_pool1d(const Tensor& x, const Dims& output_size, Location where = Location::here());
Tensor adaptive_avg_pool2d(const Tensor& x, const Dims& output_size, Location where = Location::here());
Tensor adaptive_avg_pool3d(const Tensor& x, const Dims& output_size, Location where = Location::here());
Tensor adaptive_max_pool1d(const Tensor& x, const Dims& output_size, Location where = Location::here());
Tensor adaptive_max_pool2d(const Tensor& x, const Dims& output_size, Location where = Location::here());
Tensor adaptive_max_pool3d(const Tensor& x, const Dims& output_size, Location where = Location::here());
ValuesIndices adaptive_max_pool1d_with_indices(const Tensor& x, const Dims& output_size,
                                               Location where = Location::here());
ValuesIndices adaptive_max_pool2d_with_indices(const Tensor& x, const Dims& output_size,
                                               Location where = Location::here());
ValuesIndices adaptive_max_pool3d_with_indices(const Tensor& x, const Dims& output_size,
                                               Location where = Location::here());

/// Linear interpolation is named after its number of axes: linear 1, bilinear 2, trilinear 3; bicubic
/// is for two.
enum class Interpolation : uint8_t { nearest, linear, bilinear, trilinear, bicubic };
struct InterpolateOptions {
  Dims size = {};                         // of the spatial axes; or
  std::vector<double> scale_factor = {};  // one for all of them or one each
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;  // the outermost positions meet; else the outer edges of the elements do
  bool recompute_scale_factor = false;  // positions follow from the sizes, not from scale_factor
};
/// x (N, C, ...) with its one to three spatial axes at other sizes. Errors: neither or both of size and
/// scale_factor, a mode for another number of axes, align_corners with nearest.
Tensor interpolate(const Tensor& x, const InterpolateOptions& options, Location where = Location::here());

}  // namespace tandem
