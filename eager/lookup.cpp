// Access by index tensors, and what reads values to know its size.
#include <algorithm>

#include "tandem/eager/arrange.h"
#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

Tensor Tensor::index_select(int64_t axis, const Tensor& index, Location where) const {
  return CallBuilder(OpId::index_select, where).in(*this).in(index).word(axis).run();
}
Tensor Tensor::gather(int64_t axis, const Tensor& index, Location where) const {
  return CallBuilder(OpId::gather, where).in(*this).in(index).word(axis).run();
}

#define TANDEM_WITH_SOURCE(name)                                                                      \
  Tensor Tensor::name(int64_t axis, const Tensor& index, const Tensor& src, Location where) const {   \
    return CallBuilder(OpId::name, where).in(*this).in(index).in(src).word(axis).run();               \
  }                                                                                                   \
  const Tensor& Tensor::name##_(int64_t axis, const Tensor& index, const Tensor& src, Location where) \
      const {                                                                                         \
    CallBuilder(OpId::name, where).in(*this).in(index).in(src).word(axis).run_in_place();             \
    return *this;                                                                                     \
  }
TANDEM_WITH_SOURCE(scatter)
TANDEM_WITH_SOURCE(scatter_add)
TANDEM_WITH_SOURCE(index_add)
TANDEM_WITH_SOURCE(index_copy)
#undef TANDEM_WITH_SOURCE

namespace {

CallBuilder index_fill_call(const Tensor& t, int64_t axis, const Tensor& index, double value,
                            Location where) {
  return CallBuilder(OpId::index_fill, where).in(t).in(index).word(axis).floating(value);
}

/// Where index_fill puts its number; undefined if a double holds that number.
Tensor filled_by_mask(const Tensor& t, int64_t axis, const Tensor& index, AnyNumber value, Location where) {
  if (!value.beyond_double() || t.dtype(where) != int64) return {};
  const Tensor none = zeros(t.sizes(), {.dtype = bool_, .device = t.device()}, where);
  return index_fill_call(none, axis, index, 1, where).run();
}

}  // namespace

Tensor Tensor::index_fill(int64_t axis, const Tensor& index, AnyNumber value, Location where) const {
  const Tensor mask = filled_by_mask(*this, axis, index, value, where);
  if (mask.defined()) return masked_fill(mask, Operand(value, where));
  return index_fill_call(*this, axis, index, value.to_double(), where).run();
}
const Tensor& Tensor::index_fill_(int64_t axis, const Tensor& index, AnyNumber value, Location where) const {
  const Tensor mask = filled_by_mask(*this, axis, index, value, where);
  if (mask.defined()) return masked_fill_(mask, Operand(value, where));
  index_fill_call(*this, axis, index, value.to_double(), where).run_in_place();
  return *this;
}

namespace {

/// Positions in row-major order of what is not 0; a read.
std::vector<int64_t> hits(const Tensor& t, Location where) {
  const std::vector<uint8_t> flags = t.to(bool_, where).to_vector<uint8_t>(where);
  std::vector<int64_t> at;
  for (size_t i = 0; i < flags.size(); ++i)
    if (flags[i]) at.push_back(static_cast<int64_t>(i));
  return at;
}

Tensor on_device(const std::vector<int64_t>& values, const Dims& sizes, const Tensor& like, Location where) {
  return tensor(std::span<const int64_t>(values), sizes, {.dtype = int64, .device = like.device(where)},
                where);
}

}  // namespace

Tensor masked_select(const Tensor& t, const Tensor& mask, Location where) {
  if (mask.dtype(where) != bool_)
    fail(std::string("masked_select: the mask must be bool, found ") + name(mask.dtype()), where);
  const Dims sizes = broadcast(t.sizes(where), mask.sizes(), "masked_select", where);
  const std::vector<int64_t> at = hits(mask.expand(sizes, where), where);
  const Tensor index = on_device(at, {static_cast<int64_t>(at.size())}, t, where);
  return t.expand(sizes, where).reshape({tandem::numel(sizes)}, where).index_select(0, index, where);
}

Tensor nonzero(const Tensor& t, Location where) {
  const Dims& sizes = t.sizes(where);
  const std::vector<int64_t> at = hits(t, where);
  const auto rank = static_cast<size_t>(sizes.rank());
  std::vector<int64_t> positions(at.size() * rank);
  for (size_t i = 0; i < at.size(); ++i) {
    int64_t rest = at[i];
    for (size_t d = rank; d-- > 0; rest /= sizes[static_cast<int>(d)])
      positions[i * rank + d] = rest % sizes[static_cast<int>(d)];
  }
  return on_device(positions, {static_cast<int64_t>(at.size()), sizes.rank()}, t, where);
}

Tensor unique(const Tensor& t, Location where) {
  const Tensor sorted = t.reshape({t.numel(where)}, where).sort(0, false, where).values;
  const int64_t n = sorted.numel();
  if (n < 2) return sorted;
  const Tensor later = sorted.narrow(0, 1, n - 1, where), earlier = sorted.narrow(0, 0, n - 1, where);
  const Tensor fresh = ne(Operand(later, where), Operand(earlier, where));
  const Tensor first = ones({1}, {.dtype = bool_, .device = t.device()}, where);
  return masked_select(sorted, cat({first, fresh}, 0, where), where);
}

Tensor searchsorted(const Tensor& sorted, const Tensor& values, bool right, Location where) {
  const int rank = sorted.dim(where);
  if (rank == 0) fail("searchsorted: the sorted numbers need an axis", where);
  if (rank > 1) {
    Dims a = sorted.sizes(), b = values.sizes(where);
    const bool fits = a.rank() == b.rank();
    if (fits) a[rank - 1] = b[rank - 1] = 0;
    if (!fits || a != b)
      fail("searchsorted: sorted numbers " + to_string(sorted.sizes()) + " and values " +
               to_string(values.sizes()) + " must agree but for the last axis",
           where);
  }
  const Tensor rows = rank > 1 ? sorted.unsqueeze(-2, where) : sorted, each = values.unsqueeze(-1, where);
  const Tensor below =
      right ? le(Operand(rows, where), Operand(each, where)) : lt(Operand(rows, where), Operand(each, where));
  return below.sum({-1}, false, where);
}
Tensor bucketize(const Tensor& values, const Tensor& boundaries, bool right, Location where) {
  if (boundaries.dim(where) != 1)
    fail("bucketize: the boundaries must be a vector, found shape " + to_string(boundaries.sizes()), where);
  return searchsorted(boundaries, values, right, where);
}

Tensor one_hot(const Tensor& index, std::optional<int64_t> classes, Location where) {
  if (!classes) classes = index.numel(where) == 0 ? 0 : index.amax({}, false, where).item<int64_t>(where) + 1;
  return CallBuilder(OpId::one_hot, where).in(index).word(*classes).run();
}

}  // namespace tandem
