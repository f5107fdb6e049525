// index and index_put: the indexed axes become one, whose positions are computed from the stacked indices; a
// position that is out of range stays so, which index_select and its transposes refuse.
#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Sizes of x, the K indexed ones from `axis` on replaced by those that each of the stacked indices has.
Dims indexed_sizes(const Dims& x, const Dims& at, int axis) {
  Dims sizes;
  for (int i = 0; i < axis; ++i) sizes.push_back(x[i]);
  for (int i = 1; i < at.rank(); ++i) sizes.push_back(at[i]);
  for (int i = axis + static_cast<int>(at[0]); i < x.rank(); ++i) sizes.push_back(x[i]);
  return sizes;
}

Dims check_indexed(const InferCall& call) {
  need_tensor(call, 0);
  need_index(call, 1);
  const Dims &x = operand(call, 0).sizes, &at = operand(call, 1).sizes;
  if (x.empty()) fail_call(call, "the operand has no axis: " + operand_text(call));
  const int axis = axis_of(call, 0, x.rank());
  if (at.empty() || at[0] < 1 || at[0] > x.rank() - axis)
    fail_call(call, "the indices must be stacked along their first axis, one for each of at most " +
                        std::to_string(x.rank() - axis) + " axes from " + std::to_string(axis) +
                        " on; found " + operand_text(call));
  if (x.rank() - at[0] + at.rank() - 1 > kMaxRank)
    fail_call(call, "the result would have more than " + std::to_string(kMaxRank) + " axes; found " +
                        operand_text(call));
  const Dims sizes = indexed_sizes(x, at, axis);
  checked_numel(sizes);
  return sizes;
}

struct Indexed {
  int axis;
  Dims merged;   // sizes of x with the indexed axes as one
  Value places;  // int64, a vector, along that axis
};

Indexed merge(Body& b) {
  Emitter& e = b.e;
  const Value x = b.in(0);
  const Dims sizes = b.type(0).sizes, at = b.type(1).sizes;
  const int axis = normalize_axis(b.integer(0), sizes.rank(), b.op.name, e.location);
  const auto count = static_cast<int>(at[0]);
  Indexed r{axis, sizes, {}};
  Dims common = at;
  common.erase(0);
  const Dims line = {numel(common)};
  Value place, outside;
  for (int i = 0; i < count; ++i) {
    const Value row = e.reshape(e.slice(b.in(1), 0, i, i + 1), line);
    const Value given = e.cast(row, DType::float64);  // exact below 2^53
    const Value size = e.count(x, {axis + i});
    const Value negative = e.lt(given, 0.0);
    const Value own = e.where(negative, e.add(given, size), given);
    if (count == 1) {
      r.places = e.cast(own, DType::int64);
      return r;
    }
    const Value low = e.lt(own, 0.0);
    const Value wrong = e.logical_or(low, e.ge(own, size));
    outside = outside ? e.logical_or(outside, wrong) : wrong;
    place = place ? e.add(e.mul(place, size), own) : own;
    if (i == 0) continue;
    r.merged[axis] = checked_mul(r.merged[axis], r.merged[axis + 1], "index: size", e.location);
    r.merged.erase(axis + 1);
  }
  r.places = e.cast(e.where(outside, -1.0, place), DType::int64);
  return r;
}

}  // namespace

void check::index(const InferCall& call, std::vector<TensorType>& out) {
  const Dims sizes = check_indexed(call);
  out.push_back(result_like(call, 0, operand(call, 0).dtype, sizes));
}

void check::index_put(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 2);
  const Dims sizes = check_indexed(call);
  if (operand(call, 0).dtype != operand(call, 2).dtype)
    fail_call(call, "the values have another type: " + operand_text(call) + "; cast them");
  if (operand(call, 2).sizes != sizes)
    fail_call(call, "the values must have sizes " + to_string(sizes) + ", found " + operand_text(call));
  out.push_back(operand(call, 0));
}

void body::index(Body& b) {
  Emitter& e = b.e;
  const Dims sizes = b.type(0).sizes, at = b.type(1).sizes;
  const Indexed m = merge(b);
  const Value x = e.reshape(b.in(0), m.merged);
  const Value found = e.call(OpId::index_select, {x, m.places}, {m.axis});
  b.set(e.reshape(found, indexed_sizes(sizes, at, m.axis)));
}

void body::index_put(Body& b) {
  Emitter& e = b.e;
  const Dims sizes = b.type(0).sizes;
  const Indexed m = merge(b);
  Dims rows = m.merged;
  rows[m.axis] = e.type(m.places).sizes[0];
  Value x = e.reshape(b.in(0), m.merged);
  Value values = e.reshape(b.in(2), rows);
  if (!b.integer(1)) {
    b.set(e.reshape(e.call(OpId::index_copy, {x, m.places, values}, {m.axis}), sizes));
    return;
  }
  x = widen(e, x);  // sums of halves are rounded once
  values = widen(e, values);
  const Value sum = e.call(OpId::index_add, {x, m.places, values}, {m.axis});
  b.set(e.reshape(e.cast(sum, b.type(0).dtype), sizes));
}

void gradient::index(Gradient& r) {
  const Value none = r.e.full(r.in_type(0).sizes, r.in_type(0).dtype, 0);
  r.set(0, r.e.call(OpId::index_put, {none, r.in(1), r.grad()}, {r.integer(0), 1}));
}

void gradient::index_put(Gradient& r) {
  Emitter& e = r.e;
  if (r.needs(0) && r.integer(1)) r.set(0, r.grad());
  if (r.needs(0) && !r.integer(1)) {
    const Value none = e.full(r.in_type(2).sizes, r.in_type(2).dtype, 0);
    r.set(0, e.call(OpId::index_put, {r.grad(), r.in(1), none}, {r.integer(0), 0}));
  }
  if (r.needs(2)) r.set(2, e.call(OpId::index, {r.grad(), r.in(1)}, {r.integer(0)}));
}

}  // namespace tandem::ops
