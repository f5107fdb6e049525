// Bodies and gradients of what rearranges elements: flip, roll, repeat, triangles, diagonals, one_hot,
// index_fill.
#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/ops/axis_split.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr int64_t kInt64 = static_cast<int64_t>(DType::int64);

/// start, start + step, ...: int64 (size).
Value count_from(Emitter& e, double start, double step, int64_t size) {
  const Value first = e.number(start);
  const Value gap = e.number(step);
  return e.call(OpId::arange, {first, gap}, {kInt64, size});
}

Value flipped(Emitter& e, Value x, const Dims& axes) {
  for (const int64_t axis : axes) {
    const int64_t n = e.type(x).sizes[static_cast<int>(axis)];
    const Value order = count_from(e, static_cast<double>(n) - 1, -1, n);
    x = e.call(OpId::index_select, {x, order}, {axis});
  }
  return x;
}

Value rolled(Emitter& e, Value x, int64_t shift, int axis) {
  const int64_t n = e.type(x).sizes[axis];
  const int64_t by = n == 0 ? 0 : (shift % n + n) % n;
  if (by == 0) return x;
  const Value last = e.slice(x, axis, n - by, n);
  const Value first = e.slice(x, axis, 0, n - by);
  return e.call(OpId::cat, {last, first}, {axis});
}

/// x where i + diagonal >= j (or <=, for the upper triangle) at row i and column j, else 0.
Value triangle(Emitter& e, Value x, int64_t diagonal, bool upper) {
  const TensorType t = e.type(x);
  const int rank = t.sizes.rank();
  const int64_t rows = t.sizes[rank - 2], columns = t.sizes[rank - 1];
  const auto shift = static_cast<double>(std::clamp(diagonal, -rows, columns));
  const Value i = e.reshape(count_from(e, shift, 1, rows), {rows, 1});
  const Value j = count_from(e, 0, 1, columns);
  const Value kept = upper ? e.le(i, j) : e.ge(i, j);
  const Value zero = e.full({}, t.dtype, 0);
  return e.where(kept, x, zero);
}

/// The axes of a result whose last two are to stand at a and b.
Dims places_of(int rank, int a, int b) {
  Dims order;
  for (int i = 0, next = 0; i < rank; ++i) order.push_back(i == a ? rank - 2 : i == b ? rank - 1 : next++);
  return order;
}

/// (..., L) on the diagonal (i, i + offset) of matrices (..., rows, columns) of zeros: in row-major order its
/// elements lie columns + 1 apart.
Value on_diagonal(Emitter& e, Value x, int64_t offset, int64_t rows, int64_t columns) {
  Dims sizes = e.type(x).sizes;
  const int last = sizes.rank() - 1;
  const int64_t length = sizes[last];
  Dims flat = sizes;
  if (length == 0) {
    sizes[last] = rows;
    sizes.push_back(columns);
    return e.full(sizes, e.type(x).dtype, 0);
  }
  const int64_t first = offset < 0 ? -offset * columns : offset;
  flat[last] = checked_mul(length, columns + 1, "diagonal: size", e.location);
  const int64_t used = (length - 1) * (columns + 1) + 1;
  const Value apart = e.reshape(e.pad(e.unsqueeze(x, last + 1), last + 1, 0, columns), flat);
  const Value cut = e.slice(apart, last, 0, used);
  const Value whole = e.pad(cut, last, first, rows * columns - first - used);
  sizes[last] = rows;
  sizes.push_back(columns);
  return e.reshape(whole, sizes);
}

int axis_of(const Gradient& r, int attr, int rank) {
  return normalize_axis(r.integer(attr), rank, r.op.name, r.e.location);
}

}  // namespace

void body::flip(Body& b) {
  b.set(flipped(b.e, b.in(0), normalize_axes(b.list(0), b.type(0).sizes.rank(), b.op.name, b.e.location)));
}
void gradient::flip(Gradient& r) {
  const int rank = r.in_type(0).sizes.rank();
  r.set(0, flipped(r.e, r.grad(), normalize_axes(r.list(0), rank, r.op.name, r.e.location)));
}

void body::roll(Body& b) {
  const int axis = normalize_axis(b.integer(1), b.type(0).sizes.rank(), b.op.name, b.e.location);
  b.set(rolled(b.e, b.in(0), b.integer(0), axis));
}
void gradient::roll(Gradient& r) {
  const int axis = axis_of(r, 1, r.in_type(0).sizes.rank());
  const int64_t n = r.in_type(0).sizes[axis];
  r.set(0, rolled(r.e, r.grad(), n == 0 ? 0 : -(r.integer(0) % n), axis));
}

// Axis by axis as (outer, 1, rest) expanded to (outer, times, rest).
void body::repeat(Body& b) {
  Emitter& e = b.e;
  Value x = b.in(0);
  const Dims times = b.list(0);
  Dims sizes = b.type(0).sizes;
  while (sizes.rank() < times.rank()) sizes.insert(0, 1);
  for (int i = 0; i < times.rank(); ++i) {
    if (times[i] == 1) continue;
    const AxisSplit s = split_axis(sizes, i);
    const Value one = e.reshape(x, {s.outer, 1, s.size * s.inner});
    sizes[i] *= times[i];
    x = e.reshape(e.expand(one, {s.outer, times[i], s.size * s.inner}), sizes);
  }
  b.set(e.reshape(x, sizes));
}
void gradient::repeat(Gradient& r) {
  Emitter& e = r.e;
  const Dims times = r.list(0);
  Dims sizes = e.type(r.grad()).sizes;
  Dims small = r.in_type(0).sizes;
  while (small.rank() < times.rank()) small.insert(0, 1);
  Value g = widen(e, r.grad());
  for (int i = times.rank() - 1; i >= 0; --i) {
    if (times[i] == 1) continue;
    sizes[i] = small[i];
    const AxisSplit s = split_axis(sizes, i);
    const Value parts = e.reshape(g, {s.outer, times[i], s.size * s.inner});
    g = e.reshape(e.sum(parts, {1}, false), sizes);
  }
  r.set(0, e.cast(e.reshape(g, r.in_type(0).sizes), r.in_type(0).dtype));
}

void body::tril(Body& b) { b.set(triangle(b.e, b.in(0), b.integer(0), false)); }
void body::triu(Body& b) { b.set(triangle(b.e, b.in(0), b.integer(0), true)); }
void gradient::tril(Gradient& r) { r.set(0, triangle(r.e, r.grad(), r.integer(0), false)); }
void gradient::triu(Gradient& r) { r.set(0, triangle(r.e, r.grad(), r.integer(0), true)); }

void body::diag_embed(Body& b) {
  const int rank = b.type(0).sizes.rank() + 1;
  const int a = normalize_axis(b.integer(1), rank, b.op.name, b.e.location);
  const int c = normalize_axis(b.integer(2), rank, b.op.name, b.e.location);
  const int64_t offset = b.integer(0), n = b.type(0).sizes.back() + (offset < 0 ? -offset : offset);
  b.set(b.e.permute(on_diagonal(b.e, b.in(0), offset, n, n), places_of(rank, a, c)));
}
void gradient::diag_embed(Gradient& r) {
  r.set(0, r.e.call(OpId::diagonal, {r.grad()}, {r.integer(0), r.integer(1), r.integer(2)}));
}

void gradient::diagonal(Gradient& r) {
  const Dims& sizes = r.in_type(0).sizes;
  const int a = axis_of(r, 1, sizes.rank()), b = axis_of(r, 2, sizes.rank());
  const Value whole = on_diagonal(r.e, r.grad(), r.integer(0), sizes[a], sizes[b]);
  r.set(0, r.e.permute(whole, places_of(sizes.rank(), a, b)));
}

// Position k of window i is position i * step + k of the operand: what several windows show is added.
void gradient::unfold(Gradient& r) {
  Emitter& e = r.e;
  const TensorType& x = r.in_type(0);
  const int rank = x.sizes.rank(), axis = axis_of(r, 0, rank);
  const Dims& g_sizes = e.type(r.grad()).sizes;
  const int64_t windows = g_sizes[axis], size = r.integer(1);
  Dims order, joined = x.sizes;
  for (int i = 0; i <= axis; ++i) order.push_back(i);
  order.push_back(rank);
  for (int i = axis + 1; i < rank; ++i) order.push_back(i);
  joined[axis] = windows * size;
  const Value parts = e.reshape(e.permute(r.grad(), order), joined);
  const Value starts = e.reshape(count_from(e, 0, static_cast<double>(r.integer(2)), windows), {windows, 1});
  const Value index = e.reshape(e.add(starts, count_from(e, 0, 1, size)), {windows * size});
  const Value none = e.full(x.sizes, x.dtype, 0);
  r.set(0, e.call(OpId::index_add, {none, index, parts}, {axis}));
}

// A look-up in 0 .. classes - 1 refuses what is no class.
void body::one_hot(Body& b) {
  Emitter& e = b.e;
  Dims sizes = b.type(0).sizes;
  const int64_t classes = b.integer(0), n = numel(sizes);
  const Value all = count_from(e, 0, 1, classes);
  const Value flat = e.reshape(b.in(0), {n});
  const Value known = e.reshape(e.call(OpId::index_select, {all, flat}, {0}), {n, 1});
  sizes.push_back(classes);
  b.set(e.reshape(e.cast(e.eq(known, all), DType::int64), sizes));
}

namespace {
/// The sizes of what index (n) along the axis names in x.
Dims named_sizes(Dims sizes, const Dims& index, int axis) {
  sizes[axis] = index[0];
  return sizes;
}
}  // namespace

void body::index_fill(Body& b) {
  Emitter& e = b.e;
  const TensorType x = b.type(0);
  const int axis = normalize_axis(b.integer(0), x.sizes.rank(), b.op.name, e.location);
  const Dims sizes = named_sizes(x.sizes, b.type(1).sizes, axis);
  std::vector<int64_t> words = {static_cast<int64_t>(x.dtype), sizes.size()};
  words.insert(words.end(), sizes.begin(), sizes.end());
  const Value filled = e.call(OpId::full, {b.number(1)}, words);
  b.set(e.call(OpId::index_copy, {b.in(0), b.in(1), filled}, {axis}));
}

namespace {
/// The gradient without the positions that the index names.
Value without(Gradient& r) {
  const int axis = axis_of(r, 0, r.in_type(0).sizes.rank());
  const Dims sizes = named_sizes(r.in_type(0).sizes, r.in_type(1).sizes, axis);
  const Value none = r.e.full(sizes, r.in_type(0).dtype, 0);
  return r.e.call(OpId::index_copy, {r.grad(), r.in(1), none}, {axis});
}
}  // namespace

void gradient::index_fill(Gradient& r) { r.set(0, without(r)); }

void gradient::index_copy(Gradient& r) {
  if (r.needs(0)) r.set(0, without(r));
  if (r.needs(2)) r.set(2, r.e.call(OpId::index_select, {r.grad(), r.in(1)}, {r.integer(0)}));
}

void gradient::scatter(Gradient& r) {
  if (r.needs(0)) {
    const Value none = r.e.full(r.in_type(2).sizes, r.in_type(2).dtype, 0);
    r.set(0, r.e.call(OpId::scatter, {r.grad(), r.in(1), none}, {r.integer(0)}));
  }
  if (r.needs(2)) r.set(2, r.e.call(OpId::gather, {r.grad(), r.in(1)}, {r.integer(0)}));
}

}  // namespace tandem::ops
