// Views and indexing.
#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

Tensor Tensor::view(const Dims& sizes, Location where) const {
  const core::TensorImpl& t = checked(where);
  if (!eager::viewable(t, sizes))
    fail("view: strides " + to_string(t.strides) + " of shape " + to_string(t.sizes) + " cannot show " +
             to_string(sizes) + " without a copy; reshape() makes one",
         where);
  return CallBuilder(OpId::reshape, where).in(*this).list(sizes).run();
}

Tensor Tensor::reshape(const Dims& sizes, Location where) const {
  if (!eager::viewable(checked(where), sizes)) return clone(where).reshape(sizes, where);
  return CallBuilder(OpId::reshape, where).in(*this).list(sizes).run();
}

Tensor Tensor::flatten(int64_t start_axis, int64_t end_axis, Location where) const {
  const Dims& d = sizes(where);
  const int start = normalize_axis(start_axis, d.rank(), "flatten", where),
            end = normalize_axis(end_axis, d.rank(), "flatten", where);
  if (start > end)
    fail("flatten: the first axis " + std::to_string(start_axis) + " lies behind the last, " +
             std::to_string(end_axis),
         where);
  if (d.rank() == 0) return reshape({1}, where);
  Dims out;
  int64_t joined = 1;
  for (int i = 0; i < d.rank(); ++i) {
    if (i < start || i > end)
      out.push_back(d[i]);
    else
      joined = checked_mul(joined, d[i], "flatten", where);
    if (i == end) out.push_back(joined);
  }
  return reshape(out, where);
}

Tensor Tensor::permute(const Dims& axes, Location where) const {
  return CallBuilder(OpId::permute, where).in(*this).list(axes).run();
}

Tensor Tensor::transpose(int64_t axis0, int64_t axis1, Location where) const {
  const int rank = dim(where);
  const int a = normalize_axis(axis0, rank, "transpose", where),
            b = normalize_axis(axis1, rank, "transpose", where);
  Dims axes = Dims::filled(rank, 0);
  for (int i = 0; i < rank; ++i) axes[i] = i;
  if (rank > 0) std::swap(axes[a], axes[b]);
  return permute(axes, where);
}

Tensor Tensor::t(Location where) const {
  if (dim(where) < 2) return *this;
  if (dim() > 2) fail("t: a matrix is needed, or a vector, found shape " + to_string(sizes()), where);
  return permute({1, 0}, where);
}

Tensor Tensor::expand(const Dims& sizes, Location where) const {
  return CallBuilder(OpId::expand, where).in(*this).list(sizes).run();
}
Tensor Tensor::unsqueeze(int64_t axis, Location where) const {
  return CallBuilder(OpId::unsqueeze, where).in(*this).word(axis).run();
}
Tensor Tensor::squeeze(std::optional<int64_t> axis, Location where) const {
  return CallBuilder(OpId::squeeze, where).in(*this).list(axis ? Dims{*axis} : Dims{}).run();
}
Tensor Tensor::slice(int64_t axis, int64_t start, int64_t stop, int64_t step, Location where) const {
  return CallBuilder(OpId::slice, where).in(*this).word(axis).word(start).word(stop).word(step).run();
}
Tensor Tensor::narrow(int64_t axis, int64_t start, int64_t length, Location where) const {
  const int64_t n = size(axis, where);
  const int64_t first = start < 0 ? start + n : start;
  if (first < 0 || length < 0 || first > n || length > n - first)
    fail("narrow: positions " + std::to_string(start) + " to " + std::to_string(start) + " + " +
             std::to_string(length) + " leave axis " + std::to_string(axis) + " of size " + std::to_string(n),
         where);
  return slice(axis, first, first + length, 1, where);
}
Tensor Tensor::select(int64_t axis, int64_t index, Location where) const {
  return CallBuilder(OpId::select, where).in(*this).word(axis).word(index).run();
}

Tensor Tensor::detach(Location where) const {
  const NoGrad no_grad;
  Tensor out = CallBuilder(OpId::reshape, where).in(*this).list(sizes(where)).run();
  out.impl()->set(core::kBlindView, false);  // a history of its own may begin here
  return out;
}

namespace eager {

// Sizes that the tensor cannot have are for the op to report.
bool viewable_by_strides(const TensorImpl& t, const Dims& sizes) {
  Dims wanted = sizes;
  int64_t* open = nullptr;
  int64_t product = 1;
  for (int64_t& size : wanted) {
    if (size == -1 && !open)
      open = &size;
    else if (size <= 0 || __builtin_mul_overflow(product, size, &product))
      return true;
  }
  if (open) *open = t.numel / product;
  if (product * (open ? *open : 1) != t.numel) return true;
  Dims strides;
  return reshape_strides(t.sizes, t.strides, wanted, strides);
}

}  // namespace eager
}  // namespace tandem
