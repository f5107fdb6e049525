#include "tandem/eager/nn/convolution.h"

#include <cmath>

#include "tandem/eager/nn/init.h"
#include "tandem/eager/per_axis.h"

namespace tandem::nn {

using eager::per_axis;

namespace {

int64_t checked_groups(const char* name, int64_t in, int64_t out, int64_t groups, Location where) {
  if (groups < 1)
    fail(std::string(name) + ": groups must be at least 1, found " + std::to_string(groups), where);
  if (in < 0 || out < 0 || in % groups != 0 || out % groups != 0)
    fail(std::string(name) + ": " + std::to_string(in) + " input and " + std::to_string(out) +
             " output channels do not divide into " + std::to_string(groups) + " groups",
         where);
  return groups;
}

Tensor drawn(const Dims& sizes, double bound, TensorOptions options, Location where) {
  options.requires_grad = false;
  Tensor t = empty(sizes, options, where);
  init::uniform_(t, -bound, bound, nullptr, where);
  return t;
}

/// (to, from / groups, *kernel), "to" and "from" being the other way round where the convolution is
/// transposed.
Dims weight_sizes(bool transposed, int64_t in, int64_t out, int64_t groups, const Dims& kernel) {
  Dims d{transposed ? in : out, (transposed ? out : in) / groups};
  for (const int64_t k : kernel) d.push_back(k);
  return d;
}

/// 1 / sqrt(fan in), which is kaiming_uniform_ with a = sqrt(5).
double bound(const Dims& weight) {
  double fan = static_cast<double>(weight[1]);
  for (int i = 2; i < weight.rank(); ++i) fan *= static_cast<double>(weight[i]);
  return fan > 0 ? 1 / std::sqrt(fan) : 0;
}

}  // namespace

Convolution::Convolution(const char* name, const Sizes& s, const TensorOptions& options, Location where)
    : in_channels(s.in_channels),
      out_channels(s.out_channels),
      groups(checked_groups(name, s.in_channels, s.out_channels, s.groups, made_at(where))),
      kernel_size(per_axis(name, "kernel_size", s.kernel_size, s.axes, made_at(where), 1)),
      stride(per_axis(name, "stride", s.stride, s.axes, made_at(where), 1)),
      dilation(per_axis(name, "dilation", s.dilation, s.axes, made_at(where), 1)),
      weight([&] {
        const Dims sizes = weight_sizes(s.transposed, in_channels, out_channels, groups, kernel_size);
        return parameter("weight", drawn(sizes, bound(sizes), options, made_at(where)), made_at(where));
      }()),
      bias(s.with_bias
               ? parameter("bias", drawn({out_channels}, bound(weight.sizes()), options, made_at(where)),
                           made_at(where))
               : Tensor()) {}

Dims Convolution::sides(const char* name, const ConvPadding& padding, Location where) const {
  const int axes = kernel_size.rank();
  Dims front = Dims::filled(axes, 0), behind = front;
  if (padding.word == "same") {
    for (int i = 0; i < axes; ++i) {
      if (stride[i] != 1)
        fail(std::string(name) + ": padding \"same\" needs a stride of 1, found " + to_string(stride), where);
      const int64_t all = dilation[i] * (kernel_size[i] - 1);
      front[i] = all / 2, behind[i] = all - all / 2;
    }
  } else if (padding.word.empty()) {
    front = behind = per_axis(name, "padding", padding.sizes, axes, where, 0);
  } else if (padding.word != "valid") {
    fail(std::string(name) + ": padding is numbers, \"valid\" or \"same\", found \"" + padding.word + '"',
         where);
  }
  Dims out;
  for (int i = axes - 1; i >= 0; --i) out.push_back(front[i]), out.push_back(behind[i]);
  return out;
}

}  // namespace tandem::nn
