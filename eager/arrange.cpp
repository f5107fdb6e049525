// Shapes, parts, look-ups and order: methods and functions that are an op or a few lines over ops.
#include "tandem/eager/arrange.h"

#include <algorithm>
#include <cmath>

#include "tandem/eager/call.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

// Shapes.
Tensor Tensor::unflatten(int64_t axis, const Dims& sizes, Location where) const {
  Dims wanted = this->sizes(where);
  const int at = normalize_axis(axis, wanted.rank(), "unflatten", where);
  if (wanted.empty()) fail("unflatten: a tensor of rank 0 has no axis", where);
  const int64_t n = wanted[at];
  int64_t known = 1;
  int open = -1;
  for (int i = 0; i < sizes.rank(); ++i) {
    if (sizes[i] == -1 && open < 0)
      open = i;
    else if (sizes[i] < 0)
      fail("unflatten: sizes may hold one -1, found " + to_string(sizes), where);
    else
      known = checked_mul(known, sizes[i], "unflatten: size", where);
  }
  if (open >= 0 ? known == 0 || n % known != 0 : known != n)
    fail("unflatten: sizes " + to_string(sizes) + " do not make up axis " + std::to_string(at) + " of " +
             to_string(wanted),
         where);
  wanted.erase(at);
  for (int i = 0; i < sizes.rank(); ++i) wanted.insert(at + i, i == open ? n / known : sizes[i]);
  return reshape(wanted, where);
}

Tensor Tensor::movedim(int64_t from, int64_t to, Location where) const {
  const int rank = dim(where);
  const int a = normalize_axis(from, rank, "movedim", where), b = normalize_axis(to, rank, "movedim", where);
  Dims axes;
  for (int i = 0; i < rank; ++i)
    if (i != a) axes.push_back(i);
  if (rank > 0) axes.insert(b, a);
  return permute(axes, where);
}

Tensor Tensor::view_as(const Tensor& other, Location where) const { return view(other.sizes(where), where); }
Tensor Tensor::expand_as(const Tensor& other, Location where) const {
  return expand(other.sizes(where), where);
}
Tensor broadcast_to(const Tensor& t, const Dims& sizes, Location where) { return t.expand(sizes, where); }

Tensor Tensor::diagonal(int64_t offset, int64_t axis1, int64_t axis2, Location where) const {
  return CallBuilder(OpId::diagonal, where).in(*this).word(offset).word(axis1).word(axis2).run();
}
Tensor diag_embed(const Tensor& t, int64_t offset, int64_t axis1, int64_t axis2, Location where) {
  return CallBuilder(OpId::diag_embed, where).in(t).word(offset).word(axis1).word(axis2).run();
}
Tensor diag(const Tensor& t, int64_t offset, Location where) {
  if (t.dim(where) == 1) return diag_embed(t, offset, -2, -1, where);
  if (t.dim(where) == 2) return t.diagonal(offset, 0, 1, where).clone(where);
  fail("diag: a vector or a matrix is needed, found shape " + to_string(t.sizes()), where);
}
Tensor Tensor::unfold(int64_t axis, int64_t size, int64_t step, Location where) const {
  return CallBuilder(OpId::unfold, where).in(*this).word(axis).word(size).word(step).run();
}
Tensor Tensor::flip(const Dims& axes, Location where) const {
  if (axes.empty()) return clone(where);  // an empty list of the op means all
  return CallBuilder(OpId::flip, where).in(*this).list(axes).run();
}
Tensor Tensor::roll(int64_t shift, std::optional<int64_t> axis, Location where) const {
  if (axis) return CallBuilder(OpId::roll, where).in(*this).word(shift).word(*axis).run();
  return reshape({-1}, where).roll(shift, 0, where).reshape(sizes(where), where);
}
Tensor Tensor::repeat(const Dims& repeats, Location where) const {
  return CallBuilder(OpId::repeat, where).in(*this).list(repeats).run();
}
Tensor Tensor::tile(const Dims& repeats, Location where) const {
  Dims filled = repeats;
  while (filled.rank() < dim(where)) filled.insert(0, 1);
  return repeat(filled, where);
}
Tensor Tensor::repeat_interleave(int64_t repeats, std::optional<int64_t> axis, Location where) const {
  if (repeats < 0) fail("repeat_interleave: a negative number of repeats: " + std::to_string(repeats), where);
  if (!axis) return reshape({numel(where)}, where).repeat_interleave(repeats, 0, where);
  const int at = normalize_axis(*axis, dim(where), "repeat_interleave", where);
  if (dim(where) == 0 || dim(where) == kMaxRank)
    fail("repeat_interleave: at least one axis is needed, and room for another, found shape " +
             to_string(sizes()),
         where);
  Dims wide = sizes(where), joined = wide;
  wide.insert(at + 1, repeats);
  joined[at] = checked_mul(joined[at], repeats, "repeat_interleave: size", where);
  return unsqueeze(at + 1, where).expand(wide, where).reshape(joined, where);
}
Tensor Tensor::tril(int64_t diagonal, Location where) const {
  return CallBuilder(OpId::tril, where).in(*this).word(diagonal).run();
}
Tensor Tensor::triu(int64_t diagonal, Location where) const {
  return CallBuilder(OpId::triu, where).in(*this).word(diagonal).run();
}
Tensor Tensor::diff(int64_t n, int64_t axis, Location where) const {
  if (n < 0) fail("diff: a negative number of times: " + std::to_string(n), where);
  if (dim(where) == 0) fail("diff: a tensor of rank 0 has no axis", where);
  Tensor out = *this;
  for (; n > 0 && out.size(axis, where) > 0; --n) {
    const int64_t left = out.size(axis) - 1;
    const Tensor after = out.narrow(axis, 1, left, where), before = out.narrow(axis, 0, left, where);
    out = dtype() == bool_ ? after.ne(Operand(before, where)) : after.sub(Operand(before, where));
  }
  return out;
}
Tensor rot90(const Tensor& t, int64_t k, int64_t axis0, int64_t axis1, Location where) {
  if (t.dim(where) < 2) fail("rot90: two axes are needed, found shape " + to_string(t.sizes()), where);
  const int a = normalize_axis(axis0, t.dim(), "rot90", where),
            b = normalize_axis(axis1, t.dim(), "rot90", where);
  if (a == b) fail("rot90: both axes are " + std::to_string(a), where);
  switch ((k % 4 + 4) % 4) {
    case 1:
      return t.flip({b}, where).transpose(a, b, where);
    case 2:
      return t.flip({a, b}, where);
    case 3:
      return t.flip({a}, where).transpose(a, b, where);
    default:
      return t.clone(where);
  }
}

// Parts.
std::vector<Tensor> split(const Tensor& t, const Dims& sizes, int64_t axis, Location where) {
  const int64_t n = t.size(axis, where);
  int64_t total = 0;
  for (const int64_t s : sizes) {
    if (s < 0) fail("split: a negative size in " + to_string(sizes), where);
    total = checked_add(total, s, "split: size", where);
  }
  if (total != n)
    fail("split: sizes " + to_string(sizes) + " do not make up axis " + std::to_string(axis) + " of " +
             to_string(t.sizes()),
         where);
  std::vector<Tensor> parts;
  int64_t start = 0;
  for (const int64_t s : sizes) {
    parts.push_back(t.narrow(axis, start, s, where));
    start += s;
  }
  return parts;
}

std::vector<Tensor> split(const Tensor& t, int64_t size, int64_t axis, Location where) {
  const int64_t n = t.size(axis, where);
  if (size <= 0) fail("split: parts of a positive size are needed, found " + std::to_string(size), where);
  std::vector<Tensor> parts;
  for (int64_t start = 0; start < std::max<int64_t>(n, 1); start += size)
    parts.push_back(t.narrow(axis, start, std::min(size, n - start), where));
  return parts;
}

std::vector<Tensor> chunk(const Tensor& t, int64_t chunks, int64_t axis, Location where) {
  if (chunks <= 0)
    fail("chunk: a positive number of chunks is needed, found " + std::to_string(chunks), where);
  const int64_t n = t.size(axis, where);
  return split(t, std::max<int64_t>(1, n / chunks + (n % chunks != 0)), axis, where);
}

std::vector<Tensor> unbind(const Tensor& t, int64_t axis, Location where) {
  std::vector<Tensor> parts;
  const int64_t n = t.size(axis, where);
  for (int64_t i = 0; i < n; ++i) parts.push_back(t.select(axis, i, where));
  return parts;
}

std::vector<Tensor> meshgrid(TensorSpan axes, Location where) {
  Dims sizes;
  for (const Tensor& t : axes) {
    if (t.dim(where) > 1) fail("meshgrid: vectors are needed, found shape " + to_string(t.sizes()), where);
    sizes.push_back(t.numel());
  }
  std::vector<Tensor> grids;
  for (int i = 0; i < sizes.rank(); ++i) {
    Dims line = Dims::filled(sizes.rank(), 1);
    line[i] = sizes[i];
    grids.push_back(axes[static_cast<size_t>(i)].reshape(line, where).expand(sizes, where));
  }
  return grids;
}

Tensor cartesian_prod(TensorSpan vectors, Location where) {
  if (vectors.empty()) fail("cartesian_prod: at least one vector is needed", where);
  std::vector<Tensor> columns;
  for (const Tensor& grid : meshgrid(vectors, where)) columns.push_back(grid.reshape({grid.numel()}, where));
  return columns.size() == 1 ? columns[0] : stack(columns, 1, where);
}

// Order.
namespace {
/// The elements that `index`, which kept the axis, names along it.
ValuesIndices chosen(const Tensor& t, const Tensor& index, int64_t axis, bool keepdim, Location where) {
  if (t.dim(where) == 0) return {t.clone(where), index};
  const Tensor values = t.gather(axis, index, where);
  if (keepdim) return {values, index};
  return {values.squeeze(axis, where), index.squeeze(axis, where)};
}

/// The first `count` positions in sorted order, -1: all.
Tensor first_sorted(const Tensor& x, int64_t axis, bool descending, int64_t count, Location where) {
  return CallBuilder(OpId::argsort, where).in(x).word(axis).word(descending).word(count).run();
}
}  // namespace

Tensor Tensor::max(Location where) const { return amax({}, false, where); }
Tensor Tensor::min(Location where) const { return amin({}, false, where); }
ValuesIndices Tensor::max(int64_t axis, bool keepdim, Location where) const {
  return chosen(*this, argmax(axis, true, where), axis, keepdim, where);
}
ValuesIndices Tensor::min(int64_t axis, bool keepdim, Location where) const {
  return chosen(*this, argmin(axis, true, where), axis, keepdim, where);
}
ValuesIndices Tensor::cummax(int64_t axis, Location where) const {
  return CallBuilder(OpId::cummax, where).in(*this).word(axis).run2();
}
ValuesIndices Tensor::cummin(int64_t axis, Location where) const {
  return CallBuilder(OpId::cummin, where).in(*this).word(axis).run2();
}
Tensor Tensor::argsort(int64_t axis, bool descending, Location where) const {
  return first_sorted(*this, axis, descending, -1, where);
}
ValuesIndices Tensor::sort(int64_t axis, bool descending, Location where) const {
  const Tensor order = argsort(axis, descending, where);
  if (dim(where) == 0) return {clone(where), order};
  return {gather(axis, order, where), order};
}
ValuesIndices Tensor::topk(int64_t k, int64_t axis, bool largest, Location where) const {
  const int64_t n = dim(where) == 0 ? 1 : size(axis, where);
  if (k < 0 || k > n)
    fail("topk: k must lie in [0, " + std::to_string(n) + "], found " + std::to_string(k), where);
  if (dim(where) == 0) return {clone(where), argsort(axis, largest, where)};
  const Tensor best = first_sorted(*this, axis, largest, k, where);
  return {gather(axis, best, where), best};
}
ValuesIndices Tensor::kthvalue(int64_t k, int64_t axis, bool keepdim, Location where) const {
  const int64_t n = dim(where) == 0 ? 1 : size(axis, where);
  if (k < 1 || k > n)
    fail("kthvalue: k must lie in [1, " + std::to_string(n) + "], found " + std::to_string(k), where);
  const Tensor order = first_sorted(*this, axis, false, k, where);
  return chosen(*this, dim() == 0 ? order : order.narrow(axis, k - 1, 1, where), axis, keepdim, where);
}
// NaN sorts last; the median of numbers with a NaN is NaN.
ValuesIndices Tensor::median(int64_t axis, bool keepdim, Location where) const {
  const int64_t n = dim(where) == 0 ? 1 : size(axis, where);
  if (n == 0)
    fail("median: no elements along axis " + std::to_string(axis) + " of " + to_string(sizes()), where);
  ValuesIndices low = kthvalue((n + 1) / 2, axis, keepdim, where);
  if (!is_floating(dtype()) || dim() == 0) return low;
  const ValuesIndices last = max(axis, keepdim, where);  // the first NaN, if there is one
  const Tensor spoiled = tandem::isnan(last.values, where);
  const auto choose = [&](const Tensor& a, const Tensor& b) {
    return tandem::where(Operand(spoiled, where), Operand(a, where), Operand(b, where));
  };
  low.values = choose(last.values, low.values);
  low.indices = choose(last.indices, low.indices);
  return low;
}
Tensor Tensor::median(Location where) const {
  return reshape({numel(where)}, where).median(0, false, where).values;
}

Tensor Tensor::quantile(double q, std::optional<int64_t> axis, bool keepdim, Location where) const {
  if (!(q >= 0 && q <= 1)) fail("quantile: q must lie in [0, 1], found " + std::to_string(q), where);
  if (!axis) {
    const Tensor all = reshape({numel(where)}, where).quantile(q, 0, false, where);
    return keepdim ? all.reshape(Dims::filled(dim(), 1), where) : all;
  }
  if (!is_floating(dtype(where)))
    fail(std::string("quantile: a floating type is needed, found ") + name(dtype()), where);
  if (dim() == 0) return clone(where);
  const int64_t n = size(*axis, where);
  if (n == 0)
    fail("quantile: no elements along axis " + std::to_string(*axis) + " of " + to_string(sizes()), where);
  const Tensor sorted = sort(*axis, false, where).values;
  const double at = q * static_cast<double>(n - 1), below = std::floor(at);
  const Tensor low = sorted.narrow(*axis, static_cast<int64_t>(below), 1, where);
  const Tensor high = sorted.narrow(*axis, std::min(static_cast<int64_t>(below) + 1, n - 1), 1, where);
  Tensor value = tandem::lerp(Operand(low, where), Operand(high, where), Operand(at - below, where));
  const Tensor last = sorted.narrow(*axis, n - 1, 1, where);
  value =
      tandem::where(Operand(tandem::isnan(last, where), where), Operand(last, where), Operand(value, where));
  return keepdim ? value : value.squeeze(*axis, where);
}

}  // namespace tandem
