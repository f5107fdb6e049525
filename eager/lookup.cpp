// Access by index tensors, and what reads values to know its size.
#include <algorithm>
#include <cmath>

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

Tensor take_along_dim(const Tensor& t, const Tensor& index, std::optional<int64_t> axis, Location where) {
  if (!axis) return t.reshape({-1}, where).gather(0, index.reshape({-1}, where), where);
  const int at = normalize_axis(*axis, t.dim(where), "take_along_dim", where);
  Dims source = t.sizes(), wanted = index.sizes(where);
  if (source.rank() != wanted.rank())
    fail("take_along_dim: the index " + to_string(wanted) + " must have as many axes as the tensor " +
             to_string(source),
         where);
  const int64_t n = source[at], m = wanted[at];
  source[at] = wanted[at] = 1;
  Dims both = broadcast(source, wanted, "take_along_dim", where), of_index = both;
  both[at] = n, of_index[at] = m;
  return t.expand(both, where).gather(at, index.expand(of_index, where), where);
}

Tensor isin(const Tensor& elements, const Tensor& test, Location where) {
  const Tensor each = elements.unsqueeze(-1, where), any = test.reshape({test.numel(where)}, where);
  return eq(Operand(each, where), Operand(any, where)).any({-1}, false, where);
}

Tensor bincount(const Tensor& t, const Tensor& weights, int64_t minlength, Location where) {
  if (t.dim(where) != 1 || is_floating(t.dtype()) || t.dtype() == bool_)
    fail(std::string("bincount: a vector of integers is needed, found ") + name(t.dtype()) + " " +
             to_string(t.sizes()),
         where);
  if (minlength < 0)
    fail("bincount: minlength must not be negative, found " + std::to_string(minlength), where);
  int64_t n = minlength;
  if (t.numel() > 0) {
    const MinMax range = t.aminmax({}, false, where);
    if (range.min.item<int64_t>(where) < 0)
      fail("bincount: a negative integer: " + std::to_string(range.min.item<int64_t>()), where);
    n = std::max(n, range.max.item<int64_t>(where) + 1);
  }
  Tensor each = weights;
  if (!each.defined()) each = ones(t.sizes(), {.dtype = int64, .device = t.device()}, where);
  if (each.sizes() != t.sizes())
    fail("bincount: weights must be " + to_string(t.sizes()) + ", found " + to_string(each.sizes()), where);
  return zeros({n}, {.dtype = each.dtype(), .device = t.device()}, where).index_add(0, t, each, where);
}

Tensor histc(const Tensor& t, int64_t bins, double min, double max, Location where) {
  if (!is_floating(t.dtype(where)))
    fail(std::string("histc: a floating tensor is needed, found ") + name(t.dtype()), where);
  if (bins < 1) fail("histc: at least one bin is needed, found " + std::to_string(bins), where);
  if (!(min <= max) || !std::isfinite(min) || !std::isfinite(max))
    fail("histc: finite bounds are needed, min at most max, found " + std::to_string(min) + " and " +
             std::to_string(max),
         where);
  const NoGrad no_grad;
  const TensorOptions like{.dtype = t.dtype(), .device = t.device()};
  const Tensor all = t.reshape({t.numel()}, where);
  Tensor low = full({}, min, like, where), high = full({}, max, like, where);
  if (min == max && t.numel() > 0) low = all.amin({}, false, where), high = all.amax({}, false, where);
  const Tensor flat = eq(Operand(low, where), Operand(high, where));  // one number: a range of 2 around it
  const Tensor margin = flat.to(t.dtype(), where);
  low = low.sub(Operand(margin, where)), high = high.add(Operand(margin, where));
  const Tensor part = all.sub(Operand(low, where)).mul(Operand(bins, where));
  const Tensor bin = part.div(Operand(high.sub(Operand(low, where)), where)).floor(where);
  const Tensor inside = logical_and(Operand(ge(Operand(all, where), Operand(low, where)), where),
                                    Operand(le(Operand(all, where), Operand(high, where)), where));
  const Tensor counted = bin.masked_fill(logical_not(inside, where), Operand(0.0, where));
  const Tensor index = counted.clamp(0, bins - 1, where).to(int64, where);
  return zeros({bins}, like, where).index_add(0, index, inside.to(t.dtype(), where), where);
}

Tensor one_hot(const Tensor& index, std::optional<int64_t> classes, Location where) {
  if (!classes) classes = index.numel(where) == 0 ? 0 : index.amax({}, false, where).item<int64_t>(where) + 1;
  return CallBuilder(OpId::one_hot, where).in(index).word(*classes).run();
}

}  // namespace tandem
